#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spantap_agent::fuzzing::acknowledgements(data));
