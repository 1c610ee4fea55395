#!/usr/bin/env bash
# tests/fuzz.sh [SECONDS [TARGET…]]: builds the fuzz targets and runs each for so many seconds.
# The flags are cargo-fuzz's (`cargo fuzz build --sanitizer none -v` shows them), so that neither it
# nor a nightly toolchain is needed; an address sanitizer finds nothing where there is no unsafe code.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:-10}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=($(ls fuzz_targets | sed 's/\.rs$//'))

export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-target}
# Its lock file follows the dependencies of the main one, so it is not held against it.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
--cfg fuzzing -Cdebug-assertions" \
    cargo build --quiet --release --target "$host"
for target in "${targets[@]}"; do
    echo "fuzz: $target, $seconds s"
    mkdir -p "corpus/$target"
    # The memory limit is what `decode` must keep to, whatever an archive says.
    "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -max_len=65536 \
        -rss_limit_mb=1024 -malloc_limit_mb=128 -artifact_prefix="corpus/$target-" \
        "corpus/$target" "seeds/$target" >"corpus/$target.log" 2>&1 ||
        { tail -40 "corpus/$target.log"; exit 1; }
    tail -1 "corpus/$target.log"
done
