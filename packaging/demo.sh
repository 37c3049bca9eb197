#!/bin/sh
# The main job, for somebody who sees this program for the first time: rows go
# into a spool by sqlite3, the agent ships them to a stand-in for the endpoint,
# the endpoint goes away and comes back, and nothing is lost.
#
#   packaging/demo.sh BUILDDIR     ("make demo" calls it so)
#
# Writes below BUILDDIR/demo only and leaves no process behind. Ends with 0 only
# when every record arrived, once.

set -u

build=${1:?usage: packaging/demo.sh BUILDDIR}
examples=$(dirname "$0")/examples/demo
demo=$build/demo
spool=$demo/spool.db
arrived=$demo/arrived
inserted=$demo/inserted.tsv
agent=$build/reconify-agent
sink=$build/reconify-sink
config=$demo/agent.conf
agent_pid=
sink_pid=

# An account that this shell knows is no part of a demo.
unset RECONIFY_ENDPOINT RECONIFY_APP_KEY RECONIFY_API_KEY

# --- How it speaks, ends and waits ---------------------------------------------

say() {
	printf '%s\n' "$*"
}

step() {
	printf '\n--- %s\n\n' "$*"
}

# shown [MARGIN]: indents what it reads. A line that is too long goes on in the
# next one, MARGIN further to the right.
shown() {
	awk -v margin="${1:-0}" '
		{
			indent = "    "
			while (length(indent $0) > 79) {
				for (cut = 79 - length(indent); cut > 1; cut--)
					if (substr($0, cut, 1) == " ") break
				if (cut == 1) cut = 79 - length(indent)
				print indent substr($0, 1, cut)
				$0 = substr($0, cut + 1)
				indent = sprintf("    %" margin "s", "")
			}
			print indent $0
		}'
}

fail() {
	printf '\ndemo: %s\n' "$*" >&2
	for log in "$demo/agent.log" "$demo/sink.log"; do
		[ -s "$log" ] || continue
		printf 'demo: the end of %s:\n' "$log" >&2
		tail -n 5 "$log" >&2
	done
	exit 1
}

end() {
	code=$?
	trap '' HUP INT PIPE TERM
	trap - EXIT
	[ -z "$agent_pid" ] || kill -TERM "$agent_pid" 2>/dev/null
	[ -z "$sink_pid" ] || kill -KILL "$sink_pid" 2>/dev/null
	wait
	exit "$code"
}
trap end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

# eventually COMMAND...: until it succeeds, for at most some 30 seconds. An agent
# or a sink that ended would be waited for in vain.
eventually() {
	tries=300
	until "$@"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		[ -z "$agent_pid" ] || kill -0 "$agent_pid" 2>/dev/null || return 1
		[ -z "$sink_pid" ] || kill -0 "$sink_pid" 2>/dev/null || return 1
		sleep 0.1
	done
}

# --- The programs --------------------------------------------------------------

# status_says TEXT: whether "status --json" has it.
status_says() {
	"$agent" status --json --config "$config" --spool "$spool" 2>/dev/null | grep -q -F -e "$1"
}

show_status() {
	"$agent" status --config "$config" --spool "$spool" 2>&1 | shown 13
}

# start_sink ADDRESS; port 0 is any free one.
start_sink() {
	"$sink" --listen "$1" --record "$arrived" --quiet >"$demo/sink.log" 2>&1 &
	sink_pid=$!
	eventually grep -qs '^listening on ' "$demo/sink.log" || fail 'the sink does not start'
	address=$(sed -n 's/^listening on //p' "$demo/sink.log")
}

# insert NAME...: what a producer does. The agent may take a row away as soon as it
# is committed, so what the last table needs is read within the transaction.
insert() {
	for name; do
		{
			echo '.timeout 5000'
			echo 'BEGIN IMMEDIATE;'
			cat "$examples/$name.sql"
			echo '.mode tabs'
			printf "SELECT '%s', coalesce(session, '-'), uuid, spooled_at" "$name"
			echo ' FROM interactions ORDER BY id DESC LIMIT 1;'
			echo 'COMMIT;'
		} >"$demo/insert.sql"
		sqlite3 -batch -bail -init /dev/null "$spool" <"$demo/insert.sql" >>"$inserted" ||
			fail "sqlite3 could not insert $name.sql"
		say "    inserted  $name"
	done
}

count_inserted() {
	awk 'END { print NR }' "$inserted"
}

count_arrived() {
	awk '$4 == 200 { count++ } END { print count + 0 }' "$arrived/log.tsv" 2>/dev/null || echo 0
}

# Each is with the sink, and the agent has its word for it.
all_arrived() {
	[ "$(count_arrived)" -ge "$(count_inserted)" ] && status_says '"waiting":0,'
}

# --- The demo ------------------------------------------------------------------

for program in "$agent" "$sink"; do
	[ -x "$program" ] || fail "$program is not there: run \"make\" first"
done
command -v sqlite3 >/dev/null || fail 'sqlite3 is missing: run packaging/setup.sh demo'
if status_says '"running":true'; then
	say "demo: another one is running in $demo: wait for its end" >&2
	exit 75
fi
rm -rf "$demo"
mkdir -p "$demo" || fail "$demo cannot be created"
: >"$inserted"

step '1. A stand-in for the endpoint, and the agent'

start_sink 127.0.0.1:0
say "reconify-sink answers like the real API, at $address."

# The waits between two tries would otherwise grow up to five minutes.
printf '%s\n' '[retry]' 'base = 1s' 'cap = 2s' >"$config"
RECONIFY_ENDPOINT="$address/v1/interactions" \
	RECONIFY_APP_KEY=an-app-key RECONIFY_API_KEY=an-api-key \
	"$agent" run --config "$config" --spool "$spool" >"$demo/agent.log" 2>&1 &
agent_pid=$!
eventually status_says '"running":true' || fail 'the agent does not start'
say "reconify-agent watches $spool, an SQLite file."

step '2. Interactions of six families of models, inserted by sqlite3'

insert 1-claude 2-claude-minimal 3-titan 4-jurassic 5-cohere 6-llama 7-mistral
eventually all_arrived || fail 'not all of them arrived'
say ''
say "All $(count_arrived) arrived. This is what the second became"
say '(in one line; broken here to be read):'
say ''
sed -E 's/,"(appKey|timestamps|request|body|response)":/,\
  "\1":/g' "$arrived"/000002-*.json | fold -w 74 | shown

step '3. The endpoint goes away; the producers do not notice'

kill -KILL "$sink_pid"
wait "$sink_pid" 2>/dev/null
sink_pid=
say 'The sink is killed. Three turns of one conversation come, and two others:'
say ''
insert turn-1 turn-2 3-titan turn-3 7-mistral
eventually status_says '"state":"down"' || fail 'the agent does not notice the outage'
sleep 2
say ''
say '"reconify-agent status" says what is going on:'
say ''
show_status

step '4. The endpoint comes back'

start_sink "${address#http://}"
say 'The sink listens again. Nobody tells the agent; it tries by itself.'
eventually all_arrived || fail 'not all of them arrived'
say ''
show_status

step '5. What was inserted, and what arrived'

awk -F '\t' '
	# The log of the sink: number, time, uuid, status.
	FNR == NR {
		if ($4 == 200) {
			if ($3 in at) twice++
			else { at[$3] = $2; order[$3] = ++count }
		}
		next
	}
	FNR == 1 {
		format = "    %8s  %-17s %-13s %7s %12s\n"
		printf format, "inserted", "example", "session", "arrived", "after"
	}
	{
		if ($3 in at) printf format, FNR, $1, $2, order[$3], (at[$3] - $4) " ms"
		else { printf format, FNR, $1, $2, "no", "-"; missing++ }
		if ($2 != "-" && order[$3] < last[$2]) disorder++
		last[$2] = order[$3]
	}
	END {
		printf "\n%d inserted, %d arrived, %d twice, %d missing.\n", FNR, count, twice, missing
		if (disorder) print "A session was out of order."
		else {
			print "Within a session they arrived in the order of their insertion;"
			print "those without one may overtake."
		}
		exit missing + twice + disorder + (count != FNR) > 0
	}
' "$arrived/log.tsv" "$inserted" || fail 'this is not what was promised'

say ''
say "What arrived is in $arrived, the agent's log in $demo/agent.log."
