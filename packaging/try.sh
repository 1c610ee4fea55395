#!/usr/bin/env bash
# Tries a package as a newcomer would: packaging/try.sh tapline_*.deb
# In a clean Debian (mmdebstrap, as root) with PostgreSQL it is installed, and what the README says of
# the first night is done, as typed there: a user, an inventory, check, backup, drill, status, notice.
# SUITE=trixie for another Debian; ROOT=root.tar keeps the clean one for the next time.
set -euo pipefail
deb=$(realpath "$1")
cd "$(dirname "$0")/.."
suite=${SUITE:-bookworm}
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
if [ ! -e "${ROOT:-/nowhere}" ]; then
    mmdebstrap --quiet --variant=minbase --include=postgresql,ca-certificates,bsdutils \
        "$suite" "${ROOT:=$work/root.tar}" http://deb.debian.org/debian
fi
mkdir "$root"
tar -C "$root" --exclude='./dev/*' -xf "$ROOT"
mkdir -p -m 1777 "$root/dev/shm"
for node in null zero random urandom; do cp -a "/dev/$node" "$root/dev/$node"; done
cp "$deb" "$root/tmp/tapline.deb"
# The README's own words: the first block of shell under its heading, but for systemd, which does not
# run in here.
sed -n '/^### From nothing to a backup every night/,/^### /p' README.md |
    sed -n '/^```sh/,/^```/p' | sed '/^```/d; /^systemctl /d' >"$root/tmp/first.sh"
grep -q 'tapline backup' "$root/tmp/first.sh"
cat >"$root/tmp/try.sh" <<'SH'
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
dpkg -i /tmp/tapline.deb
tapline --version
man=$(ls /usr/share/man/man1/tapline*.gz 2>/dev/null | wc -l)
echo "man pages: $man"
service postgresql start
su postgres -c "psql -qc 'CREATE DATABASE shop' && psql -q shop -c 'CREATE TABLE t AS SELECT generate_series(1, 100000) AS n'"
begin=$(date +%s)
. /tmp/first.sh
echo "from nothing to a drilled backup: $(( $(date +%s) - begin )) s"
su -s /bin/sh tapline -c 'tapline restore all/shop --stdout' >/tmp/shop.sql
grep -c '^[0-9]*$' /tmp/shop.sql
service postgresql stop
dpkg -r tapline
SH
# Processes and mounts of its own, which end with it.
time unshare --mount --pid --fork --kill-child sh -c "
    mount -t proc proc '$root/proc' && chroot '$root' sh /tmp/try.sh"
