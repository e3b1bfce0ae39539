//! The wall between the two programs: what can speak to the network is not linked into the privileged one, what loads
//! probes not into the other.
//!
//! In: the trees of normal dependencies as cargo resolves them, without network. Out: names that stand on the wrong side.
#![allow(missing_docs)]

use std::{
    collections::BTreeSet,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{host, suite::Suite};

/// HTTP clients, TLS and OpenTelemetry. A `*` at the end stands for any rest of the name. h2 is not among them: the agent
/// speaks gRPC with it, gives it the Unix socket, and nothing else.
const NETWORK: [&str; 16] = [
    "hyper*",
    "tonic*",
    "reqwest",
    "ureq",
    "isahc",
    "curl*",
    "tower*",
    "tokio-rustls",
    "rustls*",
    "native-tls",
    "openssl*",
    "ring",
    "aws-lc*",
    "webpki*",
    "hickory*",
    "opentelemetry*",
];
/// Loaders of eBPF programs.
const KERNEL: [&str; 3] = ["aya*", "libbpf*", "redbpf*"];

fn main() -> ExitCode {
    Suite::new("dependency_wall", [], || Ok(()))
        .case("agent_cannot_speak_to_the_network", |()| wall("spantap-agent", &NETWORK, &["aya", "h2"]))
        .case("agent_has_at_most_half_of_the_forwarders_crates", |()| half())
        .case("forwarder_cannot_load_probes", |()| wall("spantap", &KERNEL, &["reqwest", "rustls", "tonic"]))
        .run()
}

fn half() -> Result<()> {
    let (agent, forwarder) = (dependencies("spantap-agent")?, dependencies("spantap")?);
    println!("crates: agent {}, forwarder {}", agent.len(), forwarder.len());
    let own: Vec<_> = agent.difference(&forwarder).collect();
    ensure!(
        agent.len() * 2 <= forwarder.len(),
        "{} crates are more than half of {}; what the agent alone has: {own:?}",
        agent.len(),
        forwarder.len()
    );
    Ok(())
}

/// `has`: names without which this would be the wrong tree.
fn wall(package: &str, forbidden: &[&str], has: &[&str]) -> Result<()> {
    let crates = dependencies(package)?;
    for name in has {
        ensure!(crates.contains(*name), "{package} is said not to need {name}: {crates:?}");
    }
    let wrong: Vec<_> = crates.iter().filter(|name| forbidden.iter().any(|pattern| is(pattern, name))).collect();
    ensure!(
        wrong.is_empty(),
        "{package} must not depend on {wrong:?}; `cargo tree -p {package} -i NAME` tells who asks"
    );
    Ok(())
}

fn is(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |begin| name.starts_with(begin))
}

/// Names of all crates of the package's normal dependencies.
fn dependencies(package: &str) -> Result<BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--package", package])
        .current_dir(host::repository())
        .output()
        .context("cargo does not start")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}
