#!/usr/bin/env bash
# The service's page in headless Chromium, by keyboard, at three sizes, in light and dark, with axe:
#   tests/browser.sh [OUT]     screenshots go to OUT
# Installs chromium-headless-shell (as root, with apt-get), and puppeteer-core and axe-core (npm, as
# tests/browser/package-lock.json pins them). Where they cannot be had it says so: exit code 77.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$(realpath -m "${1:-$target/browser/pictures}")
export MODULES=$target/browser
mkdir -p "$out" "$MODULES"
unable() {
    echo "tests/browser.sh: NOT RUN, the page was tried in no browser: $*" >&2
    exit 77
}

command -v node >/dev/null && command -v npm >/dev/null || unable "node and npm are not installed"
browser() { command -v chromium-headless-shell || command -v chromium || command -v google-chrome; }
if ! browser >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        unable "there is no Chromium, and no apt-get to install it with"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends chromium-headless-shell; } >/dev/null ||
        unable "Chromium cannot be installed"
fi
CHROMIUM=$(browser)
export CHROMIUM
if ! cmp -s tests/browser/package-lock.json "$MODULES/installed"; then
    cp tests/browser/package*.json "$MODULES/"
    npm ci --silent --no-audit --no-fund --prefix "$MODULES" ||
        unable "puppeteer-core and axe-core cannot be installed"
    cp tests/browser/package-lock.json "$MODULES/installed"
fi

if [ -z "${TAPLINE_BINARY:-}" ]; then
    cargo build --locked --features demo
    TAPLINE_BINARY=$target/debug/tapline
fi
work=$(mktemp -d)
trap 'kill ${serving:-} 2>/dev/null || true; wait; rm -rf "$work"' EXIT
mkdir "$work/store"
# The dump of `slow` goes on until there is the file `go`.
cat >"$work/tapline.toml" <<TOML
[stores.nas]
url = "file://$work/store"
[defaults]
engine = "command"
schedule = "0 2 1 1 *"
keep_last = 5
[databases.shop]
command = ["seq", "200000"]
[databases.a-database-whose-name-is-rather-long-for-a-telephone-s-screen]
command = ["seq", "9"]
[databases.slow]
command = ["sh", "-c", "seq 900000; until [ -e $work/go ]; do seq 200000; sleep 0.3; done"]
expected_size = "36MB"
[databases.broken]
command = ["sh", "-c", "echo 'FATAL:  role \"backup\" does not exist' >&2; exit 1"]
TOML
tapline=("$TAPLINE_BINARY" -c "$work/tapline.toml")
touch "$work/go"
for _ in 1 2 3 4 5 6 7; do "${tapline[@]}" backup -q shop; done
"${tapline[@]}" backup -q 2>/dev/null && { echo "a database that is broken was backed up" >&2; exit 1; }
"${tapline[@]}" verify -q shop
rm "$work/go"
"${tapline[@]}" serve --listen 127.0.0.1:0 --allow-actions 2>"$work/log" &
serving=$!
for _ in $(seq 600); do
    address=$(sed -n 's/.*listening on \(http:[^ ]*\)\/.*/\1/p' "$work/log")
    [ -n "$address" ] && break
    sleep 0.1
done
node tests/browser/page.mjs "$address" "$work/go" "$out" || { cat "$work/log" >&2; exit 1; }
