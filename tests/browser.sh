#!/usr/bin/env bash
# The service's page in headless Chromium, by keyboard, at three sizes, in light and dark, with axe:
#   tests/browser.sh [OUT]     screenshots go to OUT
# Installs chromium-headless-shell (as root, with apt-get) and puppeteer-core and axe-core (npm).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-target/browser/pictures}")
export MODULES=${MODULES:-$PWD/target/browser}
mkdir -p "$out" "$MODULES"

CHROMIUM=$(command -v chromium-headless-shell || command -v chromium || command -v google-chrome || true)
if [ -z "$CHROMIUM" ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium-headless-shell >/dev/null
    CHROMIUM=$(command -v chromium-headless-shell)
fi
export CHROMIUM
[ -d "$MODULES/node_modules/puppeteer-core" ] ||
    npm install --silent --no-audit --no-fund --prefix "$MODULES" puppeteer-core@24 axe-core@4

if [ -z "${TAPLINE_BINARY:-}" ]; then
    cargo build --locked --features demo
    TAPLINE_BINARY=$(cargo metadata --locked --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/tapline
fi
work=$(mktemp -d)
trap 'kill "${serving:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/store"
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
command = ["sh", "-c", "for i in 1 2 3 4 5 6; do seq 900000; sleep 0.7; done"]
expected_size = "36MB"
[databases.broken]
command = ["sh", "-c", "echo 'FATAL:  role \"backup\" does not exist' >&2; exit 1"]
TOML
tapline() { "$TAPLINE_BINARY" -c "$work/tapline.toml" "$@"; }
for _ in 1 2 3 4 5 6 7; do tapline backup -q shop; done
tapline backup -q || true
tapline verify -q shop || true
tapline serve --listen 127.0.0.1:0 --allow-actions 2>"$work/log" &
serving=$!
for _ in $(seq 100); do
    address=$(sed -n 's/.*listening on \(http:[^ ]*\)\/.*/\1/p' "$work/log")
    [ -n "$address" ] && break
    sleep 0.1
done
node tests/browser.mjs "$address" "$out" || { cat "$work/log" >&2; exit 1; }
