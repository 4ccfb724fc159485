#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| linger_server::fuzz("config", input));
