# Builds everything below build/ and nothing elsewhere.
#
#   make            build/reconify-agent, build/reconify-sink
#   make test       all tests          (SAN=address,undefined for sanitizers)
#   make fuzz       libFuzzer on what others write (clang; FUZZ_SECONDS=1800 each)
#   make coverage   lines and branches that the tests reach (clang)
#   make demo       the main job, on real input
#   make torture    every fault, many times over; an hour, or TORTURE="--minutes 5"
#   make install    DESTDIR= PREFIX=/usr/local
#   make deb        build/deb/*.deb   (make test-package tries them, as root, and
#                   make test-releases on other releases of Debian)
#   make static     build/static/reconify-agent: one file, with musl (make test-static)
#   make rpm        build/rpm/*.rpm   (make test-rpm)
#   make dist       build/dist/*.tar.gz from git; make checksums, KEY=ID signs them
#   V=1 shows commands; WERROR=1 makes warnings errors (CI does).

PREFIX  ?= /usr/local
DESTDIR ?=
SAN     ?=
VERSION := $(shell cat VERSION)
comma   := ,
# One folder for each variant, so that objects of different flags never mix.
san_variant := $(if $(SAN),san-$(subst $() ,-,$(subst $(comma),-,$(SAN))),)$(if $(filter clang%,$(CC)),-clang,)
variant := $(if $(FUZZING),fuzz,$(if $(COVERAGE),coverage,$(san_variant)))
B       := build$(if $(variant),/$(patsubst -%,%,$(variant)),)

PKG_CONFIG ?= pkg-config
agent_libs := sqlite3 libcurl libcjson libuv inih
sink_libs  := libmicrohttpd libcjson

warnings := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
            -Wformat=2 -Wundef -Wvla $(if $(WERROR),-Werror)
CFLAGS   ?= -O2 -g
override CFLAGS += -std=c11 $(warnings) -fstack-protector-strong -fno-common -pthread \
            $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
# Files of over 2 GB and times after 2038, also on 32 bits.
override CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 -I. -I$(B)/generated -DRECONIFY_VERSION='"$(VERSION)"' \
            $(if $(SAN),,$(if $(findstring -O0,$(CFLAGS)),,-D_FORTIFY_SOURCE=2)) \
            $(shell $(PKG_CONFIG) --cflags $(agent_libs) $(sink_libs))
# Counted in the source, and while it runs: what is killed with -9 has counted, too.
coverage := -fprofile-instr-generate -fprofile-update=atomic -fcoverage-mapping -mllvm -runtime-counter-relocation
override CFLAGS += $(if $(COVERAGE),$(coverage))
override LDFLAGS += $(if $(COVERAGE),-fprofile-instr-generate)
override LDFLAGS += -pthread $(if $(SAN),-fsanitize=$(SAN)) -Wl,-z,relro,-z,now

agent_sources := $(filter-out agent/sink%.c,$(wildcard agent/*.c)) $(wildcard spool/*.c)
agent_objects := $(agent_sources:%.c=$(B)/%.o)
agent_parts   := $(filter-out $(B)/agent/main.o,$(agent_objects))
sink_objects  := $(B)/agent/sink.o $(B)/agent/sink_judge.o $(B)/agent/json.o
unit_sources  := $(wildcard tests/unit/test_*.c)
unit_programs := $(unit_sources:tests/unit/%.c=$(B)/tests/%)
torture_programs := $(addprefix $(B)/torture/,power_loss storage_errors simulation simulation_real alloc_fail.so)
fuzz_targets  := $(filter-out engine common,$(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c)))
fuzz_objects  := $(patsubst %,$(B)/tests/fuzz/%.o,$(fuzz_targets) common) $(B)/agent/sink_judge.o

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-6s %s\n'
endif

.PHONY: all test coverage coverage-counts demo fuzz fuzz-programs torture bench bench-counts simulate-fleet install uninstall clean analyze boundaries deb test-package test-releases static test-static rpm test-rpm test-cross dist checksums
all: $(B)/reconify-agent $(B)/reconify-sink

$(B)/reconify-agent: $(agent_objects)
	$(say) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$($(PKG_CONFIG) --libs $(agent_libs)) $(LDLIBS)

$(B)/reconify-sink: $(sink_objects)
	$(say) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$($(PKG_CONFIG) --libs $(sink_libs)) $(LDLIBS)

$(B)/%.o: %.c Makefile VERSION
	$(say) CC $<
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# The schema is one readable SQL file; the program carries it as a string.
$(B)/generated/schema_sql.h: schema/spool.sql Makefile
	$(say) EMBED $<
	$(Q)mkdir -p $(@D)
	$(Q)sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $< > $@

$(B)/spool/migrate.o: $(B)/generated/schema_sql.h

$(B)/tests/%: tests/unit/%.c $(agent_parts) Makefile
	$(say) TEST $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) $(unit_flags) -o $@ $(filter %.c %.o,$^) \
	    $$($(PKG_CONFIG) --libs $(agent_libs) cmocka) $(LDLIBS)

$(B)/tests/test_fuzz: $(fuzz_objects)
# These let allocations fail (tests/unit/failing.h).
$(addprefix $(B)/tests/,test_policy test_roster): unit_flags := -Wl,--wrap=malloc,--wrap=calloc
# And here any call can (tests/unit/faults.h).
wrapped := $(addprefix sqlite3_,step exec prepare_v2 prepare_v3 reset finalize open open_v2 close \
    wal_checkpoint_v2 db_readonly busy_handler create_function_v2 file_control db_config mprintf str_finish system_errno \
    libversion_number) malloc calloc realloc \
    strdup strndup close access fsync fdatasync link rename unlink fchmod fchown opendir \
    geteuid nanosleep \
    open64 fcntl64 __fcntl_time64 stat64 __stat64_time64 fstat64 __fstat64_time64 statfs64 \
    posix_fallocate64 pread64 pwrite64 __nanosleep64 __xstat64 __fxstat64
$(addprefix $(B)/tests/,test_job test_pages test_ship test_spool_failures): unit_flags := $(addprefix -Wl$(comma)--wrap=,$(wrapped))

# Each target for FUZZ_SECONDS, from the kept corpus on; FUZZ="NAME..." for some of them.
# The programs are in build/fuzz; tests/fuzz/README.md.
fuzz:
	$(Q)sh tests/fuzz/run.sh $(FUZZ)

# For tests/fuzz/run.sh, which sets CC and flags.
$(B)/fuzz-%: tests/fuzz/engine.c $(fuzz_objects) $(agent_parts)
	$(say) FUZZ $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -DFUZZ_TARGET=fuzz_$* $(LDFLAGS) -fsanitize=fuzzer -o $@ \
	    $(filter %.c %.o,$^) $$($(PKG_CONFIG) --libs $(agent_libs)) $(LDLIBS)
fuzz-programs: $(fuzz_targets:%=$(B)/fuzz-%)

test: all $(unit_programs) $(torture_programs) boundaries
	$(Q)python3 tests/run.py $(B)

# Who may know whom. A header that creeps into the wrong file is how a small
# program stops being one.
boundaries:
	$(Q)sh tests/boundaries.sh

# Lines and branches that the tests reach; each branch that none does is named. With
# COVERAGE_TESTS=unit by the unit tests alone.
coverage:
	$(Q)$(MAKE) --no-print-directory COVERAGE=1 CC=clang CFLAGS='-O1 -g' all coverage-counts

coverage-counts: $(unit_programs) $(torture_programs)
	$(Q)rm -rf $(B)/profile && mkdir -p -m 1777 $(B)/profile
	-$(Q)LLVM_PROFILE_FILE='$(abspath $(B))/profile/%c%m.profraw' TEST_LIMIT=1800 THOROUGH=1 \
	    python3 tests/run.py $(B) $(COVERAGE_TESTS)
	$(Q)python3 tests/coverage.py $(B)

demo: all
	$(Q)sh packaging/demo.sh $(B)

# Every fault, many times over; TORTURE="--minutes 60 --only NAME --seed N".
torture: all $(torture_programs)
	$(Q)/usr/bin/python3 tests/torture/run.py --build $(B) $(TORTURE)

# What it costs, against what libuv and libcurl cost by themselves; tests/bench/README.md.
# BENCH="--quick", "--full", "--only NAME" ...
bench_programs := $(addprefix $(B)/bench/,endpoint poster allocations.so slow_sync.so)

bench: all $(bench_programs)
	$(Q)/usr/bin/python3 tests/bench/bench.py --build $(B) $(BENCH)

# Instructions and allocations a record, against those that are kept.
# COUNTS=--keep keeps what is measured.
bench-counts: all $(bench_programs)
	$(Q)/usr/bin/python3 tests/bench/counts.py --build $(B) $(COUNTS) || [ $$? -eq 77 ]

# A fleet that finds its endpoint again, with the real backoff; tests/simulate/README.md.
simulate-fleet: $(B)/simulate/fleet
	$(Q)sh tests/simulate/fleet.sh $(B) $(SEED)

$(B)/simulate/fleet: tests/simulate/fleet.c $(B)/agent/breaker.o $(B)/agent/policy.o $(B)/agent/json.o
	$(say) LINK $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $$($(PKG_CONFIG) --libs libcjson) $(LDLIBS)

$(B)/bench/%: tests/bench/%.c Makefile VERSION
	$(say) BENCH $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< \
	    $$($(PKG_CONFIG) --libs libcurl libuv) $(LDLIBS)

$(B)/bench/%.so: tests/bench/%.c Makefile
	$(say) BENCH $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -shared $(LDFLAGS) -o $@ $<

# Programs that make things fail inside the process; tests/torture/*.py run them.
$(B)/torture/%: tests/torture/%.c $(agent_parts) $(B)/tests/torture/shim.o Makefile
	$(say) TEST $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(agent_parts) \
	    $(B)/tests/torture/shim.o $$($(PKG_CONFIG) --libs $(agent_libs)) $(LDLIBS)

$(B)/torture/%.so: tests/torture/%.c Makefile
	$(say) TEST $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(filter-out -fsanitize=%,$(CFLAGS)) -fPIC -shared -o $@ $<

# The flow over a spool that is a model in memory, behind spool.h; and over the real one.
model_parts := $(filter-out $(B)/spool/%,$(filter $(patsubst %,$(B)/agent/%.o,ship claim job \
    roster breaker policy payload json config config_file address report secret words rate metrics pause \
    events budget meter),$(agent_parts))) $(B)/spool/record.o

$(B)/torture/simulation: tests/torture/simulation.c $(B)/tests/torture/store_model.o $(model_parts)
	$(say) TEST $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $(filter %.c %.o,$^) \
	    $$($(PKG_CONFIG) --libs libcjson inih) $(LDLIBS)

$(B)/torture/simulation_real: tests/torture/simulation.c $(B)/tests/torture/store_sqlite.o \
    $(agent_parts)
	$(say) TEST $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $(filter %.c %.o,$^) \
	    $$($(PKG_CONFIG) --libs $(agent_libs)) $(LDLIBS)

analyze: $(B)/generated/schema_sql.h
	$(Q)cppcheck --quiet --std=c11 --enable=warning,portability,performance \
	    --inline-suppr --error-exitcode=1 -I. -I$(B)/generated -DRECONIFY_VERSION='""' agent spool

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/reconify-agent \
	    $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5 \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	install -m 755 $(B)/reconify-agent $(B)/reconify-sink $(DESTDIR)$(PREFIX)/bin
	install -m 644 schema/spool.sql schema/README.md packaging/agent.conf \
	    $(DESTDIR)$(PREFIX)/share/reconify-agent
	cp -R packaging/examples $(DESTDIR)$(PREFIX)/share/reconify-agent/
	install -m 644 packaging/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 packaging/man/*.5 $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 644 packaging/completions/bash/reconify-agent \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 644 packaging/completions/zsh/_reconify-agent \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/reconify-agent $(DESTDIR)$(PREFIX)/bin/reconify-sink
	rm -rf $(DESTDIR)$(PREFIX)/share/reconify-agent
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/reconify-agent.1 \
	    $(DESTDIR)$(PREFIX)/share/man/man1/reconify-sink.1 \
	    $(DESTDIR)$(PREFIX)/share/man/man5/reconify-agent.conf.5 \
	    $(DESTDIR)$(PREFIX)/share/man/man5/reconify-spool.5 \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/reconify-agent \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_reconify-agent

deb:
	$(Q)ARCH=$(ARCH) sh packaging/deb.sh

test-cross: deb
	$(Q)sh packaging/test-cross.sh $(ARCH)

test-package:
	$(Q)sh packaging/test-package.sh

static:
	$(Q)sh packaging/static.sh

rpm:
	$(Q)sh packaging/rpm.sh

# On other releases of Debian than this.
test-releases: deb
	$(Q)sh packaging/test-releases.sh

test-rpm: rpm
	$(Q)sh packaging/test-rpm.sh

# The sources as committed; then all that was built, with its sums. KEY=ID signs these.
dist:
	$(Q)sh packaging/release.sh dist

checksums:
	$(Q)sh packaging/release.sh checksums $(KEY)

test-static: static all
	$(Q)sh packaging/test-static.sh

clean:
	rm -rf build

.SECONDARY: $(B)/tests/torture/shim.o

-include $(shell find $(B)/agent $(B)/spool $(B)/tests $(B)/torture $(B)/bench -name '*.d' -type f 2>/dev/null)
