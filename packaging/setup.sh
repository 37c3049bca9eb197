#!/bin/sh
# Sets up what is missing on Debian or Ubuntu, then goes on:
#
#   packaging/setup.sh demo    then calls "make demo" (also without an argument)
#   packaging/setup.sh test    then calls "make test"
#   packaging/setup.sh ci      then calls nothing: what .ci/run needs besides
#   packaging/setup.sh package then calls nothing: what "make deb" and its test need
#   packaging/setup.sh static  likewise, for "make static"
#   packaging/setup.sh rpm     likewise, for "make rpm"
#   packaging/setup.sh cross   likewise, for "make deb ARCH=..."
#
# Installs only what is not there, and nothing at all where all is; changes
# nothing else. Safe to repeat.

set -u

# The one place where the needed packages are listed.
packages_demo='gcc libc6-dev make pkg-config libsqlite3-dev libcurl4-openssl-dev
	libcjson-dev libuv1-dev libinih-dev libmicrohttpd-dev sqlite3 ca-certificates'
packages_test="$packages_demo libcmocka-dev python3 python3-pytest python3-pytest-xdist python3-h2 openssl procps mandoc"
packages_ci="$packages_test clang libclang-rt-dev llvm cppcheck zsh faketime nftables iproute2 strace valgrind"
packages_package="$packages_demo debhelper dpkg-dev lintian mandoc debootstrap systemd autopkgtest piuparts"
packages_static="$packages_demo musl-tools dpkg-dev binutils busybox-static openssl"
packages_rpm="$packages_demo rpm rpmlint"
packages_cross="debootstrap dpkg-dev qemu-user-static"

say() {
	printf 'setup: %s\n' "$*"
}

fail() {
	code=$1
	shift
	printf 'setup: %s\n' "$*" >&2
	exit "$code"
}

goal=${1:-demo}
case $goal in
demo) packages=$packages_demo ;;
test) packages=$packages_test ;;
ci) packages=$packages_ci ;;
package) packages=$packages_package ;;
static) packages=$packages_static ;;
rpm) packages=$packages_rpm ;;
cross) packages=$packages_cross ;;
-h | --help)
	echo "usage: $0 [demo|test|ci|package|static|rpm|cross]"
	exit 0
	;;
*)
	echo "usage: $0 [demo|test|ci|package|static|rpm|cross]" >&2
	exit 64
	;;
esac
[ $# -le 1 ] || fail 64 "one argument at most: demo, test, ci, package, static, rpm or cross"

# Newlines and tabs of the lists above become single spaces.
packages=$(echo $packages)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	fail 69 "this is neither Debian nor Ubuntu (no dpkg and apt-get), so nothing was" \
		"installed. Needed, by their Debian names: $packages. With these in place," \
		"\"make $goal\" does the rest."
fi

missing=
for package in $packages; do
	# What was removed is known still, with another status.
	case $(dpkg-query -W -f '${db:Status-Status} ' "$package" 2>/dev/null) in
	installed\ *) ;;
	*) missing="$missing $package" ;;
	esac
done

if [ -n "$missing" ]; then
	as_root=
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null ||
			fail 77 "missing:$missing. Installing needs root, and there is no sudo here:" \
				"run this script as root, or: apt-get install --no-install-recommends$missing"
		as_root=sudo
	fi
	say "missing, and installed now${as_root:+ with sudo}:$missing"
	# "env" because sudo drops variables. Waits for another apt to end.
	apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120"
	$apt update </dev/null ||
		say 'the lists of packages could not all be updated; trying with those that are here'
	$apt install -y --no-install-recommends $missing </dev/null ||
		fail 69 "apt-get could not install:$missing. Its own words stand above; when that is" \
			'mended, run this again.'
else
	say 'all that is needed is here'
fi

case $goal in ci | package | static | rpm | cross) exit 0 ;; esac
cd "$(dirname "$0")/.." || fail 70 'the folder of the project cannot be entered'
say "make $goal"
exec make "$goal"
