#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tapline::fuzz::tar_header(data));
