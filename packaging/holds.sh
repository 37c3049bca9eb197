# How the tests of packages speak, wait and enter a root; sourced by the test-*.sh beside
# it, which set `work` (their own folder) and, for inside(), `root`.

passed=0
failed=0
skipped=0

# holds SENTENCE COMMAND...: a test. The command's words are shown when it fails.
holds() {
	sentence=$1
	shift
	if "$@" >"$work/said" 2>&1; then
		passed=$((passed + 1))
		echo "ok    $sentence"
	else
		failed=$((failed + 1))
		echo "FAIL  $sentence"
		tail -n 20 "$work/said" | sed 's/^/      /'
	fi
}

# must COMMAND...: without this step nothing that follows would mean anything.
must() {
	"$@" >"$work/said" 2>&1 || {
		tail -n 20 "$work/said"
		echo "$(basename "$0" .sh): this failed, and the rest depends on it: $*"
		failed=$((failed + 1))
		finish
	}
}

# skip WHAT: it is said, and counted.
skip() {
	echo "skipped: $*"
	skipped=$((skipped + 1))
}

finish() {
	summary="$passed passed, $failed failed"
	[ "$skipped" -eq 0 ] || summary="$summary, $skipped skipped"
	echo "$summary"
	[ "$failed" -eq 0 ]
	exit
}

says_nothing() {
	"$@" >"$work/words" 2>&1
	code=$?
	cat "$work/words"
	[ "$code" -eq 0 ] && [ ! -s "$work/words" ]
}

refused() {
	! "$@"
}

# eventually COMMAND...: for at most some 30 seconds.
eventually() {
	tries=150
	until "$@"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 0.2
	done
}

inside() {
	chroot "$root" "$@"
}
