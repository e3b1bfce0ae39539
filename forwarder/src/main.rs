//! `spantap`: configuration, build, run, drain.
fn main() {}
