#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tapline::fuzz::manifest_and_key(data));
