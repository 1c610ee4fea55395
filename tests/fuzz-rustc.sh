#!/bin/sh
# The compiler of tests/fuzz.sh for the packages of this repository alone: libFuzzer's counters are
# in them and in what they make of generic code, and they are optimised. What they depend on is what
# the tests are built with, so that a build for the fuzzer costs little more than theirs.
# The flags are cargo-fuzz's (`cargo fuzz build --sanitizer none -v`); an address sanitizer finds
# nothing where there is no unsafe code.
exec "$@" -Copt-level=2 --cfg fuzzing -Cdebug-assertions -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0
