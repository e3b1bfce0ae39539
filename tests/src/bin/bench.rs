//! What Spantap costs on this machine: `bench --rounds 5 --seconds 10 [--markdown]`.
fn main() -> std::process::ExitCode {
    spantap_tests::bench::main()
}
