#!/usr/bin/env bash
# What `tests/run.sh` tries a share of, wholly: each fault at each request, each signal at each moment,
# a hundred kills of each kind, each fuzz target for a minute. Takes the better part of an hour;
# what came of it last is in the README.
set -euo pipefail
cd "$(dirname "$0")/.."
export TAPLINE_TESTS=all TAPLINE_KILLS=${TAPLINE_KILLS:-100}
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}
cargo test --locked --features demo --test it -- --nocapture \
    matrix:: kills:: model:: sealed_faults:: store_folder:: copy::a_copy_is_whole many_flipped_bits killed_at_any_instant that_is_killed \
    2>&1 | grep -E '^(test |[a-z ]+: [0-9]+ (cells|kills)|  +[0-9]+ |[0-9]+ backups|TAPLINE_)|panicked|wrong' \
    || { echo "tests/long.sh: not all is well" >&2; exit 1; }
tests/fuzz.sh "${TAPLINE_FUZZ_SECONDS:-60}"
