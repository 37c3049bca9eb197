#!/bin/sh
# The packages, as somebody meets them who has a fresh Debian 12 and the README: built,
# installed in a minimal root, configured, used by an ordinary user, upgraded, removed, purged.
#
#   packaging/test-package.sh     as root; "make test-package" calls it so. QUICK=1 in the
#                                 environment leaves out piuparts, which takes a minute
#
# Writes below build/ only. Runs in namespaces of its own, so that no process and no
# mount outlives it. The minimal root is made once and kept in build/roots. What needs a
# system that has booted is in test-boot.sh, which runs under systemd-nspawn.

set -u
cd "$(dirname "$0")/.." || exit 70

[ "$(id -u)" -eq 0 ] || {
	echo 'test-package: installing packages in a root of their own needs root' >&2
	exit 77
}
for program in debootstrap lintian mandoc dpkg-buildpackage dh systemd-analyze; do
	command -v "$program" >/dev/null || {
		echo "test-package: $program is missing: run \"packaging/setup.sh package\"" >&2
		exit 69
	}
done
[ -n "${INSIDE_NAMESPACE:-}" ] ||
	INSIDE_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child --mount-proc sh "$0"

base=$PWD/build/roots/bookworm
work=$PWD/build/test-package
root=$work/root
deb=$PWD/build/deb
version=$(cat VERSION)
unit=packaging/systemd/reconify-agent.service
spool=/var/lib/reconify-agent/spool.db
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
unset RECONIFY_ENDPOINT RECONIFY_APP_KEY RECONIFY_API_KEY MAKEFLAGS

. packaging/holds.sh

as() {
	user=$1
	shift
	inside setpriv --reuid="$user" --regid="$user" --init-groups env HOME=/ "$@"
}

is() {
	found=$(inside stat -c '%F %a %U:%G' "$1")
	echo "$1: $found"
	[ "$found" = "$2" ]
}

# readme_block N: the Nth block of commands in the README's section Install.
readme_block() {
	awk -v wanted="$1" '
		/^## / { inside = ($0 == "## Install"); next }
		inside && /^```/ { if (!open) block++; open = !open; next }
		inside && open && block == wanted
	' README.md
}

rm -rf "$work"
mkdir -p "$work" build/roots

# --- The package by itself ----------------------------------------------------------

references_aside() {
	mandoc -T lint packaging/man/*.[15] 2>/dev/null | grep -v 'referenced manual not found'
}

same_from_another_folder() {
	mkdir "$work/elsewhere"
	cp -R .git agent spool schema packaging Makefile VERSION ./*.md LICENSE "$work/elsewhere" &&
		(cd "$work/elsewhere" && umask 077 && TZ=Asia/Tokyo sh packaging/deb.sh) || return 1
	for package in "$deb"/*.deb; do
		cmp "$package" "$work/elsewhere/build/deb/$(basename "$package")" || return 1
	done
}

must sh packaging/deb.sh
holds 'a build in another folder gives the same bytes' same_from_another_folder
same_contents() {
	for package in reconify-agent reconify-sink; do
		dpkg-deb -c "$deb/${package}_${version}"_*.deb |
			awk -v package=$package '$1 !~ /^d/ { print package, $1, $2, $6 }'
	done | diff packaging/contents.txt -
}
holds 'they hold what packaging/contents.txt lists, and nothing else' same_contents
names_sqlite() {
	dpkg-deb -f "$deb/reconify-agent_${version}"_*.deb Description |
		grep -F "Built with SQLite $(pkg-config --modversion sqlite3);"
}
holds 'the package says which SQLite it was built with' names_sqlite
parts_are_listed() {
	objdump -p "$deb/reconify-agent-$version/build/reconify-agent" |
		awk '$1 == "NEEDED" { print $2 }' >"$work/needed"
	[ "$(wc -l <"$work/needed")" -gt 4 ] || return 1
	while read -r library; do
		package=$(dpkg-query -S "*/$library" | sed -n '1s/:.*//p')
		grep -q "\"name\": \"$package\"" "$deb/reconify-agent_${version}"_*.spdx.json ||
			{ echo "$library of $package is not listed" && return 1; }
	done <"$work/needed"
}
holds 'the list of parts names every library that is linked' parts_are_listed
released() {
	GNUPGHOME=$work/gnupg
	export GNUPGHOME
	mkdir -m 700 "$GNUPGHOME" &&
		gpg --batch --passphrase '' --quick-generate-key 'A test <test@localhost>' &&
		sh packaging/release.sh dist && sh packaging/release.sh checksums test@localhost &&
		(cd build/dist && sha256sum --check --strict SHA256SUMS &&
			gpg --batch --verify SHA256SUMS.asc SHA256SUMS &&
			grep -q "reconify-agent_$version" SHA256SUMS) || return 1
	git ls-tree -r --name-only HEAD >"$work/committed"
	tar -tzf "build/dist/reconify-agent-$version.tar.gz" | sed -n 's|^[^/]*/||; /[^/]$/p' |
		sort | diff "$work/committed" -
}
if command -v gpg >/dev/null; then
	holds 'a release has the sources as committed, and signed sums that hold' released
else
	skip 'the signed sums: there is no gpg here'
fi
holds 'lintian finds no error and no warning' \
	lintian --allow-root --fail-on error,warning "$deb/reconify-agent_${version}"_*.changes
holds 'mandoc finds nothing in the man pages' refused references_aside
holds 'the unit is exposed to no more than 1.2' \
	systemd-analyze security --offline=true --no-pager --threshold=12 "$unit"

# --- A fresh root -------------------------------------------------------------------

if [ ! -d "$base" ]; then
	rm -rf "$base.new"
	must debootstrap --variant=minbase bookworm "$base.new" http://deb.debian.org/debian
	must mv "$base.new" "$base"
fi
must cp -a "$base" "$root"
must mount -t proc proc "$root/proc"
must cp /etc/resolv.conf "$root/etc/resolv.conf"
echo 'APT::Get::Assume-Yes "true";' >"$root/etc/apt/apt.conf.d/90test"
must inside apt-get update
must inside useradd --create-home alice
must inside useradd --create-home mallory
mkdir "$root/packages"
cp "$deb/reconify-agent_${version}"_*.deb "$deb/reconify-sink_${version}"_*.deb "$root/packages"
architecture=$(dpkg --print-architecture)
agent_package=/packages/reconify-agent_${version}_$architecture.deb
sink_package=/packages/reconify-sink_${version}_$architecture.deb

readme_block 1 >"$work/steps"
readme_block 2 >"$work/first-record"
step() {
	grep "^$1" "$work/steps" >"$work/step"
	[ "$(wc -l <"$work/step")" -eq 1 ] || {
		echo "README.md: its section Install has not one step \"$1...\""
		return 1
	}
	sed -e "s|https://ENDPOINT|$endpoint|" -e 's/ USER / alice /' "$work/step" |
		inside sh -e -c "cd /packages; eval \"\$(cat)\"; $2"
}
endpoint=

holds 'README, install: apt installs the package' step 'apt install' ''
must inside apt install "$sink_package"
holds 'every file belongs to the package, unchanged' says_nothing inside dpkg --verify reconify-agent reconify-sink
holds 'systemd has nothing to say about the unit' \
	says_nothing inside systemd-analyze verify --man=no /lib/systemd/system/reconify-agent.service
holds 'there is a user reconify, who cannot log in' \
	inside sh -c 'getent passwd reconify; getent group reconify; getent passwd reconify | grep -q nologin$'
holds 'the folder is 2770, of reconify' is /var/lib/reconify-agent 'directory 2770 reconify:reconify'
holds 'the spool is there, 0660, of reconify' is $spool 'regular file 660 reconify:reconify'
holds 'the service is enabled' inside systemctl is-enabled reconify-agent
conditions() {
	inside systemd-analyze condition \
		"$(grep -m 1 '^ConditionPathExists=.*app-key' $unit)" \
		"$(grep -m 1 '^ConditionPathExists=.*api-key' $unit)"
}
holds 'without keys the service has nothing to start' refused conditions
names_what_is_missing() {
	inside reconify-agent check >"$work/check" 2>&1 && return 1
	cat "$work/check"
	grep -q 'url' "$work/check" && grep -q 'app-key' "$work/check"
}
holds 'check names the endpoint and the keys that are missing' names_what_is_missing
holds 'status answers before the first start' as reconify reconify-agent status
holds 'a user who is not of the group cannot even read the spool' \
	refused as mallory sqlite3 "file:$spool?mode=ro" 'SELECT count(*) FROM interactions'

# --- The first record ---------------------------------------------------------------

mkdir "$root/arrived"
inside reconify-sink --listen 127.0.0.1:0 --record /arrived >"$work/sink.log" 2>&1 &
must eventually grep -q '^listening on ' "$work/sink.log"
endpoint=$(sed -n 's/^listening on //p' "$work/sink.log")/

holds 'README, install: the endpoint' step 'sed ' ''
key() {
	sed -n "/$1)/p" "$work/steps" >"$work/step"
	[ -s "$work/step" ] && printf '%s\n' "$2" | inside sh -e -c "$(cat "$work/step")"
}
holds 'README, install: the app key' key app-key an-app-key
holds 'README, install: the API key' key api-key an-api-key
for name in app-key api-key; do
	holds "the file of the $name is for root alone" is /etc/reconify-agent/$name 'regular file 600 root:root'
done
holds 'README, install: the user joins the group' step 'usermod ' ''
holds 'README, install: the start (which a root that was not booted ignores)' step 'systemctl ' ''
holds 'with keys the service has something to start' conditions
holds 'check finds nothing wrong' inside reconify-agent check

# start_agent: as the unit does, with the keys as systemd hands them over.
credentials=/run/credentials/reconify-agent.service
must inside install -d -m 700 -o reconify -g reconify $credentials
must inside install -m 400 -o reconify -g reconify /etc/reconify-agent/app-key /etc/reconify-agent/api-key $credentials
start_agent() {
	chroot "$root" setpriv --reuid=reconify --regid=reconify --init-groups --no-new-privs \
		env CREDENTIALS_DIRECTORY=$credentials sh -c 'umask 077; exec reconify-agent run' \
		>>"$work/agent.log" 2>&1 &
	agent=$!
}
arrived() {
	count=$(find "$root/arrived" -name '*.json' | wc -l)
	echo "$count arrived"; tail -n 3 "$work/agent.log"
	[ "$count" -ge "$1" ]
}
insert_as() {
	as "$1" sqlite3 -batch -bail "file:$spool?mode=rw" <<-'SQL'
		.timeout 5000
		INSERT INTO interactions (model_id, request_body, response_body)
		VALUES ('anthropic.claude-instant-v1', '{}', '{"completion":"Hi"}');
	SQL
}
fails_as_alice() {
	! as alice sqlite3 "file:$spool?mode=rw" "INSERT INTO interactions (model_id) VALUES ('x')"
}

holds 'a user of the group inserts before the agent ever ran' insert_as alice
start_agent
holds 'that record arrives' eventually arrived 1
holds 'README, install: the first record, and status' as alice sh -e -c "$(cat "$work/first-record")"
holds 'it arrives' eventually arrived 2
holds 'a bad insert is refused' fails_as_alice
kill -KILL "$agent"
wait "$agent" 2>/dev/null
holds 'after kill -9 of the agent a user of the group inserts' insert_as alice
holds 'a bad insert without an agent is refused' fails_as_alice
start_agent
holds 'the agent starts again, and the record arrives' eventually arrived 3
holds 'a user of the group inserts while it runs' insert_as alice
holds 'that arrives, too' eventually arrived 4
holds 'a user who is not of the group cannot insert' refused insert_as mallory
kill -TERM "$agent"
holds 'the agent ends with 0' wait "$agent"
holds 'what is in the folder still belongs to the group' says_nothing \
	inside find /var/lib/reconify-agent ! -group reconify
holds 'the spool is 0660 still' is $spool 'regular file 660 reconify:reconify'

# --- The same root, booted ----------------------------------------------------------

# The same program as a later version.
must dpkg-deb -R "$root$agent_package" "$work/later"
must sed -i 's/^Version: .*/&+later/' "$work/later/DEBIAN/control"
must mkdir "$root/later"
must dpkg-deb --root-owner-group -b "$work/later" "$root/later/reconify-agent_later.deb"

# And an earlier one, built as such, with another configuration file.
earlier() (
	cd "$work/elsewhere" && sed -i "s/^## \[$version\].*/## [0.0.1] - 2026-01-01/" CHANGELOG.md &&
		echo 0.0.1 >VERSION && echo '# As the version before has it.' >>packaging/agent.conf &&
		sh packaging/deb.sh
)
must earlier

# Installing the package systemd-container may replace the host's systemd: its one
# program is enough.
nspawn=$(command -v systemd-nspawn) || nspawn=$PWD/build/roots/container/usr/bin/systemd-nspawn
[ -x "$nspawn" ] || (
	mkdir -p build/roots && cd build/roots && apt-get download systemd-container &&
		dpkg -x systemd-container_*.deb container && rm systemd-container_*.deb
) >"$work/said" 2>&1 || {
	cat "$work/said"
	skip 'the boot, since systemd-nspawn is not to be had'
}
enters() {
	"$nspawn" -D "$booted" --register=no --keep-unit --private-network --console=pipe \
		true </dev/null
}
if [ "$skipped" -eq 0 ]; then
	booted=$work/booted
	must umount "$root/proc"
	must cp -a "$root" "$booted"
	must mount -t proc proc "$root/proc"
	enters >"$work/said" 2>&1 ||
		skip "the boot, since systemd-nspawn does not work here: $(tail -n 1 "$work/said")"
fi

if [ "$skipped" -eq 0 ]; then
	must sed -i 's|^url = .*|url = http://127.0.0.1:8080/|' "$booted/etc/reconify-agent/agent.conf"
	mkdir "$booted/trial"
	cp packaging/test-boot.sh "$booted/trial/"
	cp "$work/elsewhere/build/deb/reconify-agent_0.0.1_$architecture.deb" "$booted/trial/earlier.deb"
	cp "$root$agent_package" "$booted/trial/agent.deb"
	ln -s ../trial.service "$booted/etc/systemd/system/multi-user.target.wants/"
	cat >"$booted/etc/systemd/system/trial.service" <<-'END'
		[Unit]
		After=basic.target
		[Service]
		ExecStart=/bin/sh -c 'sh /trial/test-boot.sh >/trial/results 2>&1'
	END
	: >"$booted/trial/results"
	timeout --kill-after=10 240 "$nspawn" -D "$booted" --register=no --keep-unit \
		--private-network --console=pipe -b </dev/null >"$work/boot.log" 2>&1
	cat "$booted/trial/results"
	passed=$((passed + $(grep -c '^ok' "$booted/trial/results")))
	failed=$((failed + $(grep -c '^FAIL' "$booted/trial/results")))
	holds 'the boot came to its end' grep -q '^end$' "$booted/trial/results"
fi

# --- Upgrade, removal ---------------------------------------------------------------

holds 'a record waits' insert_as alice
waits() {
	[ "$(inside sqlite3 "file:$spool?mode=ro" 'SELECT count(*) FROM interactions')" = "${1:-1}" ]
}
keeps_all() {
	waits && inside grep -q "^url = $endpoint" /etc/reconify-agent/agent.conf &&
		inside test -s /etc/reconify-agent/app-key && inside test -s /etc/reconify-agent/api-key
}
# readme_line WORD: runs the command that the README has behind it, where the later one is.
readme_line() {
	line=$(sed -n "s/^- $1: \`\([^\`]*\)\`.*/\1/p" README.md)
	[ -n "$line" ] && inside sh -e -c "cd /later; $line"
}
later() {
	readme_line Upgrade && inside dpkg -s reconify-agent | grep -q '^Version: .*+later$'
}
holds 'README, upgrade: apt upgrades the package' later
holds 'configuration, keys and records are there still' keeps_all
holds 'the folder is 2770 still' is /var/lib/reconify-agent 'directory 2770 reconify:reconify'
holds 'README, uninstall: apt removes the package' readme_line Uninstall
holds 'configuration, keys and records are there after it' keeps_all
purges() {
	readme_line Purge >"$work/purge" 2>&1
	code=$?
	cat "$work/purge"
	[ $code -eq 0 ] && grep -q 'the spool is kept' "$work/purge"
}
holds 'README, purge: apt purges it, and says that the spool is kept' purges
holds 'keys and configuration are gone' refused inside test -e /etc/reconify-agent
holds 'the record is there still' waits
must inside apt install $agent_package
holds 'a package that is installed again has the record' waits
must inside rm -r $credentials
must inside apt remove reconify-agent
holds 'with the package removed, a user of the group can insert' insert_as alice
must inside apt purge reconify-agent
holds 'and that is kept by a purge' waits 2
must inside apt install $agent_package
must as alice sqlite3 "file:$spool?mode=rw" 'DELETE FROM interactions'
must inside apt remove reconify-agent
holds 'a record that comes after an empty spool was left' insert_as alice
must inside apt purge reconify-agent
holds 'is kept by a purge, too' waits
must inside apt install $agent_package
must as alice sqlite3 "file:$spool?mode=rw" 'DELETE FROM interactions'
must inside apt purge reconify-agent
nothing_of_it() {
	says_nothing inside find / -xdev -path /proc -prune -o -path /packages -prune -o -path /later -prune -o \
		-path /arrived -prune -o -path '/var/lib/apt/*' -prune -o \
		\( -name '*reconify*' ! -name 'reconify-sink*' -o -nouser -o -nogroup \) -print
}
holds 'where no record is left, purging leaves no file' nothing_of_it

# asked_to_purge ANSWER: at a terminal, where the answer comes after the question.
asked_to_purge() {
	: >"$work/purge"
	{
		eventually grep -q 'Delete the records that are in the spool, for ever' "$work/purge" &&
			echo "$1"
	} | timeout 60 script -qec "chroot '$root' env DEBIAN_FRONTEND=teletype apt purge reconify-agent" \
		/dev/null >>"$work/purge" 2>&1
	code=$?
	cat "$work/purge"
	[ $code -eq 0 ] && grep -q 'Delete the records that are in the spool, for ever' "$work/purge"
}
no_user() {
	refused inside grep '^reconify:' /etc/passwd /etc/shadow /etc/group /etc/gshadow
}
must inside apt install $agent_package
must inside usermod -a -G reconify alice
must insert_as alice
holds 'at a terminal, purging asks' asked_to_purge no
holds 'with "no" the record stays' waits
must inside apt install $agent_package
holds 'it asks again the next time' asked_to_purge yes
holds 'with "yes" no file is left' nothing_of_it
holds 'nor the user and the group' no_user
must inside apt install $agent_package
must inside usermod -a -G reconify alice
must insert_as alice
echo 'reconify-agent reconify-agent/purge-spool boolean true' >"$work/answer"
holds 'the answer may be given beforehand' inside debconf-set-selections <"$work/answer"
must inside apt purge reconify-agent
holds 'then nobody is asked, and no file is left' nothing_of_it
holds 'nor the user and the group, either' no_user
must inside apt purge reconify-sink

# --- Debian's own tests of packages -------------------------------------------------

if command -v autopkgtest >/dev/null; then
	mkdir "$work/source"
	cp -R "$deb/reconify-agent-$version/debian" "$work/source/"
	mkdir "$root/trial"
	cp -R "$work/source" "$root$agent_package" "$root$sink_package" "$root/trial/"
	holds 'autopkgtest' autopkgtest --no-built-binaries "$root/trial"/*.deb "$root/trial/source" \
		-- chroot "$root"
else
	skip 'autopkgtest, which is not installed'
fi
umount "$root/proc"

# What is ignored is systemd's, which comes with the package into a minimal root.
if [ -n "${QUICK:-}" ]; then
	skip 'piuparts, which QUICK leaves out'
elif command -v piuparts >/dev/null; then
	holds 'piuparts: installed, removed and purged, it leaves nothing behind' \
		piuparts --distribution bookworm --mirror http://deb.debian.org/debian \
		--existing-chroot "$base" --no-upgrade-test --log-level error \
		--ignore-regex '/(root/.ssh|(cache|lib|log)/private|log/journal|lib/systemd/(coredump|pstore))/?$' \
		"$deb/reconify-agent_${version}_$architecture.deb"
else
	skip 'piuparts, which is not installed'
fi
finish
