//! HTTPS of Apache (threads that hand connections on, reads ahead) and HAProxy (threads, TLS on both sides).
#![allow(missing_docs)]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    certificate::Certificate,
    collector::{self, Collector},
    host,
    https::{self, nothing_lost, own_peer, succeeds},
    process::Process,
    servers::python_over_tls,
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::Kind,
};

const ARRIVAL: Duration = Duration::from_secs(20);
/// Where Debian has Apache's modules.
const MODULES: &str = "/usr/lib/apache2/modules";

struct Servers {
    spantap: Spantap,
    collector: Collector,
    apache: u16,
    haproxy: u16,
    /// What HAProxy asks.
    behind: u16,
    _servers: Vec<Process>,
    _folder: tempfile::TempDir,
    _certificate: Certificate,
}

impl World for Servers {
    fn logs(&self) -> String {
        self.spantap.tail()
    }
}

fn main() -> ExitCode {
    let tools = ["apache2", "haproxy", "curl", "python3", "openssl"].map(host::lacks);
    let modules = (!Path::new(MODULES).join("mod_ssl.so").exists()).then(|| format!("no mod_ssl.so in {MODULES}"));
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), modules].into_iter().chain(tools);
    Suite::new("tls_servers", lacks, start)
        .case("apache_answers_connections_of_many_requests", |servers| many(servers, servers.apache, "/apache"))
        .case("apache_has_read_the_request_with_the_handshake", single)
        .case("haproxy_answers", |servers| many(servers, servers.haproxy, "/direct"))
        .case("haproxy_asks", asks)
        .run()
}

fn start() -> Result<Servers> {
    let (folder, certificate) = (host::folder()?, Certificate::make()?);
    let at = folder.path();
    let [apache, haproxy, behind] = [host::free_port()?, host::free_port()?, host::free_port()?];
    let started = |name: &str, port: u16, command: Command| -> Result<Process> {
        let mut process = Process::start(name, at, command)?;
        process.wait_ready(ARRIVAL, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(process)
    };
    let servers = vec![
        python_over_tls(at, &certificate.file(), &certificate.key(), behind)?,
        started("apache2", apache, apache_on(at, apache, &certificate)?)?,
        started("haproxy", haproxy, haproxy_on(at, haproxy, behind, &certificate)?)?,
    ];
    let collector = Collector::start()?;
    let ports = format!("{{open_ports: \"{apache},{haproxy},{behind}\"}}");
    let spantap = Setup::observing(&[&ports], &collector).start()?;
    host::wait_for("TLS of all three to be read", ARRIVAL, || {
        let text = spantap.own_metrics().ok()?;
        let read = |name: &str| text.lines().any(|line| line.contains("state=\"read\"") && line.contains(name));
        (read("apache2") && read("haproxy") && read("python")).then_some(())
    })?;
    Ok(Servers {
        spantap,
        collector,
        apache,
        haproxy,
        behind,
        _servers: servers,
        _folder: folder,
        _certificate: certificate,
    })
}

fn apache_on(at: &Path, port: u16, certificate: &Certificate) -> Result<Command> {
    let (folder, file, key) = (at.display(), certificate.file(), certificate.key());
    // It runs as another user.
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(at.join("hello"), "hello")?;
    let text = format!(
        "ServerRoot {folder}
PidFile {folder}/apache.pid
ErrorLog {folder}/apache.log
ServerName localhost
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {MODULES}/mod_mpm_event.so
LoadModule authz_core_module {MODULES}/mod_authz_core.so
LoadModule alias_module {MODULES}/mod_alias.so
LoadModule ssl_module {MODULES}/mod_ssl.so
MaxKeepAliveRequests 0
AliasMatch ^/ {folder}/hello
SSLEngine on
SSLCertificateFile {}
SSLCertificateKeyFile {}
",
        file.display(),
        key.display()
    );
    let path = at.join("apache.conf");
    std::fs::write(&path, text)?;
    let mut command = Command::new(host::find("apache2").context("no apache2")?);
    command.args(["-X", "-f"]).arg(path);
    Ok(command)
}

fn haproxy_on(at: &Path, port: u16, behind: u16, certificate: &Certificate) -> Result<Command> {
    let both = at.join("both.pem");
    std::fs::write(&both, std::fs::read(certificate.file())?)?;
    let key = std::fs::read(certificate.key())?;
    std::io::Write::write_all(&mut std::fs::OpenOptions::new().append(true).open(&both)?, &key)?;
    let text = format!(
        "global
  nbthread 4
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend tls
  bind 127.0.0.1:{port} ssl crt {} alpn http/1.1
  http-request return status 200 content-type text/plain string ok if {{ path_beg /direct }}
  default_backend behind
backend behind
  server one 127.0.0.1:{behind} ssl verify none
",
        both.display()
    );
    let path = at.join("haproxy.cfg");
    std::fs::write(&path, text)?;
    let mut command = Command::new(host::find("haproxy").context("no haproxy")?);
    command.arg("-db").arg("-f").arg(path);
    Ok(command)
}

fn many(servers: &mut Servers, port: u16, prefix: &str) -> Result<()> {
    let before = servers.spantap.losses()?;
    for (way, numbers, mode) in
        [("many", [20, 30, 1], &[][..]), ("pipelined", [3, 4, 5], &[]), ("resumed", [6, 2, 1], &["resume"])]
    {
        // The second part of the path is the client's own port.
        let prefix = format!("{prefix}-{way}");
        https::ask(port, &prefix, numbers, mode)?;
        let count = numbers.iter().product();
        own_peer(&https::spans(&mut servers.collector, ARRIVAL, (Kind::Server, port), &prefix, count)?)?;
    }
    nothing_lost(&before, &servers.spantap.losses()?)
}

/// curl sends its request together with the end of its handshake.
fn single(servers: &mut Servers) -> Result<()> {
    const COUNT: usize = 20;
    let (before, port) = (servers.spantap.losses()?, servers.apache);
    for number in 0..COUNT {
        let url = format!("https://127.0.0.1:{port}/single/{number}");
        succeeds(Command::new("curl").args(["-s", "-S", "-k", "-o", "/dev/null", "--max-time", "30", &url]))?;
    }
    let spans = https::spans(&mut servers.collector, ARRIVAL, (Kind::Server, port), "/single", COUNT)?;
    let without = spans.iter().filter(|span| !span.attributes.has("network.peer.port")).count();
    ensure!(without == 0, "{without} of {COUNT} have no peer");
    nothing_lost(&before, &servers.spantap.losses()?)
}

fn asks(servers: &mut Servers) -> Result<()> {
    let (before, port, behind) = (servers.spantap.losses()?, servers.haproxy, i64::from(servers.behind));
    https::ask(port, "/asks", [10, 20, 1], &[])?;
    // It hands on the Host that it was asked for: client and server of the other side are known by their peers.
    let asked = https::spans(&mut servers.collector, ARRIVAL, (Kind::Client, port), "/asks", 200)?;
    ensure!(asked.iter().all(|span| span.attributes.number("network.peer.port") == Some(behind)), "another peer");
    https::spans(&mut servers.collector, ARRIVAL, (Kind::Server, port), "/asks", 400)?;
    nothing_lost(&before, &servers.spantap.losses()?)
}
