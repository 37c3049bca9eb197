#!/bin/sh
# Writes debian/changelog from CHANGELOG.md, so that changes and the version are written
# down once: VERSION names the section, which must be there.
#
#   packaging/debian/changelog.sh EPOCH     the date of a version that is not released

set -eu
version=$(cat VERSION)
heading=$(grep -F "## [$version] - " CHANGELOG.md) || {
	echo "CHANGELOG.md has no section \"## [$version] - DATE\", and VERSION says $version" >&2
	exit 1
}
day=${heading##* - }
[ "$day" != unreleased ] || day=@$1

printf 'reconify-agent (%s) unstable; urgency=medium\n\n' "$version"
awk -v heading="$heading" '
	function flush() { if (entry != "") print entry; entry = "" }
	/^## / { flush(); inside = ($0 == heading); next }
	!inside || /^$/ { next }
	/^### / { flush(); print "  [ " substr($0, 5) " ]"; next }
	/^- / { flush(); entry = substr($0, 3); next }
	{ sub(/^ +/, ""); entry = entry " " $0 }
	END { flush() }
' CHANGELOG.md | while read -r entry; do
	case $entry in
	'[ '*) printf '  %s\n' "$entry" ;;
	*) printf '%s\n' "$entry" | fold -s -w 74 | sed -e '1s/^/  * /' -e '2,$s/^/    /' -e 's/ $//' ;;
	esac
done
printf '\n -- %s  %s\n' "$(sed -n 's/^Maintainer: //p' packaging/debian/control)" \
	"$(LC_ALL=C date -u -R -d "$day")"
