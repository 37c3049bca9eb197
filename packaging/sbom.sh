#!/bin/sh
# Writes what a program is linked with as a list of parts in SPDX 2.3, JSON, on standard
# output. The same program and parts give the same bytes.
#
#   packaging/sbom.sh dynamic PROGRAM NAME           the libraries that it needs, as
#                                                    packages of this Debian
#   packaging/sbom.sh static PROGRAM NAME <parts     "name|version|origin|copyright file",
#                                                    a part a line
#
# A licence that it does not know is listed as NOASSERTION, and ends it with 65.

set -eu
kind=$1
program=$2
name=$3
version=$(cat "$(dirname "$0")/../VERSION")
export LC_ALL=C

# licence_of FILE PART: that of most of its files, in the terms of SPDX.
licence_of() {
	word=$(awk '/^Files: \*/ { all = 1 } all && sub(/^License: */, "") { print; exit }' "$1")
	case $word in
	MIT | Expat) echo MIT ;;
	curl | BSD-3-Clause | Apache-2.0) echo "$word" ;;
	'Apache-2.0 or GPL-2+') echo 'Apache-2.0 OR GPL-2.0-or-later' ;;
	LGPL-2.1+) echo LGPL-2.1-or-later ;;
	public-domain) echo LicenseRef-public-domain ;;
	*)
		# Those whose copyright file is not for machines.
		case $2 in
		libc6) echo LGPL-2.1-or-later ;;
		libgcc*) echo 'GPL-3.0-or-later WITH GCC-exception-3.1' ;;
		*) echo NOASSERTION ;;
		esac
		;;
	esac
}

parts_of_debian() {
	objdump -p "$program" | awk '$1 == "NEEDED" { print $2 }' | while read -r library; do
		# The linker's own search; some folders have two names, of which dpkg knows one.
		path=$(ldd "$program" | awk -v wanted="$library" '$1 == wanted { print $3 }')
		dpkg-query -S "$path" 2>/dev/null || dpkg-query -S "$(readlink -f "$path")" 2>/dev/null ||
			dpkg-query -S "/usr$path"
	done | sed 's/:.*//' | sort -u | while read -r package; do
		dpkg-query -W -f '${Package}|${Version}|Debian binary package\n' "$package" |
			sed "s|\$|\|/usr/share/doc/$package/copyright|"
	done
}

case $kind in
dynamic)
	link=DYNAMIC_LINK
	parts=$(parts_of_debian)
	;;
static)
	link=STATIC_LINK
	parts=$(cat)
	;;
*)
	echo "usage: $0 dynamic|static PROGRAM NAME" >&2
	exit 64
	;;
esac
[ -n "$parts" ] || {
	echo "sbom: nothing is known that $program is linked with" >&2
	exit 65
}

sum=$(sha256sum "$program" | cut -d ' ' -f 1)
cat <<END
{
  "spdxVersion": "SPDX-2.3",
  "dataLicense": "CC0-1.0",
  "SPDXID": "SPDXRef-DOCUMENT",
  "name": "$name-$version",
  "documentNamespace": "https://reconify-agent.example/spdx/$name-$version-$sum",
  "creationInfo": {
    "created": "$(date -u -d "@${SOURCE_DATE_EPOCH:-0}" +%Y-%m-%dT%H:%M:%SZ)",
    "creators": ["Tool: packaging/sbom.sh"]
  },
  "hasExtractedLicensingInfos": [{
    "licenseId": "LicenseRef-public-domain",
    "name": "Public domain",
    "extractedText": "The author has dedicated this work to the public domain."
  }],
  "packages": [
    {
      "name": "$name",
      "SPDXID": "SPDXRef-program",
      "versionInfo": "$version",
      "downloadLocation": "NOASSERTION",
      "filesAnalyzed": false,
      "licenseConcluded": "MIT",
      "licenseDeclared": "MIT",
      "copyrightText": "2026 the reconify-agent authors",
      "checksums": [{ "algorithm": "SHA256", "checksumValue": "$sum" }],
      "primaryPackagePurpose": "APPLICATION"
    }$(
	echo "$parts" | while IFS='|' read -r part found origin copyright; do
		licence=$(licence_of "$copyright" "$part")
		printf ',\n    {\n      "name": "%s",\n      "SPDXID": "SPDXRef-%s",\n' "$part" "$part"
		printf '      "versionInfo": "%s",\n      "sourceInfo": "%s",\n' "$found" "$origin"
		printf '      "downloadLocation": "NOASSERTION",\n      "filesAnalyzed": false,\n'
		printf '      "licenseConcluded": "%s",\n      "licenseDeclared": "%s",\n' "$licence" "$licence"
		printf '      "copyrightText": "NOASSERTION",\n'
		printf '      "supplier": "Organization: Debian"\n    }'
	done
)
  ],
  "relationships": [
    {
      "spdxElementId": "SPDXRef-DOCUMENT",
      "relationshipType": "DESCRIBES",
      "relatedSpdxElement": "SPDXRef-program"
    }$(
	echo "$parts" | while IFS='|' read -r part rest; do
		printf ',\n    {\n      "spdxElementId": "SPDXRef-program",\n'
		printf '      "relationshipType": "%s",\n      "relatedSpdxElement": "SPDXRef-%s"\n    }' $link "$part"
	done
)
  ]
}
END
echo "$parts" | while IFS='|' read -r part found origin copyright; do
	[ "$(licence_of "$copyright" "$part")" != NOASSERTION ] || echo "$part"
done | {
	unknown=$(cat)
	[ -z "$unknown" ] || {
		echo "sbom: the licence is not known of:" $unknown >&2
		exit 65
	}
}
