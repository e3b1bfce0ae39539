//! A program with sockets that does exactly what a test says, and knows nothing of tracing.
fn main() -> std::process::ExitCode {
    spantap_tests::play::main()
}
