//! Programs whose TLS library is not read: their connections are counted, and told with the library's name.
#![allow(missing_docs)]

use std::{
    io::Write as _,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    certificate::Certificate,
    collector::{self, Collector},
    host,
    https::{self, lost, nothing_lost, succeeds},
    process::Process,
    servers::{Server, nginx_over_tls},
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::Kind,
};

const ARRIVAL: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 3;

struct Unread {
    spantap: Spantap,
    collector: Collector,
    /// NSS's own server for tests.
    selfserv: u16,
    nginx: u16,
    folder: tempfile::TempDir,
    _server: Process,
    _nginx: Server,
}

impl World for Unread {
    fn logs(&self) -> String {
        self.spantap.tail()
    }
}

fn main() -> ExitCode {
    let tools = ["selfserv", "tstclnt", "certutil", "pk12util", "openssl", "curl", "nginx"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools);
    Suite::new("tls_unread", lacks, start)
        .case("a_server_of_nss", server)
        .case("a_client_of_nss", client)
        .case("clients_that_end_at_once", gone)
        .run()
}

fn start() -> Result<Unread> {
    let (folder, certificate) = (host::folder()?, Certificate::make()?);
    let at = folder.path();
    // Its own kind of store, with the certificate and its key.
    let store = format!("sql:{}", at.display());
    let both = at.join("both.p12");
    let mut export = Command::new("openssl");
    export.args(["pkcs12", "-export", "-name", "localhost", "-passout", "pass:", "-in"]).arg(certificate.file());
    succeeds(export.arg("-inkey").arg(certificate.key()).arg("-out").arg(&both))?;
    succeeds(Command::new("certutil").args(["-N", "--empty-password", "-d", &store]))?;
    succeeds(Command::new("pk12util").args(["-d", &store, "-W", "", "-i"]).arg(&both))?;
    let port = host::free_port()?;
    let mut command = Command::new("selfserv");
    command.args(["-n", "localhost", "-w", "", "-d", &store, "-p", &port.to_string()]);
    let mut server = Process::start("selfserv", at, command)?;
    server.wait_ready(ARRIVAL, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    // Clients are selected by where their program lies.
    std::fs::copy(host::find("tstclnt").context("no tstclnt")?, at.join("tstclnt"))?;
    let (nginx, _) = nginx_over_tls(&certificate)?;
    let collector = Collector::start()?;
    let entries = [
        format!("{{open_ports: \"{port},{}\"}}", nginx.port),
        format!("{{exe_path: \"{}\"}}", at.join("tstclnt").display()),
    ];
    let spantap = Setup::observing(&[&entries[0], &entries[1]], &collector).start()?;
    Ok(Unread { spantap, collector, selfserv: port, nginx: nginx.port, folder, _server: server, _nginx: nginx })
}

impl Unread {
    /// Waits until this program is told to have `count` connections that were not read, and that many more than `before` count.
    fn told(&self, executable: &str, before: u64, count: usize) -> Result<()> {
        host::wait_for("connections to count as encrypted", ARRIVAL, || {
            let losses = self.spantap.losses().ok()?;
            (lost(&losses, "encrypted") == before + count as u64).then_some(())
        })?;
        host::wait_for("the program and its library to be told", ARRIVAL, || {
            let text = self.spantap.own_metrics().ok()?;
            let told = |line: &str| {
                line.starts_with("spantap_agent_tls_connections{state=\"not_read\"")
                    && [executable, "library=\"NSS\"", "this library is not read"]
                        .iter()
                        .all(|part| line.contains(part))
                    && line.ends_with(&format!("}} {count}"))
            };
            text.lines().any(told).then_some(())
        })
    }
}

impl Unread {
    /// Connections that are told as not read of this program, whatever the reason.
    fn connections_of(&self, executable: &str) -> Result<usize> {
        let text = self.spantap.own_metrics()?;
        let of = |line: &str| {
            let (name, count) = line.rsplit_once(' ')?;
            let told =
                name.starts_with("spantap_agent_tls_connections{state=\"not_read\"") && name.contains(executable);
            if told { count.parse::<usize>().ok() } else { None }
        };
        Ok(text.lines().filter_map(of).sum())
    }
}

fn server(unread: &mut Unread) -> Result<()> {
    let before = lost(&unread.spantap.losses()?, "encrypted");
    for _ in 0..CONNECTIONS {
        let url = format!("https://127.0.0.1:{}/nss", unread.selfserv);
        succeeds(Command::new("curl").args(["-s", "-S", "-k", "-o", "/dev/null", "--max-time", "30", &url]))?;
    }
    unread.told("/selfserv", before, CONNECTIONS)?;
    let seen = unread.collector.telemetry()?.spans.iter().filter(|span| span.path().starts_with("/nss")).count();
    ensure!(seen == 0, "{seen} spans of what is not read");
    Ok(())
}

/// Each has ended when what became of its connection is looked at.
fn gone(unread: &mut Unread) -> Result<()> {
    let before = lost(&unread.spantap.losses()?, "encrypted");
    let already = unread.connections_of("/tstclnt")?;
    for number in 1..=CONNECTIONS {
        let mut client = tstclnt(unread).spawn()?;
        let asked = ask(unread, &mut client, "/ended", number);
        // Its connection ends with it.
        client.kill()?;
        client.wait()?;
        asked?;
    }
    host::wait_for("connections of programs that are gone to be told", ARRIVAL, || {
        let lost = lost(&unread.spantap.losses().ok()?, "encrypted") - before;
        let told = unread.connections_of("/tstclnt").ok()? - already;
        ((lost, told) == (CONNECTIONS as u64, CONNECTIONS)).then_some(())
    })
}

/// What it asks is read at the other end. It goes on meanwhile: of a program that is gone, nobody could say what it had.
fn client(unread: &mut Unread) -> Result<()> {
    let mut before = unread.spantap.losses()?;
    let mut client = tstclnt(unread).spawn()?;
    let asked = asks(unread, &mut client, lost(&before, "encrypted"));
    // At the end of its input it would wait for the server to close.
    client.kill()?;
    client.wait()?;
    asked?;
    let mut after = unread.spantap.losses()?;
    for losses in [&mut before, &mut after] {
        losses.remove("encrypted");
    }
    nothing_lost(&before, &after)
}

/// NSS's own client for tests, which asks nginx what it reads.
fn tstclnt(unread: &Unread) -> Command {
    let mut command = Command::new(unread.folder.path().join("tstclnt"));
    command.args(["-o", "-h", "127.0.0.1", "-p", &unread.nginx.to_string(), "-d"]);
    command.arg(format!("sql:{}", unread.folder.path().display()));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Asks for `prefix/number`, and waits until nginx's side of it is reported, and all before.
fn ask(unread: &mut Unread, client: &mut Child, prefix: &str, number: usize) -> Result<()> {
    let input = client.stdin.as_mut().context("no standard input")?;
    write!(input, "GET {prefix}/{number} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", unread.nginx)?;
    input.flush()?;
    https::spans(&mut unread.collector, ARRIVAL, (Kind::Server, unread.nginx), prefix, number).map(drop)
}

fn asks(unread: &mut Unread, client: &mut Child, before: u64) -> Result<()> {
    for number in 1..=CONNECTIONS {
        ask(unread, client, "/by-nss", number)?;
    }
    unread.told("/tstclnt", before, 1)
}
