#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisis_relay_fuzz::json::run(data));
