#!/bin/sh
# Builds the packages for Fedora and its kin from a copy of the sources; "make rpm" calls it.
#
#   packaging/rpm.sh [BUILDDIR]     the packages are in BUILDDIR/rpm (default: build)
#
# The source package is what is to be built where it is to run: a program that was built
# here asks for the libraries of this system. The same sources give the same bytes.

set -eu
cd "$(dirname "$0")/.."
mkdir -p "${1:-build}/rpm"
out=$(cd "${1:-build}/rpm" && pwd)
command -v rpmbuild >/dev/null || {
	echo 'rpm: rpmbuild is missing: run "packaging/setup.sh rpm"' >&2
	exit 69
}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
unset MAKEFLAGS MAKELEVEL MFLAGS CFLAGS CPPFLAGS LDFLAGS SAN WERROR

rm -rf "$out"/*
version=$(cat VERSION)
mkdir -p "$out/top/SOURCES" "$out/top/SPECS"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
	--mode=u=rwX,go=rX --transform="s|^|reconify-agent-$version/|" -cf - \
	agent spool schema packaging Makefile VERSION ./*.md LICENSE |
	gzip -9n >"$out/top/SOURCES/reconify-agent-$version.tar.gz"
sed -e "s|@VERSION@|$version|g" -e "s|@SQLITE@|$(pkg-config --modversion sqlite3)|" \
	-e "s|@DATE@|$(date -u -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')|" \
	packaging/rpm/reconify-agent.spec >"$out/top/SPECS/reconify-agent.spec"
umask 022
chmod 644 "$out"/top/*/*
touch -d "@$SOURCE_DATE_EPOCH" "$out"/top/*/*
# The names of folders get into the packages. In a namespace of its own each build has the
# same ones; where there is none to be had, packages of different folders differ.
cat >"$out/top/build.sh" <<'END'
top=$1
[ "$top" != /mnt ] || mount --bind "$2" /mnt
exec rpmbuild --nodeps -ba \
	--define "_topdir $top" --define '_buildhost localhost' \
	--define 'debug_package %{nil}' --define 'strip_here 1' \
	--define 'use_source_date_epoch_as_buildtime 1' \
	--define 'clamp_mtime_to_source_date_epoch 1' \
	--define 'source_date_epoch_from_changelog 0' \
	--define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
	--define "optflags -O2 -g -fstack-protector-strong -ffile-prefix-map=$top=." \
	"$top/SPECS/reconify-agent.spec"
END
if unshare --mount --map-root-user true 2>/dev/null; then
	set -- unshare --mount --map-root-user sh -e "$out/top/build.sh" /mnt "$out/top"
else
	set -- sh -e "$out/top/build.sh" "$out/top"
fi
"$@" >"$out/build.log" 2>&1 || {
	tail -n 30 "$out/build.log" >&2
	echo "rpm: the build failed; all of its words are in $out/build.log" >&2
	exit 1
}
mv "$out"/top/RPMS/*.rpm "$out"/top/SRPMS/*.rpm "$out/"
cp "$out/top/SPECS/reconify-agent.spec" "$out/"
rm -rf "$out/top"
cd "$out"
ls -- *.rpm
