#!/bin/sh
# What is published, in build/dist: the sources as committed, what else was built, and the
# sums of all of it.
#
#   packaging/release.sh dist             reconify-agent-VERSION.tar.gz, from git alone
#   packaging/release.sh checksums [KEY]  adds the packages, the static program and the lists
#                                         of parts that are in build/, writes SHA256SUMS, and
#                                         signs that with gpg where a KEY is named
#
# The same commit gives the same bytes.

set -eu
cd "$(dirname "$0")/.."
version=$(cat VERSION)
out=build/dist
name=reconify-agent-$version
mkdir -p $out
case ${1:-} in
dist)
	git rev-parse --verify -q HEAD >/dev/null || {
		echo 'dist: this is no clone, and the sources are taken from git' >&2
		exit 69
	}
	[ "$(git show HEAD:VERSION)" = "$version" ] || {
		echo "dist: VERSION says $version, and is not committed so" >&2
		exit 65
	}
	[ -z "$(git status --porcelain --untracked-files=no)" ] ||
		echo 'dist: what is changed and not committed is not in it' >&2
	# git's own gzip would have its version in the result.
	git -c tar.umask=0022 archive --format=tar --prefix="$name/" HEAD |
		gzip -9n >"$out/$name.tar.gz.new"
	mv "$out/$name.tar.gz.new" "$out/$name.tar.gz"
	echo "$out/$name.tar.gz"
	;;
checksums)
	[ -e "$out/$name.tar.gz" ] || sh packaging/release.sh dist
	for built in build/deb/*_"$version"_*.deb build/deb-*/*_"$version"_*.deb build/rpm/*-"$version"-*.rpm \
		build/static/*-"$version"-*.tar.gz build/deb/*.spdx.json build/static/*.spdx.json; do
		[ ! -e "$built" ] || cp -p "$built" $out/
	done
	[ ! -e $out/reconify-agent.spdx.json ] ||
		mv $out/reconify-agent.spdx.json "$out/$name-static.spdx.json"
	cd $out
	rm -f SHA256SUMS SHA256SUMS.asc
	LC_ALL=C
	export LC_ALL
	sha256sum -- * >../SHA256SUMS
	mv ../SHA256SUMS .
	cat SHA256SUMS
	if [ -n "${2:-}" ]; then
		gpg --batch --yes --armor --local-user "$2" --output SHA256SUMS.asc --detach-sign SHA256SUMS
		echo "signed: $out/SHA256SUMS.asc"
	else
		echo 'not signed: no KEY was named' >&2
	fi
	;;
*)
	echo "usage: $0 dist | checksums [KEY]" >&2
	exit 64
	;;
esac
