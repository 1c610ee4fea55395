#!/usr/bin/env bash
# Installs what the tests need (as root, with apt-get; otherwise says what is missing), then licences,
# format, lints, docs, tests, and runs each fuzz target for five seconds. Of the largest tests it
# takes a share; `tests/long.sh` leaves nothing out.
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
need faketime faketime
need psql postgresql-client
need /usr/sbin/pgbouncer pgbouncer
need /usr/lib/python3/dist-packages/aiosmtpd python3-aiosmtpd
need /usr/sbin/mariadbd mariadb-server
need mariadb-dump mariadb-client
need redis-server redis-server
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

# A machine that is busy makes one of some hundred tests with real servers and real time late now and
# then. Up to three that failed are run once more, one by one, where they must pass; they are named.
suite() { # suite CARGO-TEST-ARGUMENTS
    local log failed
    log=$(mktemp)
    if cargo test --no-fail-fast "$@" 2>&1 | tee "$log"; then
        rm "$log"
        return
    fi
    failed=$(sed -n '/^failures:$/,/^test result/s/^    \([a-z0-9_]*\(::[a-z0-9_]*\)\{1,\}\)$/\1/p' "$log" | sort -u)
    rm "$log"
    [ -n "$failed" ] && [ "$(wc -l <<<"$failed")" -le 3 ] || return 1
    printf 'tests/run.sh: failed once, and run again alone: %s\n' $failed >&2
    # shellcheck disable=SC2086 # Each name is an argument.
    cargo test "$@" -- --exact --test-threads=1 $failed
}

# Licences and sources of what is in it. Advisories are for where their database can be fetched:
# `cargo deny check`.
if command -v cargo-deny >/dev/null; then
    cargo deny --locked check licenses bans sources
else
    echo "tests/run.sh: cargo-deny is not installed: licences and sources were not looked at" >&2
fi
cargo fmt --check
cargo clippy --locked --all-features --all-targets -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --locked --all-features --no-deps --document-private-items
# The other reader of age's format is in no package: it is built once, and kept with what is built here.
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools
PATH=$tools/bin:$PATH
if ! command -v rage >/dev/null; then
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --quiet --locked --root "$tools" --target-dir "$tools/build" rage@0.12.1 ||
        echo "tests/run.sh: rage could not be built: only age reads what we encrypt in these tests" >&2
    rm -rf "$tools/build"
fi
# Nearly every test waits most of its time, for a server, a process or the end of somebody's patience.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((3 * $(nproc)))}
# As it is by default, and what ISA-L has a part in once more with that.
suite --locked --features demo
# The service's page in a real browser, with the binary that these tests were of.
TAPLINE_BINARY=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/tapline tests/browser.sh || [ $? = 77 ]
cargo test --locked --all-features --lib archive::
tests/fuzz.sh 5
# The production binary is built without the demo.
cargo clippy --locked -- -D warnings
