#!/bin/sh
# Builds the Debian packages from a copy of the sources, so that nothing is generated in
# the folder of the project; "make deb" calls it.
#
#   packaging/deb.sh [BUILDDIR]     the packages are in BUILDDIR/deb (default: build), with
#                                   a list of what they are linked with (SPDX) beside each
#
# With ARCH=arm64, armhf, ... in the environment they are built for that architecture, in a
# root of its own (packaging/cross.sh), and are in BUILDDIR/deb-ARCH.
#
# The same sources give the same bytes, whichever the folder and the time: dates in the
# packages are SOURCE_DATE_EPOCH, by default that of the commit.

set -eu
cd "$(dirname "$0")/.."
native=$(dpkg --print-architecture)
ARCH=${ARCH:-$native}
folder=deb
[ "$ARCH" = "$native" ] || folder=deb-$ARCH
mkdir -p "${1:-build}/$folder"
out=$(cd "${1:-build}/$folder" && pwd)

if [ "$ARCH" != "$native" ]; then
	root=$PWD/build/roots/cross-$ARCH
	sh packaging/cross.sh "$ARCH"
elif ! command -v dpkg-buildpackage >/dev/null || ! command -v dh >/dev/null; then
	echo 'deb: dpkg-buildpackage or debhelper is missing: run "packaging/setup.sh package"' >&2
	exit 69
fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH

stage=$out/reconify-agent-$(cat VERSION)
rm -rf "$out"/*
mkdir "$stage"
cp -R agent spool schema packaging Makefile VERSION README.md SECURITY.md CHANGELOG.md \
	LICENSE "$stage"
cp -R packaging/debian "$stage/debian"
for kind in service sysusers tmpfiles; do
	cp "packaging/systemd/reconify-agent.$kind" "$stage/debian/"
done
cp packaging/systemd/reconify-agent-drain.service \
	"$stage/debian/reconify-agent.reconify-agent-drain.service"
mv "$stage/debian/changelog.sh" "$out/changelog.sh"
sh "$out/changelog.sh" "$SOURCE_DATE_EPOCH" >"$stage/debian/changelog"
rm "$out/changelog.sh"

# What make hands down, such as WERROR or SAN, is for the folder of the project.
set -- env -u ARCH -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u CFLAGS -u CPPFLAGS -u LDFLAGS -u SAN
if [ "$ARCH" = "$native" ]; then
	set -- "$@" dpkg-buildpackage -us -uc -b -j2
else
	# Of the same name in the root, from where what was built is taken.
	rm -rf "$root/built"
	mkdir "$root/built"
	cp -a "$stage" "$root/built/"
	set -- "$@" LC_ALL=C chroot "$root" sh -e -c \
		"cd /built/$(basename "$stage") && dpkg-buildpackage -a$ARCH -us -uc -b -j2"
fi
cd "$stage"
"$@" >"$out/build.log" 2>&1 || {
	tail -n 30 "$out/build.log" >&2
	echo "deb: the build failed; all of its words are in $out/build.log" >&2
	exit 1
}
if [ "$ARCH" = "$native" ]; then
	for program in reconify-agent reconify-sink; do
		sh packaging/sbom.sh dynamic "build/$program" $program \
			>"$out/${program}_$(cat VERSION)_$ARCH.spdx.json"
	done
else
	find "$root/built" -maxdepth 1 -type f -exec cp {} "$out/" \;
fi
cd "$out"
ls -- *.deb
