#!/usr/bin/env bash
# Tries a package as a newcomer would: packaging/try.sh tapline_*.deb
# In a clean Debian (mmdebstrap, as root) with PostgreSQL it is installed, and what the README says of
# the first night is done, as typed there: a user, an inventory, check, backup, drill, status, notice.
# systemd does not run in there: it reads the units and enables the service from outside, and what
# it would start is started by hand, as whom it would, until a backup has come by schedule.
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
[ "$(grep -c '^[0-9][0-9]*$' /tmp/shop.sql)" = 100000 ]
sed -i 's/^schedule = .*/schedule = "* * * * *"/' /etc/tapline/tapline.toml
stored() { setpriv --reuid tapline --regid tapline --init-groups tapline list all/shop | grep -c '^ all/shop'; }
[ "$(stored)" = 1 ]
install -d -o tapline -g tapline /var/lib/tapline
STATE_DIRECTORY=/var/lib/tapline setpriv --reuid tapline --regid tapline --init-groups --no-new-privs \
    $(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/tapline.service) &
serving=$!
seconds=0
until [ "$(stored)" -gt 1 ]; do
    seconds=$((seconds + 1))
    [ $seconds -lt 300 ] || { echo "no backup came by schedule" >&2; exit 1; }
    sleep 1
done
kill $serving
wait $serving
echo "a backup by schedule after $seconds s, and the service ended well"
service postgresql stop
if tapline demo --help >/dev/null 2>&1; then tapline demo >/dev/null; echo "the demo is well"; fi
SH
# Processes and mounts of its own, which end with it.
inside() {
    unshare --mount --pid --fork --kill-child sh -c "
        mount -t proc proc '$root/proc' && chroot '$root' sh $1"
}
time inside /tmp/try.sh
if command -v systemd-analyze >/dev/null; then
    units=("$root"/usr/lib/systemd/system/tapline*)
    # The program and its manual are not out here.
    mkdir "$work/units"
    for unit in "${units[@]}"; do
        sed 's,/usr/bin/tapline,/bin/true,' "$unit" >"$work/units/$(basename "$unit")"
    done
    systemd-analyze --man=no verify "$work"/units/*
    for unit in "${units[@]}"; do
        case $unit in *.service) systemd-analyze --offline=true security "$unit" | tail -1 ;; esac
    done
    systemctl --root="$root" enable tapline
    systemctl --root="$root" is-enabled tapline
fi
echo 'dpkg -r tapline' >"$root/tmp/remove.sh"
inside /tmp/remove.sh
