//! Hard traffic over TLS, by what the TLS library does: sessions that go on, handshakes that are repeated, calls that change threads,
//! connections that one thread serves in turns, reads of one byte, records of 16 KB.
#![allow(missing_docs)]

use std::{
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin,
    certificate::Certificate,
    collector::{self, Collector},
    compiled, host,
    https::{self, nothing_lost, own_peer, succeeds},
    process::Process,
    servers::{Server, nginx_over_tls, python, python_over_tls},
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::{Kind, Span},
};

const ARRIVAL: Duration = Duration::from_secs(20);
/// Connections to each server that are open before Spantap runs, and their requests after that.
const EARLY: (usize, usize) = (3, 3);
/// Connections of the client that serves them in turns, and requests on each.
const TURNS: (usize, usize) = (16, 12);
/// The first two are the same program.
const SERVERS: [&str; 5] = ["turns", "turns-too", "nginx", "python", "go"];

struct Hard {
    spantap: Spantap,
    collector: Collector,
    ports: Vec<(&'static str, u16)>,
    _early: Vec<Process>,
    folder: tempfile::TempDir,
    _servers: Vec<Process>,
    _nginx: Server,
    _certificate: Certificate,
}

impl World for Hard {
    fn logs(&self) -> String {
        self.spantap.tail()
    }
}

fn main() -> ExitCode {
    let tools = ["cc", "nginx", "go", "python3", "openssl"].map(host::lacks);
    let header =
        (!std::path::Path::new("/usr/include/openssl/ssl.h").exists()).then(|| "needs OpenSSL's headers".into());
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), header].into_iter().chain(tools);
    Suite::new("tls_hard", lacks, start)
        .case("connections_that_were_open_before_the_start", early)
        .case("sessions_resumed_with_tls_1_2", |hard| resumed(hard, "/resume-1.2", "resume-1.2"))
        .case("sessions_resumed_with_tls_1_3", |hard| resumed(hard, "/resume-1.3", "resume"))
        .case("handshakes_repeated_with_tls_1_2", |hard| turns(hard, "1.2", 0))
        .case("keys_updated_with_tls_1_3", |hard| turns(hard, "1.3", 0))
        .case("bodies_in_records_of_16_kb_with_tls_1_2", |hard| turns(hard, "1.2", 100_000))
        .case("bodies_in_records_of_16_kb_with_tls_1_3", |hard| turns(hard, "1.3", 100_000))
        // A call that waits for a request when reading begins has begun unseen. These come last: calls that were not seen
        // may be counted later than their requests.
        .case("threads_that_waited_before_the_start", |hard| early_of(hard, "python", EARLY.0))
        .case("goroutines_that_waited_before_the_start", |hard| early_of(hard, "go", EARLY.0))
        .case("nothing_came_of_bodies", no_evil)
        .run()
}

fn start() -> Result<Hard> {
    let (folder, certificate) = (host::folder()?, Certificate::make()?);
    let at = folder.path();
    let (nginx, _) = nginx_over_tls(&certificate)?;
    compiled::openssl_program("turns_server", &at.join("turns"))?;
    compiled::openssl_program("turns_client", &at.join("client"))?;
    let mut go = Command::new(host::find("go").context("no go")?);
    go.current_dir(compiled::subjects().join("tls/go")).args(["build", "-buildvcs=false", "-o"]).arg(at.join("go"));
    succeeds(go.arg("."))?;
    let (mut ports, mut servers) = (Vec::new(), Vec::new());
    for name in SERVERS {
        let port = if name == "nginx" { nginx.port } else { host::free_port()? };
        ports.push((name, port));
        if name == "python" {
            servers.push(python_over_tls(at, &certificate.file(), &certificate.key(), port)?);
        }
        if ["nginx", "python"].contains(&name) {
            continue;
        }
        let mut command = Command::new(at.join(name.trim_end_matches("-too")));
        command.args((name == "go").then_some("serve")).arg(port.to_string());
        let mut process = Process::start(name, at, {
            command.arg(certificate.file()).arg(certificate.key());
            command
        })?;
        process.wait_ready(ARRIVAL, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        servers.push(process);
    }
    let mut early = Vec::new();
    for (name, port) in &ports {
        let file = at.join(format!("early-{name}"));
        let mut command = Command::new(python()?);
        let numbers = [EARLY.0, EARLY.1 + 1, 1].map(|number| number.to_string());
        command.arg(compiled::subjects().join("tls/client.py")).arg(port.to_string()).arg("/early").args(numbers);
        command.arg("wait").arg(&file);
        let mut process = Process::start(&format!("early-{name}"), at, command)?;
        process.wait_ready(ARRIVAL, |_| file.exists())?;
        early.push(process);
    }
    let collector = Collector::start()?;
    let open: Vec<String> = ports.iter().map(|(_, port)| port.to_string()).collect();
    let entries =
        [format!("{{open_ports: \"{}\"}}", open.join(",")), format!("{{exe_path: \"{}/asks*\"}}", at.display())];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let spantap = Setup::observing(&entries, &collector).start()?;
    for name in ["/turns", "/nginx", "/python", "/go"] {
        is_read(&spantap, name)?;
    }
    let (_early, _servers, _nginx, _certificate) = (early, servers, nginx, certificate);
    Ok(Hard { spantap, collector, ports, folder, _early, _servers, _nginx, _certificate })
}

/// Waits until the TLS of this program is read.
fn is_read(spantap: &Spantap, name: &str) -> Result<()> {
    host::wait_for(&format!("TLS of {name} to be read"), ARRIVAL, || {
        let text = spantap.own_metrics().ok()?;
        text.lines().any(|line| line.contains("state=\"read\"") && line.contains(name)).then_some(())
    })
}

impl Hard {
    fn port(&self, name: &str) -> u16 {
        self.ports.iter().find(|(known, _)| *known == name).map_or(0, |(_, port)| *port)
    }
}

/// These wait for requests by poll.
fn early(hard: &mut Hard) -> Result<()> {
    early_of(hard, "turns", 0)?;
    early_of(hard, "turns-too", 0)?;
    early_of(hard, "nginx", 0)
}

/// At most `most` requests may be lost, and count.
fn early_of(hard: &mut Hard, name: &str, most: usize) -> Result<()> {
    let before = hard.spantap.losses()?;
    std::fs::remove_file(hard.folder.path().join(format!("early-{name}")))?;
    let (spantap, port) = (&hard.spantap, i64::from(hard.port(name)));
    let spans = hard.collector.wait_until(ARRIVAL, |telemetry| {
        let of = |span: &&Arc<Span>| {
            span.path().starts_with("/early") && span.attributes.number("server.port") == Some(port)
        };
        let found: Vec<_> = telemetry.spans.iter().filter(of).cloned().collect();
        let lost = admin::lost_between(&before, &spantap.losses()?);
        let (counted, due) = (admin::exchanges(&lost) as usize, EARLY.0 * EARLY.1);
        ensure!(found.len() + counted == due && counted <= most, "{name}: {} of {due}, {lost:?}", found.len());
        ensure!(most > 0 || lost.is_empty(), "{name}: {lost:?}");
        Ok(found)
    })?;
    own_peer(&spans)
}

fn resumed(hard: &mut Hard, prefix: &str, mode: &str) -> Result<()> {
    let before = hard.spantap.losses()?;
    for (name, port) in hard.ports.clone() {
        https::ask(port, prefix, [6, 3, 1], &[mode]).with_context(|| name.to_owned())?;
        let spans = https::spans(&mut hard.collector, ARRIVAL, (Kind::Server, port), prefix, 18);
        own_peer(&spans.with_context(|| name.to_owned())?)?;
    }
    nothing_lost(&before, &hard.spantap.losses()?)
}

/// One thread of a client asks two servers, whose threads share the calls of each connection.
fn turns(hard: &mut Hard, version: &str, body: usize) -> Result<()> {
    let before = hard.spantap.losses()?;
    let at = hard.folder.path();
    let (name, prefix) = (format!("asks-{version}-{body}"), format!("/turns-{version}-{body}"));
    std::fs::copy(at.join("client"), at.join(&name))?;
    let ports = ["turns", "turns-too"].map(|name| hard.port(name));
    let mut command = Command::new(at.join(&name));
    command.arg(&prefix).args([TURNS.0, TURNS.1, body].map(|number| number.to_string())).arg(version);
    command.args(ports.map(|port| port.to_string())).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut client = command.spawn()?;
    let known = is_read(&hard.spantap, &format!("/{name}"));
    // It asks when its standard input ends.
    drop(client.stdin.take());
    let output = client.wait_with_output()?;
    known?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    for port in ports {
        let due = TURNS.0 * TURNS.1 / ports.len();
        let served = https::spans(&mut hard.collector, ARRIVAL, (Kind::Server, port), &prefix, due)?;
        own_peer(&served)?;
        let asked = https::spans(&mut hard.collector, ARRIVAL, (Kind::Client, port), &prefix, due)?;
        let (port, body) = (Some(i64::from(port)), i64::try_from(body)?);
        ensure!(asked.iter().all(|span| span.attributes.number("network.peer.port") == port), "another peer");
        for span in served.iter().chain(&asked) {
            let size = |which: &str| span.attributes.number(&format!("http.{which}.body.size"));
            ensure!([size("request"), size("response")] == [Some(body); 2], "{}: {:?}", span.path(), span.attributes);
        }
    }
    nothing_lost(&before, &hard.spantap.losses()?)
}

/// What looks like requests and answers in bodies was taken for what it is.
fn no_evil(hard: &mut Hard) -> Result<()> {
    let spans = &hard.collector.telemetry()?.spans;
    let wrong = spans.iter().filter(|span| span.path().starts_with("/evil") || span.status_code() == Some(500)).count();
    ensure!(wrong == 0, "{wrong} spans of what stands in bodies");
    Ok(())
}
