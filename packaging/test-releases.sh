#!/bin/sh
# The packages of other releases of Debian, built there by that release's own compiler and
# libraries, installed, and a record delivered.
#
#   packaging/test-releases.sh [bullseye|trixie]...     default: both; "make test-releases"
#
# As root, after "make deb". Writes below build/ only; the roots are kept in build/roots. A
# release that the mirror has no more is skipped.

set -u
cd "$(dirname "$0")/.." || exit 70
[ "$(id -u)" -eq 0 ] || {
	echo 'test-releases: a root of its own needs root' >&2
	exit 77
}
[ -n "${INSIDE_NAMESPACE:-}" ] ||
	INSIDE_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child --mount-proc sh "$0" "$@"
[ $# -gt 0 ] || set -- bullseye trixie

work=$PWD/build/test-releases
mirror=http://deb.debian.org/debian
version=$(cat VERSION)
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
unset MAKEFLAGS MAKELEVEL MFLAGS CFLAGS CPPFLAGS LDFLAGS SAN TMPDIR
rm -rf "$work"
mkdir -p "$work" build/roots
. packaging/holds.sh

# make_root FOLDER RELEASE: one in which the packages can be built; kept.
make_root() {
	[ ! -e "$1/complete" ] || return 0
	rm -rf "$1"
	debootstrap --variant=minbase "$2" "$1" "$mirror" && cp /etc/resolv.conf "$1/etc/" &&
		chroot "$1" apt-get -q install -y --no-install-recommends build-essential debhelper \
			pkg-config libcjson-dev libcurl4-openssl-dev libinih-dev libmicrohttpd-dev \
			libsqlite3-dev libuv1-dev sqlite3 ca-certificates &&
		chroot "$1" apt-get clean && : >"$1/complete"
}

try_release() {
	base=$PWD/build/roots/$1-build
	make_root "$base" "$1" >"$work/$1.log" 2>&1 || {
		skip "$1, of which no root can be made: $(grep -E '^[EW]:' "$work/$1.log" | tail -n 1)"
		return
	}
	root=$work/$1
	must cp -a "$base" "$root"
	must mount -t proc proc "$root/proc"
	mkdir "$root/built" "$root/built/tmp"
	must cp -a "build/deb/reconify-agent-$version" "$root/built/"
	rm -rf "$root/built/reconify-agent-$version/build"
	holds "$1: its own compiler and libraries build the packages" inside sh -e -c \
		"cd /built/reconify-agent-$version && dpkg-buildpackage -us -uc -b -j2"
	holds "$1: apt installs them" inside sh -e -c \
		'apt-get install -y /built/reconify-agent_*.deb /built/reconify-sink_*.deb'
	# Bullseye's wants a cgroup of its own, and must not have the machine's.
	if [ "$1" = bullseye ]; then
		skip "$1: what systemd says about the unit, which it does not without a boot"
	else
		holds "$1: systemd has nothing to say about the unit" says_nothing inside \
			systemd-analyze verify --man=no /lib/systemd/system/reconify-agent.service
	fi
	holds "$1: a record is delivered" inside env AUTOPKGTEST_TMP=/built/tmp \
		"/built/reconify-agent-$version/debian/tests/delivers"
	umount "$root/proc"
	rm -rf "$root"
}

for release in "$@"; do
	try_release "$release"
done
finish
