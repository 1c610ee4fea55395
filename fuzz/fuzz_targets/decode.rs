#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tapline::fuzz::decode_any(data));
