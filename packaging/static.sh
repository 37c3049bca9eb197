#!/bin/sh
# Builds one file that needs nothing but a Linux kernel: the agent with musl, TLS included,
# for hosts without Debian. "make static" calls it.
#
#   packaging/static.sh [BUILDDIR]     build/static/reconify-agent, what it is made of in
#                                      *.spdx.json and *.licences.txt, and all as a tar
#
# The libraries are built from Debian source packages, which apt fetches and verifies by
# a configuration of its own below BUILDDIR; that of the host stays as it is. What was
# fetched and built is kept there: remove the folder to take newer ones. SQLite is one
# without the WAL-reset fault, from the most settled suite that has one; where none is to
# be had, the list of parts says so.

set -eu
cd "$(dirname "$0")/.."
# The release whose sources are taken, its security updates included.
suite=trixie
mirror=${MIRROR:-http://deb.debian.org/debian}
security=${MIRROR_SECURITY:-http://deb.debian.org/debian-security}

mkdir -p "${1:-build}/static"
out=$(cd "${1:-build}/static" && pwd)
version=$(cat VERSION)
machine=$(uname -m)
say() {
	printf '  %-6s %s\n' "$1" "$2"
}
fail() {
	code=$1
	shift
	echo "static: $*" >&2
	exit "$code"
}
for program in musl-gcc dpkg-source apt-get make objdump; do
	command -v $program >/dev/null ||
		fail 69 "$program is missing: run \"packaging/setup.sh static\""
done
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
unset MAKEFLAGS MAKELEVEL MFLAGS CFLAGS CPPFLAGS LDFLAGS

# --- Sources ------------------------------------------------------------------------

# apt SUITE COMMAND...: with the sources of that suite alone.
apt() {
	place=$out/apt/$1
	shift
	timeout 600 "apt-$1" -q -o Dir::Etc::SourceList="$place/sources.list" \
		-o Dir::Etc::SourceParts=- -o Dir::State::Lists="$place/lists" \
		-o Dir::Cache="$place/cache" -o APT::Sandbox::User=root \
		-o Acquire::http::Timeout=30 -o Acquire::Retries=2 $(shift && printf '%s ' "$@")
}

# lists SUITE: fetched once; 1 where the mirror does not have that suite.
lists() {
	place=$out/apt/$1
	[ -e "$place/complete" ] && return 0
	mkdir -p "$place/lists/partial" "$place/cache/archives/partial"
	{
		echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main"
		[ "$1" != "$suite" ] ||
			echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $security $1-security main"
	} >"$place/sources.list"
	apt "$1" get update >"$place/update.log" 2>&1 && ! grep -q '^[EW]: ' "$place/update.log" || return 1
	: >"$place/complete"
}

# versions SUITE PACKAGE: newest first.
versions() {
	apt "$1" cache showsrc --only-source "$2" 2>/dev/null | sed -n 's/^Version: //p' | sort -u -r -V
}

# source_of PACKAGE SUITE: unpacked as $out/source/PACKAGE, with its version and suite
# beside it. An index may name a version that the mirror does not have (any more): then
# the one before it is taken, and that is said.
source_of() {
	for candidate in $(versions "$2" "$1"); do
		say FETCH "$1 $candidate ($2)"
		rm -rf "$out/source/$1" "$out/fetch" "$out/lib/$1"
		mkdir -p "$out/fetch" "$out/source"
		if (cd "$out/fetch" && apt "$2" get source --download-only "$1=$candidate") >"$out/fetch.log" 2>&1 &&
			(cd "$out/fetch" && dpkg-source --no-check -x ./*.dsc "$out/source/$1") >>"$out/fetch.log" 2>&1; then
			rm -rf "$out/fetch"
			echo "$2" >"$out/source/$1.suite"
			echo "$candidate" >"$out/source/$1.version"
			return 0
		fi
		echo "static: the mirror lists $1 $candidate and does not have it; taking the one before it" >&2
	done
	tail -n 5 "$out/fetch.log" >&2
	fail 69 "the source of $1 could not be fetched; all of its words are in $out/fetch.log"
}

# without_fault VERSION: fixed in 3.51.3, and in 3.50.7 and 3.44.6 of the older lines.
without_fault() {
	dpkg --compare-versions "$1" ge 3.51.3 ||
		{ dpkg --compare-versions "$1" ge 3.50.7 && dpkg --compare-versions "$1" lt 3.51; } ||
		{ dpkg --compare-versions "$1" ge 3.44.6 && dpkg --compare-versions "$1" lt 3.45; }
}

# What was built stays what it is, until the folder is removed.
parts='mbedtls curl libuv1 cjson libinih sqlite3'
for part in $parts; do
	[ -e "$out/source/$part.version" ] || incomplete=1
done
if [ -n "${incomplete:-}" ]; then
	lists $suite || {
		cat "$out/apt/$suite/update.log" >&2
		fail 69 "the lists of sources of Debian's $suite could not be fetched from $mirror"
	}
	for part in mbedtls curl libuv1 cjson libinih; do
		[ -e "$out/source/$part.version" ] || source_of $part $suite
	done
	sqlite_suite=
	for candidate in $suite $suite-backports testing sid; do
		lists $candidate || continue
		found=$(versions $candidate sqlite3 | head -n 1)
		if [ -n "$found" ] && without_fault "$found"; then
			sqlite_suite=$candidate
			break
		fi
	done
	[ -n "$sqlite_suite" ] || sqlite_suite=$suite
	[ -e "$out/source/sqlite3.version" ] || source_of sqlite3 "$sqlite_suite"
fi
sqlite_version=$(cat "$out/source/sqlite3.version")
without_fault "$sqlite_version" ||
	echo "static: SQLite $sqlite_version has the WAL-reset fault; $mirror has none without it" >&2

# --- Libraries ----------------------------------------------------------------------

# musl-gcc's folders lack the kernel's headers.
kernel=$out/include-kernel
mkdir -p "$kernel"
for folder in linux asm-generic; do
	ln -sfn "/usr/include/$folder" "$kernel/$folder"
done
ln -sfn "/usr/include/$(gcc -dumpmachine)/asm" "$kernel/asm"

flags="-Os -g0 -ffunction-sections -fdata-sections -fstack-protector-strong -fno-asynchronous-unwind-tables
	-ffile-prefix-map=$out=. -ffile-prefix-map=$PWD=. -idirafter $kernel"
flags=$(echo $flags)
cpus=$(nproc)

# library NAME COMMAND...: built once for its version, in $out/lib/NAME.
library() {
	name=$1
	shift
	if [ ! -e "$out/lib/$name/complete" ]; then
		say BUILD "$name $(cat "$out/source/$name.version")"
		rm -rf "$out/lib/$name"
		mkdir -p "$out/lib"
		cp -R "$out/source/$name" "$out/lib/$name"
		(cd "$out/lib/$name" && set -e && "$@") >"$out/$name.log" 2>&1 || {
			tail -n 15 "$out/$name.log" >&2
			fail 70 "$name could not be built; all of its words are in $out/$name.log"
		}
		: >"$out/lib/$name/complete"
	fi
}

# archive NAME SOURCE...: compiled side by side, archived in the order given.
archive() {
	into=$1
	shift
	objects=
	: >objects.mk
	for source in "$@"; do
		object=$(echo "$source" | tr / _).o
		objects="$objects $object"
		printf '%s: %s\n\tmusl-gcc %s %s -c -o $@ $<\n' "$object" "$source" "$flags" "$EXTRA" >>objects.mk
	done
	make -f objects.mk -j"$cpus" $objects
	ar crD "$into" $objects
}

# TLS 1.2 and 1.3 as mbedTLS has them by default; threads, since names are looked up on one.
mbedtls() {
	for name in MBEDTLS_THREADING_C MBEDTLS_THREADING_PTHREAD; do
		sed -i "s|^//#define $name\$|#define $name|" include/mbedtls/mbedtls_config.h
		grep -q "^#define $name\$" include/mbedtls/mbedtls_config.h
	done
	# Not for a client of https: servers, datagrams, shared keys, static RSA, old ciphers,
	# and what only tests call.
	sed -i -e '/^#define MBEDTLS_SSL_\(SRV_C\|PROTO_DTLS\|DTLS_.*\|COOKIE_C\|CACHE_C\|RENEGOTIATION\)\>/s|^|//|' \
		-e '/^#define MBEDTLS_KEY_EXCHANGE_.*\(PSK\|RSA\|ECDH\)_ENABLED/{/ECDHE_\(RSA\|ECDSA\)/!s|^|//|}' \
		-e '/^#define MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK/s|^|//|' \
		-e '/^#define MBEDTLS_\(ARIA\|CAMELLIA\|DES\|RIPEMD160\|ECJPAKE\|LMS\|DHM\|NIST_KW\|XTEA\)_C$/s|^|//|' \
		-e '/^#define MBEDTLS_\(SELF_TEST\|DEBUG_C\|MEMORY_BUFFER_ALLOC_C\|PKCS12_C\|PSA_.*STORAGE_C\|PSA_ITS_FILE_C\)$/s|^|//|' \
		include/mbedtls/mbedtls_config.h
	# The kernel's getrandom with musl, too, and not a file of /dev that a jail may lack.
	sed -i 's/((defined(__linux__) && defined(__GLIBC__))/(defined(__linux__)/' library/entropy_poll.c
	grep -q '^#if (defined(__linux__) || defined(__midipix__))' library/entropy_poll.c
	EXTRA='-Iinclude -Ilibrary -I3rdparty/everest/include -I3rdparty/everest/include/everest -I3rdparty/p256-m'
	archive libmbedtls.a library/*.c $(find 3rdparty/p256-m -name '*.c' | sort)
	# One archive has all that its three have by default.
	ln -s libmbedtls.a libmbedx509.a
	ln -s libmbedtls.a libmbedcrypto.a
}

curl() {
	# One backend for TLS; names by the C library on a thread; nothing that the agent
	# does not speak.
	sh ./configure --host="$machine-linux-musl" --disable-shared --enable-static \
		--with-mbedtls="$out/lib/mbedtls" --with-ca-bundle=/etc/ssl/certs/ca-certificates.crt \
		--enable-threaded-resolver --disable-manual --disable-docs --disable-libcurl-option \
		--without-zlib --without-brotli --without-zstd --without-nghttp2 --without-libpsl \
		--without-libidn2 --without-libssh2 --without-libssh --without-librtmp --without-libgsasl \
		--disable-ldap --disable-ldaps --disable-rtsp --disable-dict --disable-telnet --disable-tftp \
		--disable-pop3 --disable-imap --disable-smb --disable-smtp --disable-gopher --disable-mqtt \
		--disable-ftp --disable-file --disable-ipfs --disable-websockets --disable-ntlm --disable-kerberos-auth \
		--disable-negotiate-auth --disable-aws --disable-digest-auth --disable-cookies --disable-doh \
		--disable-netrc --disable-alt-svc --disable-hsts --disable-unix-sockets --disable-tls-srp \
		--disable-mime --disable-form-api --disable-get-easy-options --disable-progress-meter \
		CC=musl-gcc CFLAGS="$flags" CPPFLAGS="-I$out/lib/mbedtls/include" LDFLAGS="-L$out/lib/mbedtls" \
		LIBS='-lmbedtls'
	make -j"$cpus" -C lib V=0 libcurl.la
}

libuv1() {
	EXTRA='-Iinclude -Isrc -D_GNU_SOURCE -std=gnu11 -pthread'
	unix=
	for name in async core dl fs getaddrinfo getnameinfo linux loop loop-watcher no-fsevents pipe poll \
		process procfs-exepath proctitle random-devurandom random-getrandom random-sysctl-linux \
		signal stream sysinfo-loadavg tcp thread tty udp; do
		case $name in no-fsevents | sysinfo-loadavg) continue ;; esac
		unix="$unix src/unix/$name.c"
	done
	archive libuv.a src/*.c $unix
}

cjson() {
	EXTRA=
	archive libcjson.a cJSON.c
	mkdir include
	ln -s .. include/cjson
}

# As Debian's package has it: its lines may be of any length, INI's others are its defaults.
libinih() {
	EXTRA=
	archive libinih.a ini.c
}

# Options as in Debian's package where the agent or a producer could tell, without the
# extensions that neither uses.
sqlite_options='-DSQLITE_SECURE_DELETE -DSQLITE_ENABLE_DBSTAT_VTAB -DSQLITE_ENABLE_UNLOCK_NOTIFY
	-DSQLITE_THREADSAFE=1 -DSQLITE_USE_URI -DSQLITE_ENABLE_COLUMN_METADATA -DSQLITE_MAX_VARIABLE_NUMBER=250000
	-DSQLITE_LIKE_DOESNT_MATCH_BLOBS -DSQLITE_OMIT_LOAD_EXTENSION -DHAVE_ISNAN -DHAVE_USLEEP -DHAVE_FDATASYNC'
sqlite3() {
	# Its generator is a C program of its own, so the host's compiler makes it.
	sh ./configure --disable-tcl --disable-load-extension
	make sqlite3.c shell.c
	EXTRA=$(echo $sqlite_options)
	archive libsqlite3.a sqlite3.c
	musl-gcc $flags $EXTRA -DSQLITE_ENABLE_DBPAGE_VTAB -static -Wl,--gc-sections -o sqlite3-cli shell.c libsqlite3.a -lm
	strip sqlite3-cli
}

for part in $parts; do
	library $part $part
done

# --- The agent ----------------------------------------------------------------------

cat >"$out/pkg-config" <<END
#!/bin/sh
# What pkg-config would say if these libraries were installed.
case \$1 in
--cflags) echo "-I$out/lib/sqlite3 -I$out/lib/curl/include -I$out/lib/cjson/include -I$out/lib/libuv1/include -I$out/lib/libinih -idirafter $kernel" ;;
--libs) echo "$out/lib/sqlite3/libsqlite3.a $out/lib/curl/lib/.libs/libcurl.a $out/lib/mbedtls/libmbedtls.a $out/lib/cjson/libcjson.a $out/lib/libuv1/libuv.a $out/lib/libinih/libinih.a" ;;
esac
END
chmod 755 "$out/pkg-config"
agent=$out/agent
# Linked anew, since make does not know of the libraries.
rm -f "$agent/reconify-agent"
make -j"$cpus" B="$agent" CC=musl-gcc PKG_CONFIG="$out/pkg-config" CFLAGS="$flags" \
	LDFLAGS='-static -Wl,--gc-sections' "$agent/reconify-agent" >"$out/agent.log" 2>&1 || {
	tail -n 20 "$out/agent.log" >&2
	fail 70 "the agent could not be built; all of its words are in $out/agent.log"
}
strip -o "$out/reconify-agent" "$agent/reconify-agent"
cp "$out/lib/sqlite3/sqlite3-cli" "$out/sqlite3"

# --- What it is made of -------------------------------------------------------------

parts() {
	for part in $parts; do
		echo "$part|$(cat "$out/source/$part.version")|Debian source package, $(cat "$out/source/$part.suite")|$out/source/$part/debian/copyright"
	done
	for part in musl-dev "libgcc-$(gcc -dumpversion)-dev"; do
		dpkg-query -W -f '${Package}|${Version}|Debian binary package\n' "$part" |
			sed "s|\$|\|/usr/share/doc/$part/copyright|"
	done
}
parts >"$out/parts"
sh packaging/sbom.sh static "$out/reconify-agent" reconify-agent-static <"$out/parts" \
	>"$out/reconify-agent.spdx.json"
{
	echo "reconify-agent $version, one file for Linux on $machine, is made of its own sources and these:"
	echo
	while IFS='|' read -r part found origin copyright; do
		printf '  %-14s %-26s %s\n' "$part" "$found" "$origin"
	done <"$out/parts"
	echo
	if without_fault "$sqlite_version"; then
		echo "SQLite $sqlite_version does not have the WAL-reset fault."
	else
		echo "SQLite $sqlite_version HAS the WAL-reset fault: none without it was to be had."
	fi
	for each in "reconify-agent|||LICENSE" $(sed 's/ /_/g' "$out/parts"); do
		printf '\n\n======== %s\n\n' "${each%%|*}"
		cat "${each##*|}"
	done
} >"$out/reconify-agent.licences.txt"

name=reconify-agent-$version-linux-$machine
rm -rf "$out/$name" "$out"/*.tar.gz
mkdir -p "$out/$name"
cp "$out/reconify-agent" "$out/sqlite3" "$out/reconify-agent.spdx.json" "$out/reconify-agent.licences.txt" \
	packaging/agent.conf schema/spool.sql README.md CHANGELOG.md LICENSE "$out/$name"
cp -R packaging/openrc packaging/procd "$out/$name"
chmod -R u=rwX,go=rX "$out/$name"
tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
	-cf - "$name" | gzip -9n >"$out/$name.tar.gz"
rm -rf "$out/$name"
ls -l "$out/reconify-agent" "$out/$name.tar.gz" | awk '{ print "  " $5 " bytes: " $NF }'
