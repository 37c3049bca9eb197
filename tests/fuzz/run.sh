#!/bin/sh
# Runs the fuzz targets one after the other, under ASan and UBSan:
#
#   make fuzz                         all, half an hour each
#   make fuzz FUZZ_SECONDS=60 FUZZ="json payload"
#   KEEP=1 make fuzz                  and adds what is new to the kept corpus, minimised
#
# What is new is gathered in build/fuzz-corpus/TARGET, findings in build/fuzz-findings.
# Exit 1: a promise was broken; the input is named.
cd "$(dirname "$0")/../.." || exit 70
seconds=${FUZZ_SECONDS:-1800}
command -v "${CC_FUZZ:=clang}" >/dev/null || {
	echo "make fuzz needs clang (packaging/setup.sh ci installs it)" >&2
	exit 69
}
san='address,undefined'
flags='-O1 -g -fsanitize=fuzzer-no-link'
${MAKE:-make} -s CC="$CC_FUZZ" SAN="$san" CFLAGS="$flags" FUZZING=1 fuzz-programs || exit 70
targets=${*:-$(cd tests/fuzz/corpus && echo *)}
failed=
for target in $targets; do
	kept=tests/fuzz/corpus/$target new=build/fuzz-corpus/$target
	mkdir -p "$new" build/fuzz-findings "$kept"
	set -- -max_total_time="$seconds" -print_final_stats=1 -timeout=30 -rss_limit_mb=2048 \
		-close_fd_mask=3 -verbosity=1 -artifact_prefix="build/fuzz-findings/$target-"
	[ -f "tests/fuzz/$target.dict" ] && set -- "$@" -dict="tests/fuzz/$target.dict"
	printf '%s: %s seconds\n' "$target" "$seconds"
	if ! "build/fuzz/fuzz-$target" "$@" "$new" "$kept" >"build/fuzz-findings/$target.log" 2>&1; then
		failed="$failed $target"
		grep -aE 'does not hold|ERROR|runtime error|Test unit written' \
			"build/fuzz-findings/$target.log"
	fi
	grep -aE 'number_of_executed_units|average_exec' "build/fuzz-findings/$target.log" |
		sed 's/^stat::/    /'
	if [ -n "${KEEP:-}" ]; then
		rm -rf "$new.least"
		mkdir "$new.least"
		"build/fuzz/fuzz-$target" -merge=1 -use_counters=0 -close_fd_mask=3 \
			-max_len="${KEEP_LENGTH:-2048}" \
			"$new.least" "$kept" "$new" >/dev/null 2>&1
		cp "$new.least"/* "$kept"/
	fi
done
[ -z "$failed" ] && exit 0
echo "broken promises:$failed; the inputs are in build/fuzz-findings" >&2
exit 1
