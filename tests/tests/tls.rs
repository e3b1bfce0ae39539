//! HTTPS seen in plaintext: real programs with OpenSSL as servers and as clients, and what is not read told as such.
#![allow(missing_docs)]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use spantap_tests::{
    admin::Losses,
    collector::{self, Collector},
    host, http,
    https::{self, lost, nothing_lost, own_peer},
    process::Process,
    servers::{python, python_over_tls},
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::{Kind, Span},
};

const ARRIVAL: Duration = Duration::from_secs(15);
const CONNECTIONS: usize = 20;
const REQUESTS: usize = 40;
const BIG: u64 = 100 * 1024 * 1024;

struct Tls {
    spantap: Option<Spantap>,
    collector: Collector,
    _servers: Vec<Process>,
    nginx: u16,
    /// What nginx asks, over TLS as well.
    behind: u16,
    _folder: tempfile::TempDir,
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
        .case("a_download_of_100_mb", download)
        .case("a_client_that_leaves_in_the_body", leaves)
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
    let mut servers = vec![python_over_tls(at, &at.join("cert.pem"), &at.join("key.pem"), behind)?];
    servers.push(start_nginx(at, nginx, plain, behind)?);
    let collector = Collector::start()?;
    let mut tls = Tls { spantap: None, collector, _servers: servers, nginx, behind, _folder: folder };
    // All of them run, and have been used, before Spantap does.
    https::ask(nginx, "/before", [1, 1, 1], &[])?;
    https::ask(behind, "/before", [1, 1, 1], &[])?;
    tls.spantap = Some(tls.observe(&[])?);
    Ok(tls)
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
    location /files/ {{ root {folder}; }}
    location /proxy/ {{ proxy_pass https://behind; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
  }}
}}
"
    );
    // Its workers run as another user.
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755))?;
    std::fs::create_dir(at.join("files"))?;
    for name in ["big", "left"] {
        std::fs::File::create(at.join("files").join(name))?.set_len(BIG)?;
    }
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

    fn losses(&self) -> Result<Losses> {
        self.spantap.as_ref().context("Spantap does not run")?.losses()
    }

    /// Waits for exactly `count` spans of this kind, port and beginning of the path.
    fn spans(&mut self, kind: Kind, port: u16, prefix: &str, count: usize) -> Result<Vec<Arc<Span>>> {
        https::spans(&mut self.collector, ARRIVAL, (kind, port), prefix, count)
    }
}

fn twenty_connections(tls: &mut Tls) -> Result<()> {
    let before = tls.losses()?;
    let count = CONNECTIONS * REQUESTS;
    for (port, prefix) in [(tls.nginx, "/nginx"), (tls.behind, "/python")] {
        https::ask(port, prefix, [CONNECTIONS, REQUESTS, 1], &[])?;
        own_peer(&tls.spans(Kind::Server, port, prefix, count)?)?;
    }
    nothing_lost(&before, &tls.losses()?)
}

fn pipelined(tls: &mut Tls) -> Result<()> {
    let before = tls.losses()?;
    https::ask(tls.nginx, "/pipelined", [3, 4, 5], &[])?;
    own_peer(&tls.spans(Kind::Server, tls.nginx, "/pipelined", 60)?)?;
    nothing_lost(&before, &tls.losses()?)
}

fn upstream(tls: &mut Tls) -> Result<()> {
    let before = tls.losses()?;
    https::ask(tls.nginx, "/proxy", [4, 10, 1], &[])?;
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

/// Records of 16 KB; what follows on the same connection is told as well.
fn download(tls: &mut Tls) -> Result<()> {
    let before = tls.losses()?;
    let url = |path: &str| format!("https://127.0.0.1:{}/files/{path}", tls.nginx);
    let (big, next) = (url("big?big"), url("big?next"));
    curl(&["--http1.1", &big, "-o", "/dev/null"], &next)?;
    for kind in [Kind::Server, Kind::Client] {
        let spans = tls.spans(kind, tls.nginx, "/files/big", 2)?;
        for span in &spans {
            let size = span.attributes.number("http.response.body.size");
            ensure!(
                size == i64::try_from(BIG).ok() && span.attributes.text("error.type").is_none(),
                "{kind:?}: {size:?}"
            );
        }
    }
    nothing_lost(&before, &tls.losses()?)
}

fn leaves(tls: &mut Tls) -> Result<()> {
    let before = tls.losses()?;
    let code = r#"
import socket, ssl, struct, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
tls = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
tls.sendall(b"GET /files/left HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % int(sys.argv[1]))
tls.recv(1000)
tls.close()
"#;
    https::succeeds(Command::new(python()?).args(["-c", code, &tls.nginx.to_string()]))?;
    let (collector, port) = (&mut tls.collector, i64::from(tls.nginx));
    collector.wait_until(ARRIVAL, |telemetry| {
        let left = |s: &&Arc<Span>| s.path() == "/files/left" && s.attributes.number("server.port") == Some(port);
        let found: Vec<_> = telemetry.spans.iter().filter(left).collect();
        ensure!(found.len() == 1, "{} spans", found.len());
        for span in found {
            let said = ["spantap.outcome", "error.type"].map(|key| span.attributes.text(key));
            ensure!(said == [Some("aborted"), Some("connection_reset")], "{said:?}");
            ensure!(span.status_code() == Some(200), "status {:?}", span.status_code());
        }
        Ok(())
    })?;
    nothing_lost(&before, &tls.losses()?)
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
    https::ask(tls.nginx, "/off", [3, 2, 1], &[])?;
    host::wait_for("connections to count as encrypted", ARRIVAL, || {
        spantap.losses().ok().filter(|losses| lost(losses, "encrypted") == 3)
    })?;
    let seen = tls.collector.telemetry()?.spans.iter().filter(|span| span.path().starts_with("/off")).count();
    ensure!(seen == 0, "{seen} spans of what is not to be read");
    spantap.stop().map(drop)
}
