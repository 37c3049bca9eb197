#!/bin/sh
# The static program in a root that has nothing but busybox, it and a sqlite3: it must run
# there as on Debian, TLS included. "make test-static" builds it and calls this, as root.
#
# Writes below build/ only; no process and no mount outlives it. The endpoint is a
# reconify-sink outside of the root, on the loopback.

set -u
cd "$(dirname "$0")/.." || exit 70
[ "$(id -u)" -eq 0 ] || {
	echo 'test-static: a root of its own needs root' >&2
	exit 77
}
[ -n "${INSIDE_NAMESPACE:-}" ] ||
	INSIDE_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child --mount-proc sh "$0"

static=$PWD/build/static
work=$PWD/build/test-static
root=$work/root
spool=/var/lib/reconify-agent/spool.db
unset RECONIFY_ENDPOINT RECONIFY_APP_KEY RECONIFY_API_KEY
rm -rf "$work"
mkdir -p "$work"
. packaging/holds.sh

# --- The file -----------------------------------------------------------------------

is_static() {
	! readelf -lW "$static/reconify-agent" | grep -E 'INTERP|DYNAMIC'
}
holds 'it asks for no loader and no library' is_static
holds 'it is smaller than 1.7 MB' [ "$(stat -c %s "$static/reconify-agent")" -lt 1700000 ]
without_fault() {
	grep '^SQLite .* does not have the WAL-reset fault' "$static/reconify-agent.licences.txt"
}
holds 'its SQLite is one without the WAL-reset fault' without_fault
every_part_has_a_licence() {
	grep -c '"licenseConcluded"' "$static/reconify-agent.spdx.json" | grep -qx 9 &&
		! grep '"licenseConcluded": "NOASSERTION"' "$static/reconify-agent.spdx.json"
}
holds 'each of its parts is listed with its licence' every_part_has_a_licence

# --- A root with busybox alone ------------------------------------------------------

mkdir -p "$root/bin" "$root/usr/bin" "$root/etc/reconify-agent" "$root/etc/init.d" "$root/proc" \
	"$root/dev" "$root/var/lib" "$root/tmp"
must cp /bin/busybox "$root/bin/busybox"
must chroot "$root" /bin/busybox --install -s /bin
must mount -t proc proc "$root/proc"
must mknod -m 666 "$root/dev/null" c 1 3
echo '127.0.0.1 localhost' >"$root/etc/hosts"
printf 'root:x:0:0::/:/bin/sh\nreconify:x:985:985::/:/bin/false\nalice:x:1000:1000::/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nreconify:x:985:alice\nalice:x:1000:\n' >"$root/etc/group"
must cp "$static/reconify-agent" "$static/sqlite3" "$root/usr/bin/"
as() {
	user=$1
	shift
	chroot --userspec="$user" --groups=985 \
		"$root" /bin/env -i PATH=/usr/bin:/bin "$@"
}

certificate() {
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" \
		-addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout "$work/$1.key" -out "$work/$1.pem"
}
must certificate ours
must certificate another
mkdir "$work/arrived"
build/reconify-sink --listen 127.0.0.1:0 --record "$work/arrived" --cert "$work/ours.pem" \
	--key "$work/ours.key" >"$work/sink.log" 2>&1 &
must eventually grep -q '^listening on ' "$work/sink.log"
port=$(sed -n 's/^listening on .*:\([0-9]*\)\/*$/\1/p' "$work/sink.log")

cp packaging/agent.conf "$root/etc/reconify-agent/"
sed -i "s|^#url = .*|url = https://localhost:$port/|; s|^#ca_file =.*|ca_file = ca.pem|" \
	"$root/etc/reconify-agent/agent.conf"
cp "$work/another.pem" "$root/etc/reconify-agent/ca.pem"
for key in app-key api-key; do
	echo "an-$key" >"$root/etc/reconify-agent/$key"
	chmod 600 "$root/etc/reconify-agent/$key"
	chown 985:985 "$root/etc/reconify-agent/$key"
done
must install -d -m 2770 -o 985 -g 985 "$root/var/lib/reconify-agent"

arrived() {
	count=$(find "$work/arrived" -name '*.json' | wc -l)
	echo "$count arrived"
	tail -n 3 "$work/agent.log"
	[ "$count" -ge "$1" ]
}
insert() {
	as alice sqlite3 -batch -bail "file:$spool?mode=rw" <<-'SQL'
		.timeout 5000
		INSERT INTO interactions (model_id, request_body, response_body)
		VALUES ('anthropic.claude-instant-v1', '{}', '{"completion":"Hi"}');
	SQL
}
start() {
	chroot --userspec=reconify --groups=985 "$root" /bin/env -i PATH=/usr/bin:/bin \
		sh -c 'umask 077; exec reconify-agent run' >>"$work/agent.log" 2>&1 &
	agent=$!
}

holds 'it tells its version' inside reconify-agent --version
holds 'it creates the spool' as reconify reconify-agent init
holds 'a user of the group inserts' insert
names_the_certificate() {
	as reconify reconify-agent check >"$work/check" 2>&1
	grep -v '^key' "$work/check"
	grep -q '^WRONG *certificate' "$work/check"
}
holds 'check refuses a certificate of somebody else, and says whose it is' names_the_certificate
: >"$work/agent.log"
start
held() {
	as reconify reconify-agent status >"$work/status" 2>&1
	cat "$work/status"
	grep -q 'certificate' "$work/status"
}
holds 'nothing is sent to it, and status says why' eventually held
holds 'nothing has arrived' refused arrived 1
cp "$work/ours.pem" "$root/etc/reconify-agent/ca.pem"
kill -HUP "$agent"
holds 'with the right authority the record arrives by TLS' eventually arrived 1
kill -KILL "$agent"
wait "$agent" 2>/dev/null
holds 'after kill -9 a user of the group inserts' insert
start
holds 'it starts again, and the record arrives' eventually arrived 2
holds 'check finds nothing wrong' as reconify reconify-agent check
holds 'a bad row is refused' refused as alice sqlite3 "file:$spool?mode=rw" \
	"INSERT INTO interactions (model_id) VALUES ('x')"
kill -TERM "$agent"
holds 'it ends with 0' wait "$agent"
holds 'a record for a drain' insert
holds 'drain delivers it' as reconify reconify-agent drain --wait 20s
holds 'that arrived, too' arrived 3

# --- The services -------------------------------------------------------------------

# OpenWrt's and OpenRC's own shell functions are not here; what the files ask of them is
# written down, and what they would start is started.
cp packaging/procd/reconify-agent "$root/etc/init.d/procd"
cat >"$root/tmp/procd" <<'END'
group_exists() { false; }
user_exists() { false; }
group_add() { echo "group_add $*"; }
user_add() { echo "user_add $*"; }
logger() { echo "logger $*"; }
for word in open_instance set_param close_instance send_signal; do
	eval "procd_$word() { echo \"$word \$*\"; }"
done
. /etc/init.d/procd
"$@"
END
procd() {
	inside sh /tmp/procd "$@" >"$work/procd" 2>&1
	code=$?
	cat "$work/procd"
	return $code
}
procd_starts() {
	procd start_service && grep -qx 'set_param command /usr/bin/reconify-agent run' "$work/procd" &&
		grep -qx 'set_param user reconify' "$work/procd" && grep -qx 'user_add reconify 985 .*' "$work/procd" &&
		[ "$(stat -c '%a %u:%g' "$root/$1")" = '2770 985:985' ]
}
holds 'procd: the service runs the agent as reconify, with its folder' procd_starts var/lib/reconify-agent
holds 'procd: it warns of a spool in memory' grep -q 'is memory here' "$work/procd"
sed -i 's|^#path = .*|path = /srv/reconify-agent/spool.db|' "$root/etc/reconify-agent/agent.conf"
holds 'procd: the folder is that of the configuration' procd_starts srv/reconify-agent
holds 'procd: it does not warn of that one' refused grep -q 'is memory here' "$work/procd"
procd_reloads() {
	procd reload_service && grep -qx 'send_signal reconify-agent' "$work/procd"
}
holds 'procd: reload is a signal' procd_reloads
mv "$root/etc/reconify-agent/agent.conf" "$root/tmp/"
holds 'procd: without a configuration nothing is started' refused procd start_service

cp packaging/openrc/reconify-agent "$root/etc/init.d/openrc"
cat >"$root/tmp/openrc" <<'END'
RC_SVCNAME=reconify-agent
checkpath() { echo "checkpath $*"; }
eerror() { echo "eerror $*"; }
ebegin() { :; }
eend() { return "$1"; }
. /etc/init.d/openrc
"$@" && echo "$command $command_args as $command_user"
END
printf '#!/bin/sh\necho "supervise-daemon $*"\n' >"$root/bin/supervise-daemon"
chmod 755 "$root/bin/supervise-daemon"
openrc() {
	inside sh /tmp/openrc "$@" >"$work/openrc" 2>&1
	code=$?
	cat "$work/openrc"
	return $code
}
openrc_starts() {
	openrc start_pre && grep -q 'mode 2770 /var/lib/reconify-agent' "$work/openrc" &&
		grep -qx '/usr/bin/reconify-agent run as reconify:reconify' "$work/openrc"
}
holds 'OpenRC: the service runs the agent as reconify, with its folder' openrc_starts
openrc_reloads() {
	openrc reload && grep -qx 'supervise-daemon reconify-agent --signal HUP' "$work/openrc"
}
holds 'OpenRC: reload is a signal' openrc_reloads
rm "$root/etc/reconify-agent/api-key"
holds 'OpenRC: without a key nothing is started' refused openrc start_pre

umount "$root/proc"
finish
