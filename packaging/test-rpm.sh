#!/bin/sh
# The packages for Fedora and its kin, as far as Debian can tell: rpmlint, the same bytes
# from another folder, and rpm --root into a root with their libraries. What only Fedora
# shows is not shown here. "make test-rpm" builds them and calls this, as root.
#
# Writes below build/ only; the root's base is that of test-package.sh.

set -u
cd "$(dirname "$0")/.." || exit 70
[ "$(id -u)" -eq 0 ] || {
	echo 'test-rpm: a root of its own needs root' >&2
	exit 77
}
[ -n "${INSIDE_NAMESPACE:-}" ] ||
	INSIDE_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child --mount-proc sh "$0"

base=$PWD/build/roots/bookworm
work=$PWD/build/test-rpm
root=$work/root
spool=/var/lib/reconify-agent/spool.db
version=$(cat VERSION)
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
rm -rf "$work"
mkdir -p "$work" build/roots
. packaging/holds.sh

lint() {
	rpmlint -c packaging/rpm/rpmlint.toml build/rpm/*.rpm build/rpm/*.spec >"$work/lint" 2>&1
	cat "$work/lint"
	grep -q ' 0 errors, 0 warnings' "$work/lint"
}
holds 'rpmlint finds no error and no warning' lint
same_from_another_folder() {
	mkdir "$work/elsewhere"
	cp -R .git agent spool schema packaging Makefile VERSION ./*.md LICENSE "$work/elsewhere" &&
		(cd "$work/elsewhere" && umask 077 && TZ=Asia/Tokyo sh packaging/rpm.sh) || return 1
	for package in build/rpm/*.rpm; do
		cmp "$package" "$work/elsewhere/build/rpm/$(basename "$package")" || return 1
	done
}
holds 'a build in another folder gives the same bytes' same_from_another_folder

if [ ! -d "$base" ]; then
	rm -rf "$base.new"
	must debootstrap --variant=minbase bookworm "$base.new" http://deb.debian.org/debian
	must mv "$base.new" "$base"
fi
must cp -a "$base" "$root"
must mount -t proc proc "$root/proc"
must cp /etc/resolv.conf "$root/etc/resolv.conf"
must inside apt-get update
must inside apt-get install -y --no-install-recommends systemd sqlite3 ca-certificates libcurl4 \
	libcjson1 libuv1 libinih1 libmicrohttpd12
rpm() {
	/usr/bin/rpm --force-debian --root "$root" --nodeps "$@"
}
agent=build/rpm/reconify-agent-$version-1.$(uname -m).rpm
sink=build/rpm/reconify-sink-$version-1.$(uname -m).rpm
holds 'rpm installs them' says_nothing rpm -i "$agent" "$sink"
holds 'every file is as in the package' says_nothing rpm -V reconify-agent reconify-sink
is() {
	found=$(inside stat -c '%F %a %U:%G' "$1")
	echo "$1: $found"
	[ "$found" = "$2" ]
}
holds 'the folder is 2770, of reconify' is /var/lib/reconify-agent 'directory 2770 reconify:reconify'
holds 'the spool is there, 0660, of reconify' is $spool 'regular file 660 reconify:reconify'
holds 'systemd has nothing to say about the unit' says_nothing inside systemd-analyze verify \
	--man=no /usr/lib/systemd/system/reconify-agent.service
delivers() {
	mkdir -p "$root/arrived"
	inside reconify-sink --listen 127.0.0.1:0 --record /arrived >"$work/sink.log" 2>&1 &
	sink_pid=$!
	tries=50
	until grep -q '^listening on ' "$work/sink.log"; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.2
	done
	inside sqlite3 "file:$spool?mode=rw" "INSERT INTO interactions (model_id, request_body, response_body)
		VALUES ('anthropic.claude-instant-v1', '{}', '{}')" || return 1
	inside setpriv --reuid=reconify --regid=reconify --init-groups env RECONIFY_APP_KEY=a RECONIFY_API_KEY=b \
		RECONIFY_ENDPOINT="$(sed -n 's/^listening on //p' "$work/sink.log")/" \
		reconify-agent drain --wait 20s
	code=$?
	kill "$sink_pid"
	return $code
}
holds 'a record is delivered' delivers
sed 's/^#level = .*/level = debug/' "$root/etc/reconify-agent/agent.conf" >"$work/changed"
cat "$work/changed" >"$root/etc/reconify-agent/agent.conf"
must inside sqlite3 "file:$spool?mode=rw" "INSERT INTO interactions (model_id, request_body, response_body)
	VALUES ('anthropic.claude-instant-v1', '{}', '{}')"
keeps() {
	[ "$(inside sqlite3 "file:$spool?mode=ro" 'SELECT count(*) FROM interactions')" = 1 ] &&
		grep -q '^level = debug' "$root/etc/reconify-agent/agent.conf$1"
}
holds 'rpm installs it over itself' rpm -U --replacepkgs "$agent"
holds 'configuration and records are there still' keeps ''
holds 'rpm removes it' rpm -e reconify-agent
holds 'the records are there after it, and the configuration as .rpmsave' keeps .rpmsave

umount "$root/proc"
finish
