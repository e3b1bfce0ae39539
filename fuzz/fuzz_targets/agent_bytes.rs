#![no_main]
#[path = "../../forwarder/tests/support/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile::agent_bytes(data));
