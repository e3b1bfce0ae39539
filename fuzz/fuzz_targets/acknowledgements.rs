#![no_main]
#![allow(dead_code, unused_imports, reason = "the agent is a program: its modules come in by their paths")]
#[path = "../../probe-agent/src/discovery.rs"]
mod discovery;
#[path = "../../probe-agent/src/fuzzing.rs"]
mod fuzzing;
#[path = "../../probe-agent/src/queue.rs"]
mod queue;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::acknowledgements(data));
