#!/bin/sh
# What only a system that has booted can show of the unit: packaging/test-package.sh runs
# this inside one, as root, without any network but the loopback. The package is installed
# there and has its endpoint and keys; alice is of the group. Each test is a line,
# "ok    SENTENCE" or "FAIL  SENTENCE", and the last line of all is "end".

set -u
spool=/var/lib/reconify-agent/spool.db
unit=reconify-agent.service

holds() {
	sentence=$1
	shift
	if "$@" >/trial/said 2>&1; then
		echo "ok    $sentence"
	else
		echo "FAIL  $sentence"
		{
			cat /trial/said
			systemctl show -p ActiveState,Result,NRestarts,MainPID $unit
			journalctl --no-pager -n 10 -u $unit
		} | sed 's/^/      /'
	fi
}

# eventually COMMAND...: for at most some 40 seconds.
eventually() {
	tries=200
	until "$@"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 0.2
	done
}

state() {
	[ "$(systemctl show -P "$1" $unit)" = "$2" ]
}

refused() {
	! "$@"
}

main_pid() {
	systemctl show -P MainPID $unit
}

# runs_again PID: with another process than that.
runs_again() {
	state ActiveState active && [ "$(main_pid)" != "$1" ]
}

log_has() {
	journalctl --no-pager -u $unit | grep -q "$1"
}

arrives() {
	arrived=$(find /trial/arrived -name '*.json' | wc -l)
	runuser -u alice -- sqlite3 -batch -bail "file:$spool?mode=rw" <<-'SQL' || return 1
		.timeout 5000
		INSERT INTO interactions (model_id, request_body, response_body)
		VALUES ('anthropic.claude-instant-v1', '{}', '{}');
	SQL
	eventually more_than "$arrived"
}

more_than() {
	[ "$(find /trial/arrived -name '*.json' | wc -l)" -gt "$1" ]
}

mkdir /trial/arrived
reconify-sink --listen 127.0.0.1:8080 --record /trial/arrived --quiet >/trial/sink.log 2>&1 &
sink=$!

holds 'the service starts at boot, without a network' eventually state ActiveState active
holds 'a record of a user of the group arrives' arrives
holds 'systemctl status has a sentence of the agent' refused state StatusText ''
holds 'it may be reloaded' systemctl reload $unit
holds 'it says that it was' eventually log_has 'configuration reloaded'
pid=$(main_pid)
kill -KILL "$pid"
holds 'after kill -9 it runs again' eventually runs_again "$pid"
holds 'and a record arrives' arrives

# The unit's own three minutes would make this long.
mkdir -p /run/systemd/system/$unit.d
printf '[Service]\nWatchdogSec=3s\nRestartSec=1s\n' >/run/systemd/system/$unit.d/quick.conf
systemctl daemon-reload
systemctl restart $unit
pid=$(main_pid)
sleep 5
holds 'the agent that is well keeps its watchdog quiet' state MainPID "$pid"
kill -STOP "$pid"
holds 'one that hangs is ended and runs again' eventually runs_again "$pid"
holds 'that was the watchdog' log_has 'Watchdog timeout'
holds 'and a record arrives again' arrives
holds 'the folder is 2770 still' sh -c \
	'[ "$(stat -c "%a %U:%G" /var/lib/reconify-agent)" = "2770 reconify:reconify" ]'
holds 'the service stops' systemctl stop $unit
holds 'without an error' state Result success

# An upgrade from an earlier version with an edited configuration: a backlog waits, since the
# endpoint is down, and a user inserts all the while. What arrives is counted by uuid.
conf=/etc/reconify-agent/agent.conf
cp -p $conf /trial/agent.conf
holds 'the version before is installed' dpkg --force-confnew -i /trial/earlier.deb
before=$(dpkg-query -W -f '${Version}' reconify-agent)
sed -i -e 's|^#url = .*|url = http://127.0.0.1:8080/|' -e 's|^#summary = .*|summary = 2h|' $conf
cp -p $conf /trial/edited.conf
inode=$(stat -c %i $spool)
kill "$sink"
wait "$sink"
systemctl restart $unit
mkdir /trial/upgraded
cat >/trial/produce <<'END'
until [ -e /trial/enough ]; do
	uuid=$(tr -d - </proc/sys/kernel/random/uuid)
	sqlite3 -batch -bail "file:$1?mode=rw" <<-SQL && echo "$uuid" >>/tmp/inserted
		.timeout 5000
		INSERT INTO interactions (model_id, request_body, response_body, uuid)
		VALUES ('anthropic.claude-instant-v1', '{}', '{}', '$uuid');
	SQL
done
END
runuser -u alice -- touch /tmp/inserted
inserted() {
	wc -l </tmp/inserted
}
inserted_more_than() {
	[ "$(inserted)" -gt "$1" ]
}
look_up() {
	sqlite3 -cmd '.timeout 10000' "file:$spool?mode=ro" "$1"
}
waiting() {
	look_up 'SELECT count(*) FROM interactions'
}
nothing_waits() {
	[ "$(waiting)" = 0 ]
}
upgraded() {
	[ "$(dpkg-query -W -f '${Version}' reconify-agent)" = "$(dpkg-deb -f /trial/agent.deb Version)" ] &&
		! reconify-agent --version | grep -F "$before"
}
same_spool() {
	[ "$(stat -c %i $spool)" = "$inode" ] && [ "$(waiting)" -ge "$backlog" ]
}
arrived_uuids() {
	find /trial/upgraded -name '*.json' | sed 's/.*-\(.*\)\.json$/\1/'
}
# As a spool of the schema's first version is, which lacks these and more.
make_older() {
	runuser -u reconify -- sqlite3 -batch -bail $spool <<-'SQL'
		.timeout 5000
		BEGIN IMMEDIATE;
		DROP TRIGGER interactions_known_key;
		DROP INDEX dead_letters_died;
		PRAGMA user_version = 1;
		COMMIT;
	SQL
}
migrated() {
	[ "$(look_up 'PRAGMA user_version')" -gt 1 ] &&
		[ "$(look_up "SELECT count(*) FROM sqlite_master WHERE name IN
			('interactions_known_key', 'dead_letters_died')")" = 2 ]
}
all_arrived() {
	sort /tmp/inserted >/trial/inserted
	arrived_uuids | sort -u >/trial/delivered
	diff /trial/inserted /trial/delivered
}
runuser -u alice -- sh /trial/produce $spool &
producer=$!
holds 'a backlog grows' eventually inserted_more_than 200
holds 'its spool is one of the first version' make_older
backlog=$(waiting)
count=$(inserted)
pid=$(main_pid)
holds 'dpkg upgrades the package while a user inserts' dpkg --force-confdef -i /trial/agent.deb
holds 'that is another version' upgraded
holds 'the edited configuration is as it was' cmp /trial/edited.conf $conf
holds 'what waited is in the same spool' same_spool
holds 'the service runs, as another process' eventually runs_again "$pid"
holds 'the schema is migrated' eventually migrated
holds 'inserts went on' eventually inserted_more_than $((count + 20))
reconify-sink --listen 127.0.0.1:8080 --record /trial/upgraded --quiet >>/trial/sink.log 2>&1 &
sink=$!
some_arrived() {
	[ "$(arrived_uuids | wc -l)" -gt 20 ]
}
holds 'with the endpoint back, the backlog is delivered' eventually some_arrived
pid=$(main_pid)
holds 'it is installed once more, amid deliveries' dpkg --force-confdef -i /trial/agent.deb
holds 'the service runs, as another process again' eventually runs_again "$pid"
count=$(inserted)
eventually inserted_more_than $((count + 20))
touch /trial/enough
wait "$producer"
holds 'nothing waits in the end' eventually nothing_waits
holds "each of the $(inserted) records inserted has arrived, and no other" all_arrived
holds 'and nothing came twice but what was in flight' \
	[ "$(arrived_uuids | wc -l)" -le $(($(inserted) + 256)) ]
systemctl disable --now $unit
holds 'the service stopped and disabled, an upgrade' dpkg --force-confdef -i /trial/agent.deb
holds 'does not start it' state ActiveState inactive

# A host that is online for minutes a day, as the README has it: the network's start drains.
systemctl enable reconify-agent-drain
runuser -u alice -- sqlite3 "file:$spool?mode=rw" "INSERT INTO interactions
	(model_id, request_body, response_body) VALUES ('anthropic.claude-instant-v1', '{}', '{}')"
holds 'a record waits while no agent runs' [ "$(waiting)" = 1 ]
MODE=start IFACE=eth0 METHOD=static /etc/network/if-up.d/reconify-agent
holds 'the start of the network has it delivered' eventually nothing_waits
holds 'still no agent runs' state ActiveState inactive
systemctl disable reconify-agent-drain
systemctl enable $unit
cp -p /trial/agent.conf $conf

# A command of [notify], within what the unit allows: what the manual says that such a
# command may do, and what it may not.
cat >/usr/local/bin/tell <<'END'
#!/bin/sh
cd /var/lib/reconify-agent || exit
logger -t reconify-told "$RECONIFY_EVENT"
bash -c ': </dev/tcp/127.0.0.1/8080' && echo connected >>told
: >/tmp/told && echo 'wrote into /tmp' >>told
(: >/usr/local/told) 2>/dev/null || echo 'wrote nowhere else' >>told
cp /usr/bin/id /tmp/id && (chmod 2755 /tmp/id) 2>/dev/null || echo 'gained no privileges' >>told
echo "$RECONIFY_EVENT" >>told
END
chmod 755 /usr/local/bin/tell
cp -p /etc/reconify-agent/agent.conf /trial/agent.conf
sed -i '/^\[notify\]/,/^\[/s|^#command =.*|command = /usr/local/bin/tell|' \
	/etc/reconify-agent/agent.conf
systemctl start $unit
runuser -u alice -- sqlite3 -batch -bail "file:$spool?mode=rw" <<-'SQL'
	.timeout 5000
	INSERT INTO interactions (model_id, request_body, response_body)
	VALUES ('stability.stable-diffusion-xl', '{}', '{}');
SQL
holds 'a command of [notify] is told of a dead letter' \
	eventually grep -qsx dead-letters /var/lib/reconify-agent/told
told_journal() {
	journalctl --no-pager -t reconify-told | grep -q dead-letters
}
holds 'it reaches syslog' eventually told_journal
for said in connected 'wrote into /tmp' 'wrote nowhere else' 'gained no privileges'; do
	holds "a command of [notify]: $said" grep -sqx "$said" /var/lib/reconify-agent/told
done
holds 'and when there is none any more' runuser -u reconify -- reconify-agent discard --all --yes
holds 'of which it is told, too' \
	eventually grep -qsx dead-letters-gone /var/lib/reconify-agent/told
systemctl stop $unit
rm -f /var/lib/reconify-agent/told
cp -p /trial/agent.conf /etc/reconify-agent/agent.conf

mv /etc/reconify-agent/app-key /trial/app-key
holds 'without a key, a start does no harm' systemctl start $unit
holds 'the service is inactive then, not failed' state ActiveState inactive
mv /trial/app-key /etc/reconify-agent/app-key

echo 'url ? nonsense' >>/etc/reconify-agent/agent.conf
systemctl start $unit 2>/dev/null
sleep 3
holds 'with a wrong configuration it is not started over and over' state NRestarts 0
holds 'and the reason is in the log' log_has 'agent.conf:'
echo end
systemctl poweroff
