#!/usr/bin/env bash
# tests/fuzz.sh [SECONDS [TARGET…]]: builds the fuzz targets and runs each for so many seconds, with
# the stable toolchain and without cargo-fuzz. What a run has found interesting stays in
# fuzz/corpus, and a later one goes on from there; what broke a target is in fuzz/artifacts and
# belongs into fuzz/seeds, which the tests read, once it is mended.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=($(ls fuzz/fuzz_targets | sed 's/\.rs$//'))

RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz-rustc.sh cargo build --quiet --locked -p tapline-fuzz
mkdir -p fuzz/corpus fuzz/artifacts
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    # The memory limit is what `decode` must keep to, whatever an archive says.
    "${CARGO_TARGET_DIR:-target}/debug/$target" -max_total_time="$seconds" -max_len=65536 \
        -rss_limit_mb=1024 -malloc_limit_mb=128 -artifact_prefix="fuzz/artifacts/$target-" \
        "fuzz/corpus/$target" "fuzz/seeds/$target" >"fuzz/artifacts/$target.log" 2>&1 ||
        { tail -40 "fuzz/artifacts/$target.log"; exit 1; }
    echo "fuzz: $target: $(tail -1 "fuzz/artifacts/$target.log")"
done
