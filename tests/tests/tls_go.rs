//! HTTPS of Go programs, with symbols and stripped: each request has its own peer, and what is not read is told as such.
#![allow(missing_docs)]

use std::{
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    certificate::Certificate,
    collector::{self, Collector},
    compiled, host,
    https::{self, lost, nothing_lost, own_peer, succeeds},
    process::Process,
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::{Kind, Span},
};

const ARRIVAL: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 20;
const REQUESTS: usize = 40;

struct Go {
    spantap: Spantap,
    collector: Collector,
    /// The first has symbols, the second none.
    servers: Vec<(u16, Process)>,
    folder: tempfile::TempDir,
    _certificate: Certificate,
}

impl World for Go {
    fn logs(&self) -> String {
        self.spantap.tail()
    }
}

fn main() -> ExitCode {
    let tools = ["go", "python3", "openssl", "curl"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools);
    Suite::new("tls_go", lacks, start)
        .case("each_request_of_twenty_connections_has_its_own_peer", many)
        .case("pipelined_requests", pipelined)
        .case("go_asks", asks)
        .case("http2_is_said_not_to_be_read", http2)
        .run()
}

fn start() -> Result<Go> {
    let (folder, certificate) = (host::folder()?, Certificate::make()?);
    let at = folder.path();
    let mut servers = Vec::new();
    for (name, flags) in [("with-symbols", ""), ("stripped", "-ldflags=-s -w")] {
        let program = at.join(name);
        build(&program, flags)?;
        let port = host::free_port()?;
        let mut command = Command::new(program);
        command.arg("serve").arg(port.to_string()).arg(certificate.file()).arg(certificate.key());
        let mut process = Process::start(name, at, command)?;
        process.wait_ready(ARRIVAL, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        servers.push((port, process));
    }
    // Clients are selected by where their program lies.
    std::fs::copy(at.join("stripped"), at.join("asks"))?;
    let collector = Collector::start()?;
    let ports: Vec<String> = servers.iter().map(|(port, _)| port.to_string()).collect();
    let entries = [
        format!("{{open_ports: \"{}\"}}", ports.join(",")),
        format!("{{exe_path: \"{}\"}}", at.join("asks").display()),
    ];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let spantap = Setup::observing(&entries, &collector).start()?;
    is_read(&spantap, "/with-symbols")?;
    is_read(&spantap, "/stripped")?;
    Ok(Go { spantap, collector, servers, folder, _certificate: certificate })
}

/// Waits until the TLS of this program is read.
fn is_read(spantap: &Spantap, name: &str) -> Result<()> {
    host::wait_for("TLS of the program to be read", ARRIVAL, || {
        let text = spantap.own_metrics().ok()?;
        text.lines().any(|line| line.contains("state=\"read\"") && line.contains(name)).then_some(())
    })
}

fn build(program: &Path, flags: &str) -> Result<()> {
    let mut command = Command::new(host::find("go").context("no go")?);
    command.current_dir(compiled::subjects().join("tls/go")).args(["build", "-buildvcs=false", "-o"]).arg(program);
    succeeds(command.args((!flags.is_empty()).then_some(flags)).arg("."))
}

impl Go {
    fn ports(&self) -> Vec<u16> {
        self.servers.iter().map(|(port, _)| *port).collect()
    }

    /// Waits for exactly `count` spans of this kind, port and beginning of the path.
    fn spans(&mut self, kind: Kind, port: u16, prefix: &str, count: usize) -> Result<Vec<Arc<Span>>> {
        https::spans(&mut self.collector, ARRIVAL, (kind, port), prefix, count)
    }
}

fn many(go: &mut Go) -> Result<()> {
    let before = go.spantap.losses()?;
    for port in go.ports() {
        https::ask(port, "/many", [CONNECTIONS, REQUESTS, 1], &[])?;
        own_peer(&go.spans(Kind::Server, port, "/many", CONNECTIONS * REQUESTS)?)?;
    }
    nothing_lost(&before, &go.spantap.losses()?)
}

fn pipelined(go: &mut Go) -> Result<()> {
    let before = go.spantap.losses()?;
    for port in go.ports() {
        https::ask(port, "/pipelined", [3, 4, 5], &[])?;
        own_peer(&go.spans(Kind::Server, port, "/pipelined", 60)?)?;
    }
    nothing_lost(&before, &go.spantap.losses()?)
}

/// Both servers at once, by goroutines of one client.
fn asks(go: &mut Go) -> Result<()> {
    let before = go.spantap.losses()?;
    let at = go.folder.path();
    let mut command = Command::new(at.join("asks"));
    command.arg("ask").arg(at.join("now")).args(["/asks", "8", "12"]).args(go.ports().iter().map(u16::to_string));
    let mut client = Process::start("asks", at, command)?;
    is_read(&go.spantap, "/asks")?;
    std::fs::write(at.join("now"), "")?;
    ensure!(client.wait(ARRIVAL)?.success(), "the client failed: {}", client.tail());
    for port in go.ports() {
        own_peer(&go.spans(Kind::Client, port, "/asks", 96)?)?;
        go.spans(Kind::Server, port, "/asks", 96)?;
    }
    nothing_lost(&before, &go.spantap.losses()?)
}

fn http2(go: &mut Go) -> Result<()> {
    let before = go.spantap.losses()?;
    for port in go.ports() {
        let mut command = Command::new(host::find("curl").context("no curl")?);
        command.args(["-s", "-S", "-k", "-o", "/dev/null", "--max-time", "30", "--http2", "-w", "%{http_version}"]);
        let output = command.arg(format!("https://127.0.0.1:{port}/h2")).output()?;
        ensure!(output.stdout == b"2", "curl: {}", String::from_utf8_lossy(&output.stderr));
    }
    let after = host::wait_for("HTTP/2 to be told", ARRIVAL, || {
        go.spantap.losses().ok().filter(|after| lost(after, "http2_not_read") == lost(&before, "http2_not_read") + 2)
    })?;
    nothing_lost(&before, &after)
}
