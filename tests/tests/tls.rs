//! HTTPS seen in plaintext: real programs with OpenSSL as servers and as clients, and what is not read told as such.
#![allow(missing_docs)]

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use spantap_tests::{
    admin::Losses,
    collector::{self, Collector},
    expect, host, http,
    process::Process,
    servers::python,
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::{Kind, Span},
};

const ARRIVAL: Duration = Duration::from_secs(15);
const CONNECTIONS: u16 = 20;
const REQUESTS: u16 = 40;

/// `server.py PORT CERTIFICATE KEY`: a thread for each connection, which makes the calls of the socket itself.
const SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

/// `client.py PORT PREFIX CONNECTIONS REQUESTS AT_ONCE`: on each connection `REQUESTS` times as many requests in one write,
/// for `PREFIX/<own port>/<number>`; every answer must have status 200.
const CLIENT: &str = r#"
import socket, ssl, sys, threading
port, prefix, connections, requests, at_once = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
failed = []
def run():
    try:
        with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw) as tls:
            own, answers = tls.getsockname()[1], tls.makefile("rb")
            for number in range(requests):
                ask = lambda n: f"GET {prefix}/{own}/{n} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
                tls.sendall("".join(ask(number * at_once + n) for n in range(at_once)).encode())
                for _ in range(at_once):
                    status, length = answers.readline(), 0
                    if b" 200 " not in status: raise ValueError(status)
                    while (line := answers.readline().strip()):
                        name, _, value = line.partition(b":")
                        if name.lower() == b"content-length": length = int(value)
                    answers.read(length)
    except Exception as error: failed.append(repr(error))
threads = [threading.Thread(target=run) for _ in range(connections)]
for thread in threads: thread.start()
for thread in threads: thread.join()
if failed: sys.exit(failed[0])
"#;

struct Tls {
    spantap: Option<Spantap>,
    collector: Collector,
    _servers: Vec<Process>,
    nginx: u16,
    /// What nginx asks, over TLS as well.
    behind: u16,
    folder: tempfile::TempDir,
}

impl World for Tls {
    fn logs(&self) -> String {
        self.spantap.as_ref().map(Spantap::tail).unwrap_or_default()
    }
}

fn main() -> ExitCode {
    let tools = ["nginx", "curl", "python3", "openssl"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools);
    Suite::new("tls", lacks, start)
        .case("each_request_of_twenty_connections_has_its_own_peer", twenty_connections)
        .case("pipelined_requests", pipelined)
        .case("nginx_asks_over_tls", upstream)
        .case("curl_asks", curl_asks)
        .case("http2_is_said_not_to_be_read", http2)
        .case("what_is_read_is_told", told)
        .case("turned_off_it_counts_as_encrypted", turned_off)
        .run()
}

fn start() -> Result<Tls> {
    let folder = host::folder()?;
    let at = folder.path();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"])
        .arg(at.join("key.pem"))
        .arg("-out")
        .arg(at.join("cert.pem"))
        .output()?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let [nginx, plain, behind] = [host::free_port()?, host::free_port()?, host::free_port()?];
    let mut servers = vec![script(at, "server", SERVER, behind)?];
    servers.push(start_nginx(at, nginx, plain, behind)?);
    let collector = Collector::start()?;
    let mut tls = Tls { spantap: None, collector, _servers: servers, nginx, behind, folder };
    // All of them run, and have been used, before Spantap does.
    tls.ask(nginx, "/before", 1, 1, 1)?;
    tls.ask(behind, "/before", 1, 1, 1)?;
    tls.spantap = Some(tls.observe(&[])?);
    Ok(tls)
}

fn script(at: &Path, name: &str, text: &str, port: u16) -> Result<Process> {
    let path = at.join(format!("{name}.py"));
    std::fs::write(&path, text)?;
    let mut command = Command::new(python()?);
    command.arg(path).arg(port.to_string()).arg(at.join("cert.pem")).arg(at.join("key.pem"));
    let mut process = Process::start(name, at, command)?;
    process.wait_ready(ARRIVAL, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(process)
}

fn start_nginx(at: &Path, port: u16, plain: u16, behind: u16) -> Result<Process> {
    let folder = at.display();
    let text = format!(
        "worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  upstream behind {{ server 127.0.0.1:{behind}; keepalive 4; }}
  server {{ listen 127.0.0.1:{plain}; location / {{ return 200; }} }}
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{ return 200 \"hello\\n\"; }}
    location /proxy/ {{ proxy_pass https://behind; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
  }}
}}
"
    );
    let path = at.join("nginx.conf");
    std::fs::write(&path, text)?;
    let mut command = Command::new(host::find("nginx").context("no nginx")?);
    command.arg("-p").arg(at).arg("-c").arg(path).args(["-g", "daemon off;"]);
    let mut process = Process::start("nginx", at, command)?;
    process.wait_ready(ARRIVAL, |_| http::get(plain, "/").is_ok())?;
    Ok(process)
}

impl Tls {
    fn observe(&self, own_keys: &[(&str, &str)]) -> Result<Spantap> {
        let ports = format!("{{open_ports: \"{},{}\"}}", self.nginx, self.behind);
        let setup = Setup::observing(&[&ports, "{exe_path: \"*/curl\"}"], &self.collector);
        own_keys.iter().fold(setup, |setup, (key, value)| setup.own_key(key, value)).start()
    }

    fn ask(&self, port: u16, prefix: &str, connections: u16, requests: u16, at_once: u16) -> Result<()> {
        let path = self.folder.path().join("client.py");
        std::fs::write(&path, CLIENT)?;
        let numbers = [connections, requests, at_once].map(|number| number.to_string());
        let output = Command::new(python()?).arg(path).arg(port.to_string()).arg(prefix).args(numbers).output()?;
        ensure!(output.status.success(), "the client failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn losses(&self) -> Result<Losses> {
        self.spantap.as_ref().context("Spantap does not run")?.losses()
    }

    /// Waits for exactly `count` well-formed spans of this kind, port and beginning of the path, all of them https.
    fn spans(&mut self, kind: Kind, port: u16, prefix: &str, count: usize) -> Result<Vec<Arc<Span>>> {
        self.collector.wait_until(ARRIVAL, |telemetry| {
            let of = |span: &&Arc<Span>| {
                span.kind == kind
                    && span.path().starts_with(prefix)
                    && span.attributes.number("server.port") == Some(i64::from(port))
            };
            let found: Vec<_> = telemetry.spans.iter().filter(of).cloned().collect();
            ensure!(found.len() == count, "{} {kind:?} spans for {prefix} on port {port}, not {count}", found.len());
            for span in &found {
                expect::well_formed_over(span, "https")?;
                ensure!(span.status_code() == Some(200), "status {:?}", span.status_code());
                let full = span.attributes.text("url.full");
                ensure!(kind == Kind::Server || full.is_some_and(|full| full.starts_with("https://")), "{full:?}");
            }
            Ok(found)
        })
    }
}

fn lost(losses: &Losses, reason: &str) -> u64 {
    losses.iter().filter(|(name, _)| name.as_str() == reason).map(|(_, count)| *count).sum()
}

/// That nothing of what was read counts as lost.
fn nothing_lost(before: &Losses, after: &Losses) -> Result<()> {
    for reason in [
        "encrypted",
        "protocol_unknown",
        "parse_error",
        "tls_call_not_seen",
        "response_not_observed",
        "request_not_observed",
    ] {
        let (before, after) = (lost(before, reason), lost(after, reason));
        ensure!(before == after, "{reason}: {before} before, {after} after");
    }
    Ok(())
}

/// Every request carries the port of its connection: no byte of one is credited to another.
fn own_peer(spans: &[Arc<Span>]) -> Result<()> {
    let mut paths = BTreeSet::new();
    for span in spans {
        let path = span.path();
        let port = path.split('/').nth(2).and_then(|port| port.parse::<i64>().ok());
        ensure!(
            port.is_some() && span.attributes.number("network.peer.port") == port,
            "{path}: peer {:?}",
            span.attributes
        );
        ensure!(span.attributes.text("network.peer.address") == Some("127.0.0.1"), "{path}: another peer address");
        ensure!(paths.insert(path.to_owned()), "{path} twice");
    }
    Ok(())
}

fn twenty_connections(tls: &mut Tls) -> Result<()> {
    let before = tls.losses()?;
    let count = usize::from(CONNECTIONS) * usize::from(REQUESTS);
    for (port, prefix) in [(tls.nginx, "/nginx"), (tls.behind, "/python")] {
        tls.ask(port, prefix, CONNECTIONS, REQUESTS, 1)?;
        own_peer(&tls.spans(Kind::Server, port, prefix, count)?)?;
    }
    nothing_lost(&before, &tls.losses()?)
}

fn pipelined(tls: &mut Tls) -> Result<()> {
    let before = tls.losses()?;
    tls.ask(tls.nginx, "/pipelined", 3, 4, 5)?;
    own_peer(&tls.spans(Kind::Server, tls.nginx, "/pipelined", 60)?)?;
    nothing_lost(&before, &tls.losses()?)
}

fn upstream(tls: &mut Tls) -> Result<()> {
    let before = tls.losses()?;
    tls.ask(tls.nginx, "/proxy", 4, 10, 1)?;
    tls.spans(Kind::Server, tls.nginx, "/proxy", 40)?;
    // nginx names its upstream in the Host that it sends, without a port: that is the one of https.
    let asked = tls.spans(Kind::Client, 443, "/proxy", 40)?;
    let behind = i64::from(tls.behind);
    ensure!(asked.iter().all(|span| span.attributes.number("network.peer.port") == Some(behind)), "another peer");
    tls.spans(Kind::Server, 443, "/proxy", 40)?;
    nothing_lost(&before, &tls.losses()?)
}

fn curl(arguments: &[&str], url: &str) -> Result<()> {
    let output = Command::new("curl")
        .args(["-s", "-S", "-k", "-o", "/dev/null", "--max-time", "30"])
        .args(arguments)
        .arg(url)
        .output()?;
    if !output.status.success() {
        bail!("curl {url}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn curl_asks(tls: &mut Tls) -> Result<()> {
    for number in 0..3 {
        curl(&["--http1.1"], &format!("https://127.0.0.1:{}/curl/{number}", tls.nginx))?;
    }
    let spans = tls.spans(Kind::Client, tls.nginx, "/curl", 3)?;
    let port = i64::from(tls.nginx);
    ensure!(spans.iter().all(|span| span.attributes.number("network.peer.port") == Some(port)), "another peer");
    tls.spans(Kind::Server, tls.nginx, "/curl", 3).map(drop)
}

fn http2(tls: &mut Tls) -> Result<()> {
    let before = tls.losses()?;
    curl(&["--http2"], &format!("https://127.0.0.1:{}/h2", tls.nginx))?;
    let after = host::wait_for("HTTP/2 to be told", ARRIVAL, || {
        // Both ends are observed.
        tls.losses().ok().filter(|after| lost(after, "http2_not_read") >= lost(&before, "http2_not_read") + 2)
    })?;
    nothing_lost(&before, &after)
}

fn told(tls: &mut Tls) -> Result<()> {
    let spantap = tls.spantap.as_ref().context("Spantap does not run")?;
    host::wait_for("programs to be told", ARRIVAL, || {
        let text = spantap.own_metrics().ok()?;
        let line = |state: &str, executable: &str| {
            text.lines().any(|line| line.contains(&format!("state=\"{state}\"")) && line.contains(executable))
        };
        line("read", "nginx").then_some(())
    })
}

fn turned_off(tls: &mut Tls) -> Result<()> {
    if let Some(spantap) = tls.spantap.take() {
        spantap.stop()?;
    }
    let spantap = tls.observe(&[("tls", "off")])?;
    tls.ask(tls.nginx, "/off", 3, 2, 1)?;
    host::wait_for("connections to count as encrypted", ARRIVAL, || {
        spantap.losses().ok().filter(|losses| lost(losses, "encrypted") == 3)
    })?;
    let seen = tls.collector.telemetry()?.spans.iter().filter(|span| span.path().starts_with("/off")).count();
    ensure!(seen == 0, "{seen} spans of what is not to be read");
    spantap.stop().map(drop)
}
