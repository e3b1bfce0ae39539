//! An OTLP/HTTP receiver that only counts, for benchmarks.
fn main() -> std::process::ExitCode {
    spantap_tests::sink::main()
}
