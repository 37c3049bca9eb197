#!/bin/sh
# Who may include whom. The direction of knowledge is what keeps each file
# readable by itself; a header that creeps into the wrong one is refused here.
#
#   sh tests/boundaries.sh     exit 1 names each file that steps over a line

cd "$(dirname "$0")/.." || exit 70
wrong=0

# includes PATTERN: "FILE:LINE:#include ..." for each include in the sources of
# a header that the extended regular expression matches.
includes() {
	grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($1)[>\"]" \
		agent/*.[ch] spool/*.[ch] /dev/null 2>/dev/null
}

# complain LINES WHY: tells of each line, if there are any.
complain() {
	[ -n "$1" ] || return 0
	printf '%s\n' "$1" | while read -r line; do
		printf '%s\n    %s\n' "$line" "$2" >&2
	done
	wrong=1
}

# only PATTERN FILES WHY: headers of PATTERN belong into FILES alone (an
# extended regular expression, too).
only() {
	complain "$(includes "$1" | grep -vE "^($2):")" "$3"
}

# never FILES PATTERN WHY: FILES include nothing of PATTERN.
never() {
	complain "$(includes "$2" | grep -E "^($1):")" "$3"
}

# own FILES HEADERS: of our own headers FILES include only HEADERS.
own() {
	complain "$(includes '[^<>]*' | grep '"' | grep -E "^($1):" | grep -vE "\"($2)\"")" \
		'this file is pure and knows nobody of ours but json.h and record.h'
}

only 'sqlite3(ext)?\.h' 'spool/[^:]*' 'only spool/ knows SQLite'
only 'uv(/.*)?\.h' 'agent/loop\.c' 'only agent/loop.c knows libuv'
only 'curl/.*\.h' 'agent/(http\.[ch]|loop\.c|probe\.c)' \
	'only agent/http, agent/loop.c and agent/probe.c know libcurl'
only 'ini\.h' 'agent/config\.c' 'only agent/config.c knows libinih'
only 'agent/config_internal\.h' 'agent/config(_file)?\.c' 'config_internal.h is the configuration'"'"'s own'
only 'microhttpd\.h' 'agent/sink\.c' 'only agent/sink.c knows libmicrohttpd'
only 'agent/.*' 'agent/[^:]*' 'spool/ knows nothing above it'
never 'agent/ship\.[ch]' '(uv|sqlite3|curl/.*)\.h|agent/(http|loop)\.h' \
	'the flow reaches network and clock through the functions it was given'
own 'agent/policy\.[ch]' 'agent/(policy|json)\.h'
own 'agent/payload\.[ch]' 'agent/(payload|json)\.h|spool/record\.h'
own 'agent/json\.[ch]' 'agent/json\.h'

if [ "$wrong" -ne 0 ]; then
	echo 'tests/boundaries.sh: the lines above cross a boundary; see the top of each module.' >&2
fi
exit "$wrong"
