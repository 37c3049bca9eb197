#!/bin/sh
# The packages for another architecture, run here: their unit tests, and a delivery, with
# qemu called by name, so that nothing is registered with this machine's kernel.
#
#   packaging/test-cross.sh ARCH     as root, after "make deb ARCH=..."; "make test-cross
#                                    ARCH=..." does both
#
# Writes below build/ only; no process and no mount outlives it.

set -u
cd "$(dirname "$0")/.." || exit 70
arch=${1:?"usage: $0 arm64|armhf"}
case $arch in
arm64) qemu=qemu-aarch64-static triplet=aarch64-linux-gnu ;;
armhf) qemu=qemu-arm-static triplet=arm-linux-gnueabihf ;;
*)
	echo "test-cross: it knows arm64 and armhf, not $arch" >&2
	exit 64
	;;
esac
[ "$(id -u)" -eq 0 ] || {
	echo 'test-cross: a root of its own needs root' >&2
	exit 77
}
command -v $qemu >/dev/null || {
	echo "test-cross: $qemu is missing: run \"packaging/setup.sh cross\"" >&2
	exit 69
}
[ -n "${INSIDE_NAMESPACE:-}" ] ||
	INSIDE_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child --mount-proc sh "$0" "$arch"

root=$PWD/build/roots/cross-$arch
work=$PWD/build/test-cross-$arch
export LC_ALL=C
unset RECONIFY_ENDPOINT RECONIFY_APP_KEY RECONIFY_API_KEY MAKEFLAGS
rm -rf "$work" "$root/trial"
mkdir -p "$work" "$root/trial"
. packaging/holds.sh

must mount -t proc proc "$root/proc"
must cp "$(command -v $qemu)" "$root/trial/qemu"
for package in reconify-agent reconify-sink; do
	must dpkg-deb -x "build/deb-$arch/${package}_$(cat VERSION)_$arch.deb" "$root/trial/$package"
done
agent="/trial/qemu /trial/reconify-agent/usr/bin/reconify-agent"
sink="/trial/qemu /trial/reconify-sink/usr/bin/reconify-sink"
is_of_it() {
	file=$(readelf -h "$root/trial/reconify-agent/usr/bin/reconify-agent")
	echo "$file"
	case $arch in
	arm64) echo "$file" | grep -q 'Machine: *AArch64' ;;
	armhf) echo "$file" | grep -q 'hard-float ABI' ;;
	esac
}
holds "the program is one for $arch" is_of_it

# --- Unit tests ---------------------------------------------------------------------

mkdir "$root/trial/source"
must cp -R agent spool schema tests Makefile VERSION packaging "$root/trial/source/"
build_tests() {
	inside make -C /trial/source -j2 CC=$triplet-gcc PKG_CONFIG=$triplet-pkg-config \
		$(for source in tests/unit/test_*.c; do echo "build/tests/$(basename "$source" .c)"; done)
}
must build_tests
for source in tests/unit/test_*.c; do
	name=$(basename "$source" .c)
	holds "unit tests: $name" timeout 900 chroot "$root" \
		sh -c "cd /trial/source && exec /trial/qemu build/tests/$name"
done

# --- A delivery ---------------------------------------------------------------------

mkdir "$root/trial/arrived"
inside $sink --listen 127.0.0.1:0 --record /trial/arrived >"$work/sink.log" 2>&1 &
tries=100
until grep -q '^listening on ' "$work/sink.log" || [ $tries -eq 0 ]; do
	tries=$((tries - 1))
	sleep 0.2
done
spool=/trial/spool.db
holds 'it creates a spool' inside $agent init --spool $spool
insert() {
	inside sqlite3 -batch -bail $spool <<-'SQL'
		.timeout 5000
		INSERT INTO interactions (model_id, request_body, response_body, session)
		VALUES ('anthropic.claude-instant-v1', '{"prompt":"Grüße"}', '{"completion":"Hi"}', '000123'),
			('amazon.titan-text-express-v1', '', '{"n":1.0e400}', '000123');
	SQL
}
holds 'two records are inserted' insert
drains() {
	inside env RECONIFY_APP_KEY=a RECONIFY_API_KEY=b \
		RECONIFY_ENDPOINT="$(sed -n 's/^listening on //p' "$work/sink.log")/" \
		$agent drain --spool $spool --wait 60s
}
holds 'it delivers them' drains
arrived() {
	[ "$(find "$root/trial/arrived" -name '*.json' | wc -l)" -eq 2 ] &&
		grep -q '1.0e400' "$root"/trial/arrived/000002-*.json
}
holds 'both arrived, byte for byte' arrived
holds 'the ledger adds up' sh -c "chroot '$root' $agent status --json --spool $spool | grep -q '\"balanced\": *true'"

umount "$root/proc"
rm -rf "$root/trial" "$root/built"
finish
