//! Links between the two ends of a TLS connection, by programs with different libraries.
//!
//! The truth is in the path, which each request has to itself.
#![allow(missing_docs)]

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin,
    certificate::Certificate,
    collector::{self, Collector},
    compiled, host,
    https::{self, succeeds},
    loops::{Score, by_path},
    process::Process,
    servers::{self, Server},
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::Kind,
};

const ARRIVAL: Duration = Duration::from_secs(40);
/// Connections at once, and requests on each.
const RUNS: [(usize, usize); 2] = [(1, 60), (20, 15)];

struct Programs {
    spantap: Spantap,
    collector: Collector,
    servers: Vec<(&'static str, u16)>,
    folder: tempfile::TempDir,
    _processes: Vec<Process>,
    _servers: Vec<Server>,
    _certificate: Certificate,
}

impl World for Programs {
    fn logs(&self) -> String {
        self.spantap.tail()
    }
}

fn main() -> ExitCode {
    let tools = ["python3", "openssl", "node", "nginx", "go"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools);
    Suite::new("links_tls", lacks, start)
        .case("openssl_asks", |programs| {
            each_server(programs, "openssl", |port, prefix, (connections, requests)| {
                https::ask(port, prefix, [connections, requests, 1], &[])
            })
        })
        .case("node_asks", |programs| asks(programs, "node"))
        .case("go_asks", |programs| asks(programs, "go"))
        .case("requests_sent_ahead_are_not_linked_wrongly", ahead)
        .run()
}

fn start() -> Result<Programs> {
    let (folder, certificate) = (host::folder()?, Certificate::make()?);
    let at = folder.path();
    let go = at.join("gotls");
    let mut build = Command::new(host::find("go").context("no go")?);
    build.current_dir(compiled::subjects().join("tls/go")).args(["build", "-buildvcs=false", "-o"]).arg(&go);
    succeeds(build.arg("."))?;
    std::fs::copy(&go, at.join("asks"))?;
    let (nginx, _) = servers::nginx_over_tls(&certificate)?;
    let node = Server::node_over_tls(&certificate)?;
    let [python, serves] = [host::free_port()?, host::free_port()?];
    let threads = servers::python_over_tls(at, &certificate.file(), &certificate.key(), python)?;
    let mut command = Command::new(&go);
    command.arg("serve").arg(serves.to_string()).arg(certificate.file()).arg(certificate.key());
    let mut gotls = Process::start("gotls", at, command)?;
    gotls.wait_ready(ARRIVAL, |_| std::net::TcpStream::connect(("127.0.0.1", serves)).is_ok())?;

    let collector = Collector::start()?;
    let servers = vec![("nginx", nginx.port), ("python", python), ("node", node.port), ("gotls", serves)];
    let ports: Vec<String> = servers.iter().map(|(_, port)| port.to_string()).collect();
    let entries = [
        format!("{{open_ports: \"{}\"}}", ports.join(",")),
        format!("{{cmd_args: \"*{}/*\"}}", compiled::subjects().join("tls").display()),
        format!("{{exe_path: \"{}\"}}", at.join("asks").display()),
    ];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let mut spantap = Setup::observing(&entries, &collector).environment("OTEL_EBPF_LOG_LEVEL", "debug").start()?;
    host::wait_for("TLS of the servers to be read", ARRIVAL, || {
        let text = spantap.own_metrics().ok()?;
        let read = |name: &str| text.lines().any(|line| line.contains("state=\"read\"") && line.contains(name));
        servers.iter().all(|(name, _)| read(name)).then_some(())
    })?;
    works_in_memory(&mut spantap, node.process.pid())?;
    Ok(Programs {
        spantap,
        collector,
        servers,
        folder,
        _processes: vec![threads, gotls],
        _servers: vec![nginx, node],
        _certificate: certificate,
    })
}

/// Waits until the process is known to work in memory: what it does before has no peer.
fn works_in_memory(spantap: &mut Spantap, pid: u32) -> Result<()> {
    let told = format!("its TLS library works in memory pid={pid}");
    host::wait_for(&told, ARRIVAL, || spantap.forwarder().log().lines().any(|line| line.ends_with(&told)).then_some(()))
}

/// `ask`: a port, the beginning of each path, connections and requests on each.
fn each_server(
    programs: &mut Programs,
    client: &str,
    mut ask: impl FnMut(u16, &str, (usize, usize)) -> Result<()>,
) -> Result<()> {
    for (server, port) in programs.servers.clone() {
        for run in RUNS {
            let prefix = format!("/{client}-{}-{server}", run.0);
            let before = admin::unlinked(&programs.spantap.own_metrics()?);
            ask(port, &prefix, run)?;
            judged(programs, port, &prefix, run.0 * run.1, &before)?.is_enough()?;
        }
    }
    Ok(())
}

/// A score that has no wrong link.
struct Judged(Score);

impl Judged {
    /// The other end may be recorded late, on a busy machine later than is waited for.
    fn is_enough(&self) -> Result<()> {
        let Score(right, _, unlinked) = self.0;
        ensure!(right >= unlinked * 9, "too few links: {:?}", self.0);
        Ok(())
    }
}

fn judged(programs: &mut Programs, port: u16, prefix: &str, count: usize, before: &admin::Losses) -> Result<Judged> {
    let prefix_of_paths = format!("{prefix}/");
    let arrived = https::spans(&mut programs.collector, ARRIVAL, (Kind::Server, port), &prefix_of_paths, count)?;
    let sent = https::spans(&mut programs.collector, ARRIVAL, (Kind::Client, port), &prefix_of_paths, count)?;
    let (sent, mut score) = (by_path(&sent, Kind::Client), Score::default());
    for (path, server) in by_path(&arrived, Kind::Server) {
        score.judge(server, sent.get(path).with_context(|| format!("{path} was not sent"))?, &["connection"]);
    }
    let reasons = admin::lost_between(before, &admin::unlinked(&programs.spantap.own_metrics()?));
    println!("{prefix}: right, wrong, unlinked: {score:?}; spans without a parent: {reasons:?}");
    ensure!(score.1 == 0, "wrong links: {score:?}");
    ensure!((score.0 + score.2) as usize == count, "{count} paths, but {score:?}");
    Ok(Judged(score))
}

/// Clients that are told when to begin.
fn asks(programs: &mut Programs, client: &str) -> Result<()> {
    let folder = programs.folder.path().to_owned();
    for (server, port) in programs.servers.clone() {
        for run in RUNS {
            let prefix = format!("/{client}-{}-{server}", run.0);
            let before = admin::unlinked(&programs.spantap.own_metrics()?);
            if client == "node" {
                node_asks(&mut programs.spantap, port, &prefix, run)?;
            } else {
                go_asks(&programs.spantap, &folder, port, &prefix, run)?;
            }
            judged(programs, port, &prefix, run.0 * run.1, &before)?.is_enough()?;
        }
    }
    Ok(())
}

fn node_asks(spantap: &mut Spantap, port: u16, prefix: &str, (connections, requests): (usize, usize)) -> Result<()> {
    let mut command = Command::new(host::real_program("node", &["-p", "process.execPath"])?);
    command.arg(compiled::subjects().join("tls/client.js")).args(["https", prefix]);
    command.args([connections, requests, port.into()].map(|number| number.to_string()));
    let mut client = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let known = works_in_memory(spantap, client.id());
    drop(client.stdin.take());
    let output = client.wait_with_output()?;
    known?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn go_asks(
    spantap: &Spantap,
    at: &Path,
    port: u16,
    prefix: &str,
    (connections, requests): (usize, usize),
) -> Result<()> {
    let begin = at.join("begin");
    if begin.exists() {
        std::fs::remove_file(&begin)?;
    }
    let mut command = Command::new(at.join("asks"));
    command.arg("ask").arg(&begin).arg(prefix).args([connections, requests, port.into()].map(|n| n.to_string()));
    let client = command.stderr(Stdio::piped()).spawn()?;
    let read = host::wait_for("TLS of the client to be read", ARRIVAL, || {
        let text = spantap.own_metrics().ok()?;
        text.lines().any(|line| line.contains("state=\"read\"") && line.contains("/asks")).then_some(())
    });
    std::fs::write(&begin, "")?;
    let output = client.wait_with_output()?;
    read?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Five requests in one write: where the response of each begins is not known when it is sent.
fn ahead(programs: &mut Programs) -> Result<()> {
    for (server, port) in programs.servers.clone() {
        let prefix = format!("/ahead-{server}");
        let before = admin::unlinked(&programs.spantap.own_metrics()?);
        https::ask(port, &prefix, [4, 4, 5], &[])?;
        judged(programs, port, &prefix, 80, &before)?;
    }
    Ok(())
}
