#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tapline::fuzz::encode_round_trip(data));
