//! `spantap-agent`: the privileged process.

fn main() -> std::process::ExitCode {
    spantap_agent::main()
}
