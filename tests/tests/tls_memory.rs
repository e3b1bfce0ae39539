//! HTTPS of programs whose TLS works in memory (Node, asyncio, threads that share the steps): each request has its own peer.
#![allow(missing_docs)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    collector::{self, Collector},
    compiled, host,
    https::{self, lost, nothing_lost, own_peer},
    process::Process,
    servers::python,
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::{Kind, Span},
};

const ARRIVAL: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 20;
const REQUESTS: usize = 30;
/// Connections to each server that are open before Spantap runs, and their requests after that.
const EARLY: (usize, usize) = (3, 3);

struct Memory {
    spantap: Spantap,
    collector: Collector,
    servers: Vec<(&'static str, u16, Process)>,
    early: Vec<Process>,
    folder: tempfile::TempDir,
}

impl World for Memory {
    fn logs(&self) -> String {
        self.spantap.tail()
    }
}

fn main() -> ExitCode {
    let tools = ["python3", "openssl", "node"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools);
    Suite::new("tls_memory", lacks, start)
        .case("connections_that_were_open_before_the_start_get_their_peers", early)
        .case("a_program_is_seen_to_work_in_memory_by_its_first_requests", seen)
        .case("each_request_of_twenty_connections_has_its_own_peer", many)
        .case("pipelined_requests", pipelined)
        .case("resumed_sessions", resumed)
        .case("node_asks_by_https", |memory| clients(memory, "https"))
        .case("node_asks_by_fetch", |memory| clients(memory, "fetch"))
        .case("asyncio_asks", |memory| clients(memory, "asyncio"))
        .case("a_library_that_is_not_found_is_reported_without_peer", without_peer)
        .run()
}

fn start() -> Result<Memory> {
    let folder = host::folder()?;
    let at = folder.path();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"])
        .arg(at.join("key.pem"))
        .arg("-out")
        .arg(at.join("cert.pem"))
        .output()?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let node = host::find("node").context("no node")?;
    // Clients are selected by where their programs lie; these copies are nobody else's.
    fs::copy(fs::canonicalize(&node)?, at.join("node"))?;
    fs::copy(fs::canonicalize(python()?)?, at.join("python"))?;
    let mut servers = Vec::new();
    for (name, program, script) in [
        ("node", node, "server.js"),
        ("asyncio", python()?, "asyncio_server.py"),
        ("pool", python()?, "pool_server.py"),
        ("hidden", python()?, "asyncio_server.py"),
    ] {
        let port = host::free_port()?;
        let mut command = Command::new(program);
        command.arg(subject(script)).arg(port.to_string()).arg(at.join("cert.pem")).arg(at.join("key.pem"));
        if name == "hidden" {
            command.env("LD_LIBRARY_PATH", hide_library(at)?);
        }
        let mut process = Process::start(name, at, command)?;
        process.wait_ready(ARRIVAL, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        servers.push((name, port, process));
    }
    let mut early = Vec::new();
    for (name, port, _) in servers.iter().take(2) {
        let file = at.join(format!("early-{name}"));
        let mut command = Command::new(python()?);
        let numbers = [EARLY.0, EARLY.1 + 1, 1].map(|number| number.to_string());
        command.arg(subject("client.py")).arg(port.to_string()).arg("/early").args(numbers).arg("wait").arg(&file);
        let mut process = Process::start(&format!("early-{name}"), at, command)?;
        process.wait_ready(ARRIVAL, |_| file.exists())?;
        early.push(process);
    }
    let collector = Collector::start()?;
    let ports: Vec<String> = servers.iter().map(|(_, port, _)| port.to_string()).collect();
    let entries = [
        format!("{{open_ports: \"{}\"}}", ports.join(",")),
        format!("{{exe_path: \"{}\"}}", at.join("node").display()),
        format!("{{exe_path: \"{}\"}}", at.join("python").display()),
    ];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let mut spantap = Setup::observing(&entries, &collector).environment("OTEL_EBPF_LOG_LEVEL", "debug").start()?;
    host::wait_for("TLS of the servers to be read", ARRIVAL, || {
        let text = spantap.own_metrics().ok()?;
        let read = |name: &str| text.lines().any(|line| line.contains("state=\"read\"") && line.contains(name));
        (read("/node") && read("/python")).then_some(())
    })?;
    // These are known to work in memory by their name or what they map; until then their connections have no peer.
    for (name, _, process) in servers.iter().take(2) {
        let told = format!("its TLS library works in memory pid={}", process.pid());
        host::wait_for(&format!("{name}'s ciphertext to be compared"), ARRIVAL, || logged(&mut spantap, &told))?;
    }
    Ok(Memory { spantap, collector, servers, early, folder })
}

/// Whether a line of Spantap's log ends so.
fn logged(spantap: &mut Spantap, end: &str) -> Option<()> {
    spantap.forwarder().log().lines().any(|line| line.ends_with(end)).then_some(())
}

fn subject(name: &str) -> PathBuf {
    compiled::subjects().join("tls").join(name)
}

/// A folder where the library that writes ciphertext has a file of another name.
fn hide_library(at: &Path) -> Result<PathBuf> {
    let code = "import ssl; print([line.split()[-1] for line in open('/proc/self/maps') if 'libcrypto' in line][0])";
    let output = Command::new(python()?).args(["-c", code]).output()?;
    let library = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let folder = at.join("lib");
    fs::create_dir(&folder)?;
    fs::copy(&library, folder.join("hidden.so"))?;
    std::os::unix::fs::symlink("hidden.so", folder.join(library.file_name().context("no library")?))?;
    Ok(folder)
}

impl Memory {
    fn port(&self, name: &str) -> u16 {
        self.servers.iter().find(|(known, ..)| *known == name).map_or(0, |(_, port, _)| *port)
    }

    /// Waits for exactly `count` spans of this kind, port and beginning of the path.
    fn spans(&mut self, kind: Kind, port: u16, prefix: &str, count: usize) -> Result<Vec<Arc<Span>>> {
        https::spans(&mut self.collector, ARRIVAL, (kind, port), prefix, count)
    }
}

fn early(memory: &mut Memory) -> Result<()> {
    let before = memory.spantap.losses()?;
    let mut unknown = BTreeSet::new();
    for name in ["node", "asyncio"] {
        fs::remove_file(memory.folder.path().join(format!("early-{name}")))?;
        let spans = memory.spans(Kind::Server, memory.port(name), "/early", EARLY.0 * EARLY.1)?;
        // The first response ties: its own exchange may be on its way by then, and counts.
        let tied = |span: &Arc<Span>| !span.path().ends_with("/1") || span.attributes.has("network.peer.port");
        let (tied, first): (Vec<_>, Vec<_>) = spans.into_iter().partition(tied);
        unknown.extend(first.iter().map(|span| span.path().to_owned()));
        own_peer(&tied)?;
    }
    memory.early.clear();
    let counted = lost(&memory.spantap.losses()?, "tls_peer_unknown") - lost(&before, "tls_peer_unknown");
    ensure!(counted == unknown.len() as u64, "{counted} counted of {unknown:?}");
    Ok(())
}

/// Nothing tells beforehand that this program works in memory: once it is seen, its next connections get their peers.
fn seen(memory: &mut Memory) -> Result<()> {
    let before = lost(&memory.spantap.losses()?, "tls_peer_unknown");
    let mut unknown = 0;
    for asked in 1..50 {
        https::ask(memory.port("pool"), &format!("/seen{asked}"), [1, 1, 1], &[])?;
        let spans = memory.spans(Kind::Server, memory.port("pool"), &format!("/seen{asked}/"), 1)?;
        if spans.iter().any(|span| span.attributes.has("network.peer.port")) {
            own_peer(&spans)?;
            return host::wait_for("those before to be counted", ARRIVAL, || {
                let losses = memory.spantap.losses().ok()?;
                (lost(&losses, "tls_peer_unknown") == before + unknown).then_some(())
            });
        }
        unknown += 1;
    }
    anyhow::bail!("{unknown} connections without their peers")
}

fn many(memory: &mut Memory) -> Result<()> {
    let before = memory.spantap.losses()?;
    for name in ["node", "asyncio", "pool"] {
        https::ask(memory.port(name), "/many", [CONNECTIONS, REQUESTS, 1], &[])?;
        own_peer(&memory.spans(Kind::Server, memory.port(name), "/many", CONNECTIONS * REQUESTS)?)?;
    }
    nothing_lost(&before, &memory.spantap.losses()?)
}

fn pipelined(memory: &mut Memory) -> Result<()> {
    let before = memory.spantap.losses()?;
    for name in ["node", "asyncio", "pool"] {
        https::ask(memory.port(name), "/pipelined", [3, 4, 5], &[])?;
        own_peer(&memory.spans(Kind::Server, memory.port(name), "/pipelined", 60)?)?;
    }
    nothing_lost(&before, &memory.spantap.losses()?)
}

fn resumed(memory: &mut Memory) -> Result<()> {
    let before = memory.spantap.losses()?;
    for name in ["node", "asyncio"] {
        https::ask(memory.port(name), "/resumed", [6, 2, 1], &["resume"])?;
        own_peer(&memory.spans(Kind::Server, memory.port(name), "/resumed", 12)?)?;
    }
    nothing_lost(&before, &memory.spantap.losses()?)
}

/// Two servers are asked in turns, by connections that one thread of the client holds.
fn clients(memory: &mut Memory, how: &str) -> Result<()> {
    let before = memory.spantap.losses()?;
    let prefix = format!("/{how}");
    let ports = [memory.port("node"), memory.port("asyncio")];
    let at = memory.folder.path();
    let mut command = if how == "asyncio" {
        let prefix = Command::new(python()?).args(["-c", "import sys; print(sys.base_prefix)"]).output()?.stdout;
        let mut command = Command::new(at.join("python"));
        command.env("PYTHONHOME", String::from_utf8(prefix)?.trim()).arg(subject("asyncio_client.py"));
        command
    } else {
        let mut command = Command::new(at.join("node"));
        command.arg(subject("client.js")).arg(how);
        command
    };
    command.arg(&prefix).args(["8", "12"]).args(ports.map(|port| port.to_string()));
    let mut client = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It asks when its standard input ends. What it asks before it is known to work in memory would have no peer.
    let told = format!("its TLS library works in memory pid={}", client.id());
    let known = host::wait_for(&told, ARRIVAL, || logged(&mut memory.spantap, &told));
    drop(client.stdin.take());
    let output = client.wait_with_output()?;
    known?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    for port in ports {
        own_peer(&memory.spans(Kind::Client, port, &prefix, 48)?)?;
        memory.spans(Kind::Server, port, &prefix, 48)?;
    }
    nothing_lost(&before, &memory.spantap.losses()?)
}

fn without_peer(memory: &mut Memory) -> Result<()> {
    let before = lost(&memory.spantap.losses()?, "tls_peer_unknown");
    https::ask(memory.port("hidden"), "/hidden", [5, 6, 1], &[])?;
    let spans = memory.spans(Kind::Server, memory.port("hidden"), "/hidden", 30)?;
    ensure!(spans.iter().all(|span| !span.attributes.has("network.peer.port")), "a peer was guessed");
    host::wait_for("connections without peer to be counted", ARRIVAL, || {
        memory.spantap.losses().ok().filter(|losses| lost(losses, "tls_peer_unknown") == before + 5)
    })?;
    host::wait_for("the program to be told", ARRIVAL, || {
        memory.spantap.own_metrics().ok().filter(|text| text.contains("memory BIO"))
    })
    .map(drop)
}
