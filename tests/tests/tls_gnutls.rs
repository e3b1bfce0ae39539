//! HTTPS of programs with GnuTLS: each request has its own peer, on both sides, however the program receives and sends.
#![allow(missing_docs)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    certificate::Certificate,
    collector::{self, Collector},
    compiled, host,
    https::{self, nothing_lost, own_peer, succeeds},
    process::Process,
    servers::python,
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::{Kind, Span},
};

const ARRIVAL: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 20;
const REQUESTS: usize = 30;
/// Connections that are open before Spantap runs, and their requests after that.
const EARLY: (usize, usize) = (3, 3);

struct GnuTls {
    spantap: Spantap,
    collector: Collector,
    port: u16,
    /// GnuTLS's own server for tests.
    serv: Option<u16>,
    early: Process,
    folder: tempfile::TempDir,
    _servers: Vec<Process>,
}

impl World for GnuTls {
    fn logs(&self) -> String {
        self.spantap.tail()
    }
}

fn main() -> ExitCode {
    let tools = ["python3", "openssl", "curl", "gnutls-serv"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools);
    let curl = (!python_has("libcurl-gnutls.so.4")).then(|| "there is no libcurl-gnutls.so.4".into());
    Suite::new("tls_gnutls", lacks, start)
        .case("connections_that_were_open_before_the_start", early)
        .case("byte_by_byte_in_one_thread_and_held_back", |gnutls| {
            asked(gnutls, "/many", [CONNECTIONS, REQUESTS, 1], &[])
        })
        .case("pipelined_requests", |gnutls| asked(gnutls, "/pipelined", [3, 4, 5], &[]))
        .case("resumed_sessions", |gnutls| asked(gnutls, "/resumed", [6, 2, 1], &["resume"]))
        .case("a_client_with_connections_in_turns", client)
        .case("gnutls_serv_answers", serv)
        .case_unless(host::lacks("wget"), "wget_asks", wget)
        .case_unless(curl, "curl_asks", curl_asks)
        .run()
}

/// Whether the interpreter finds this library.
fn python_has(library: &str) -> bool {
    let code = format!("import ctypes; ctypes.CDLL({library:?})");
    python().is_ok_and(|python| succeeds(Command::new(python).args(["-c", &code])).is_ok())
}

fn subject(name: &str) -> PathBuf {
    compiled::subjects().join("tls").join(name)
}

fn start() -> Result<GnuTls> {
    let (folder, certificate) = (host::folder()?, Certificate::make()?);
    let at = folder.path();
    let (port, serv) = (host::free_port()?, host::free_port()?);
    let mut own = Command::new(python()?);
    own.arg(subject("gnutls_server.py")).arg(port.to_string()).arg(certificate.file()).arg(certificate.key());
    let mut theirs = Command::new(host::find("gnutls-serv").context("no gnutls-serv")?);
    theirs.args(["--http", "--quiet", "--port", &serv.to_string(), "--x509certfile"]).arg(certificate.file());
    theirs.arg("--x509keyfile").arg(certificate.key());
    let mut servers = Vec::new();
    for (name, port, command) in [("own", port, own), ("gnutls-serv", serv, theirs)] {
        let mut process = Process::start(name, at, command)?;
        process.wait_ready(ARRIVAL, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        servers.push(process);
    }
    // Clients are selected by where their programs lie; these copies are nobody else's.
    fs::copy(fs::canonicalize(python()?)?, at.join("python"))?;
    if let Some(wget) = host::find("wget") {
        fs::copy(fs::canonicalize(wget)?, at.join("wget"))?;
    }
    let file = at.join("early");
    let mut command = Command::new(python()?);
    let numbers = [EARLY.0, EARLY.1 + 1, 1].map(|number| number.to_string());
    command.arg(subject("client.py")).arg(port.to_string()).arg("/early").args(numbers).arg("wait").arg(&file);
    let mut early = Process::start("early", at, command)?;
    early.wait_ready(ARRIVAL, |_| file.exists())?;
    let collector = Collector::start()?;
    let entries = [format!("{{open_ports: \"{port},{serv}\"}}"), format!("{{exe_path: \"{}/*\"}}", at.display())];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let spantap = Setup::observing(&entries, &collector).start()?;
    host::wait_for("GnuTLS to be read", ARRIVAL, || {
        let text = spantap.own_metrics().ok()?;
        let read = |name: &str| text.lines().any(|line| line.contains("state=\"read\"") && line.contains(name));
        (read("/python") && read("/gnutls-serv")).then_some(())
    })?;
    Ok(GnuTls { spantap, collector, port, serv: Some(serv), early, folder, _servers: servers })
}

impl GnuTls {
    /// Waits for exactly `count` spans of this kind, port and beginning of the path.
    fn spans(&mut self, kind: Kind, port: u16, prefix: &str, count: usize) -> Result<Vec<Arc<Span>>> {
        https::spans(&mut self.collector, ARRIVAL, (kind, port), prefix, count)
    }

    /// The copy of the interpreter, to run this subject.
    fn python(&self, name: &str) -> Result<Command> {
        let prefix = Command::new(python()?).args(["-c", "import sys; print(sys.base_prefix)"]).output()?.stdout;
        let mut command = Command::new(self.folder.path().join("python"));
        command.env("PYTHONHOME", String::from_utf8(prefix)?.trim()).arg(subject(name));
        Ok(command)
    }

    /// Runs a client that asks the server, `count` requests, and looks at both ends of them.
    fn client(&mut self, command: &mut Command, prefix: &str, count: usize) -> Result<Vec<Arc<Span>>> {
        let before = self.spantap.losses()?;
        succeeds(command)?;
        let port = i64::from(self.port);
        let asked = self.spans(Kind::Client, self.port, prefix, count)?;
        ensure!(asked.iter().all(|span| span.attributes.number("network.peer.port") == Some(port)), "another peer");
        let answered = self.spans(Kind::Server, self.port, prefix, count)?;
        nothing_lost(&before, &self.spantap.losses()?)?;
        Ok(answered)
    }
}

fn early(gnutls: &mut GnuTls) -> Result<()> {
    let before = gnutls.spantap.losses()?;
    fs::remove_file(gnutls.folder.path().join("early"))?;
    own_peer(&gnutls.spans(Kind::Server, gnutls.port, "/early", EARLY.0 * EARLY.1)?)?;
    ensure!(gnutls.early.wait(ARRIVAL)?.success(), "the client failed: {}", gnutls.early.tail());
    nothing_lost(&before, &gnutls.spantap.losses()?)
}

fn asked(gnutls: &mut GnuTls, prefix: &str, numbers: [usize; 3], mode: &[&str]) -> Result<()> {
    let before = gnutls.spantap.losses()?;
    https::ask(gnutls.port, prefix, numbers, mode)?;
    own_peer(&gnutls.spans(Kind::Server, gnutls.port, prefix, numbers.iter().product())?)?;
    nothing_lost(&before, &gnutls.spantap.losses()?)
}

fn client(gnutls: &mut GnuTls) -> Result<()> {
    let mut command = gnutls.python("gnutls_client.py")?;
    command.arg(gnutls.port.to_string()).args(["/client", "10", "12"]);
    own_peer(&gnutls.client(&mut command, "/client", 120)?)
}

fn serv(gnutls: &mut GnuTls) -> Result<()> {
    let port = gnutls.serv.context("no gnutls-serv")?;
    let before = gnutls.spantap.losses()?;
    let url = |number: usize| format!("https://127.0.0.1:{port}/serv/{number}");
    for number in 0..5 {
        succeeds(Command::new("curl").args(["-s", "-S", "-k", "-o", "/dev/null", "--max-time", "30", &url(number)]))?;
    }
    gnutls.spans(Kind::Server, port, "/serv", 5)?;
    nothing_lost(&before, &gnutls.spantap.losses()?)
}

fn wget(gnutls: &mut GnuTls) -> Result<()> {
    let mut command = Command::new(gnutls.folder.path().join("wget"));
    command.args(["--no-config", "--quiet", "--no-check-certificate", "--output-document=/dev/null"]);
    command.args((0..4).map(|number| format!("https://127.0.0.1:{}/wget/{number}", gnutls.port)));
    gnutls.client(&mut command, "/wget", 4).map(drop)
}

fn curl_asks(gnutls: &mut GnuTls) -> Result<()> {
    let mut command = gnutls.python("gnutls_curl.py")?;
    command.arg("1.1").args((0..4).map(|number| format!("https://127.0.0.1:{}/curl/{number}", gnutls.port)));
    gnutls.client(&mut command, "/curl", 4).map(drop)
}
