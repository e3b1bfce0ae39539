//! `spantap-agent`: configuration, load, stream, drain.
fn main() {}
