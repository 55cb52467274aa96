#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wsmon_fuzz::records::check(data));
