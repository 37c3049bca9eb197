#!/bin/sh
# A root in which the packages are built for another architecture than this machine's: its
# own Debian, with compilers for that one and its libraries. "make deb ARCH=arm64" calls it.
#
#   packaging/cross.sh ARCH     as root; the root is build/roots/cross-ARCH and is kept
#
# Nothing of the machine's own system is changed.

set -eu
cd "$(dirname "$0")/.."
arch=$1
root=$PWD/build/roots/cross-$arch
[ ! -e "$root/complete" ] || exit 0
[ "$(id -u)" -eq 0 ] || {
	echo "cross: a root to build for $arch in needs root" >&2
	exit 77
}
command -v debootstrap >/dev/null || {
	echo 'cross: debootstrap is missing: run "packaging/setup.sh cross"' >&2
	exit 69
}
log=$PWD/build/roots/cross-$arch.log
mkdir -p build/roots
rm -rf "$root"
echo "cross: a root to build for $arch in: once, some minutes ($log)"
set_up() {
	debootstrap --variant=minbase bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}" &&
	cp /etc/resolv.conf "$root/etc/resolv.conf" &&
	chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C sh -e -c "
		dpkg --add-architecture $arch
		apt-get -q update
		apt-get -q install -y --no-install-recommends build-essential crossbuild-essential-$arch debhelper \
			pkg-config:$arch libcjson-dev:$arch libcurl4-openssl-dev:$arch libinih-dev:$arch \
			libmicrohttpd-dev:$arch libsqlite3-dev:$arch libuv1-dev:$arch libcmocka-dev:$arch \
			sqlite3 make
		apt-get -q clean"
}
set_up >"$log" 2>&1 || {
	tail -n 20 "$log" >&2
	echo "cross: that failed; all of its words are in $log" >&2
	exit 1
}
: >"$root/complete"
