#!/usr/bin/env bash
# Installs what the tests need (as root, with apt-get; otherwise says what is missing), then formats,
# lints, docs, tests, and runs each fuzz target for five seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
need() { # need COMMAND-OR-FILE PACKAGE
    command -v "$1" >/dev/null || [ -e "$1" ] || packages+=("$2")
}
need cc build-essential
need strace strace
need age age
need minisign minisign
need ssh-keygen openssh-client
need script bsdutils
need unzip unzip
need bsdtar libarchive-tools
need python3 python3
need zstd zstd
need /usr/include/isa-l.h libisal-dev
need openssl openssl
need pgrep procps
need psql postgresql-client
need /usr/sbin/pgbouncer pgbouncer
need /usr/lib/python3/dist-packages/aiosmtpd python3-aiosmtpd
need /usr/sbin/mariadbd mariadb-server
need mariadb-dump mariadb-client
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    else
        echo "tests/run.sh: install these first: ${packages[*]}" >&2
        exit 1
    fi
fi

cargo fmt --check
cargo clippy --locked --all-features --all-targets -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --locked --all-features --no-deps --document-private-items
# As it is by default, and what ISA-L has a part in once more with that.
cargo test --locked --features demo
cargo test --locked --all-features --lib archive::
tests/fuzz.sh 5
# The production binary is built without the demo.
cargo clippy --locked -- -D warnings
# Licences and sources of what is in it. Advisories are for where their database can be fetched:
# `cargo deny check`.
if command -v cargo-deny >/dev/null; then
    cargo deny --locked check licenses bans sources
else
    echo "tests/run.sh: cargo-deny is not installed: licences and sources were not looked at" >&2
fi
