//! Programs that ask another one for what they are asked, so that links within them can be judged: `/in/N` is asked for, `/out/N` asked.
//!
//! In: the name of a service, where the other one listens. Out: a guarded process that answers.

use std::{net::TcpStream, process::Command, time::Duration};

use anyhow::{Context, Result};

use crate::{compiled, host, http, process::Process, servers};

/// Longest time from start to the first answer: some load many packages.
const READY: Duration = Duration::from_secs(30);
/// Selects the nginx of [`Relay::nginx`], not that of another test.
pub const NGINX: &str = "cmd_args: \"*/links-nginx/*\"";

/// Selects scripts of this checkout's `tests/subjects`.
pub fn scripts() -> String {
    format!("cmd_args: \"*{}/*\"", compiled::subjects().display())
}

/// A running program, on a port of its own.
#[derive(Debug)]
pub struct Relay {
    /// Its process; of nginx the master.
    pub process: Process,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Relay {
    /// Starts what `command` makes of a free port, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(service: &str, command: impl FnOnce(u16) -> Result<Command>) -> Result<Self> {
        let port = host::free_port()?;
        Self::ready(service, host::folder()?, port, command(port)?)
    }

    /// The same with a program that speaks TLS: waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_tls(service: &str, command: impl FnOnce(u16) -> Result<Command>) -> Result<Self> {
        let port = host::free_port()?;
        let folder = host::folder()?;
        let mut command = command(port)?;
        command.env("OTEL_SERVICE_NAME", service);
        let mut process = Process::start(service, folder.path(), command)?;
        process.wait_ready(READY, |_| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { process, port, _folder: folder })
    }

    fn ready(service: &str, folder: tempfile::TempDir, port: u16, mut command: Command) -> Result<Self> {
        command.env("OTEL_SERVICE_NAME", service);
        let mut process = Process::start(service, folder.path(), command)?;
        process.wait_ready(READY, |_| http::get(port, "/ready").is_ok())?;
        Ok(Self { process, port, _folder: folder })
    }

    /// `relay.py`: a thread for each connection, which waits `pause` seconds before it asks. `other`: 0 if it asks nobody.
    ///
    /// # Errors
    /// When it does not start.
    pub fn threads(service: &str, other: u16, pause: &str) -> Result<Self> {
        Self::script(service, "relay.py", other, pause)
    }

    /// A script of Python that takes the same arguments.
    ///
    /// # Errors
    /// When it does not start.
    pub fn script(service: &str, name: &str, other: u16, pause: &str) -> Result<Self> {
        Self::start(service, |port| {
            let mut command = Command::new(servers::python()?);
            command.arg(compiled::subjects().join(name)).args([&port.to_string(), &other.to_string(), pause]);
            Ok(command)
        })
    }

    /// nginx with two workers: `/kept/in/` and `/new/in/` ask `upstream` for `out/`, over connections that are kept and over new
    /// ones; `/delayed/in/` does so after a while, when there is much to do; `/whole/` asks for the same path,
    /// `/chain/` for what follows.
    ///
    /// # Errors
    /// When it does not start.
    pub fn nginx(service: &str, upstream: u16) -> Result<Self> {
        let (folder, port) = (host::folder()?, host::free_port()?);
        let at = folder.path().join("links-nginx");
        std::fs::create_dir(&at)?;
        let text = format!(
            "worker_processes 2; pid {at}/pid; error_log {at}/error.log; events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3;
  uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;
  upstream behind {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  limit_req_zone $binary_remote_addr zone=few:1m rate=200r/s;
  server {{
    listen 127.0.0.1:{port} reuseport backlog=1024;
    proxy_http_version 1.1; proxy_set_header Connection \"\";
    location / {{ return 200 hello; }}
    location /kept/in/ {{ proxy_pass http://behind/kept/out/; }}
    location /new/in/ {{ proxy_set_header Connection close; proxy_pass http://127.0.0.1:{upstream}/new/out/; }}
    location /delayed/in/ {{ limit_req zone=few burst=1000; proxy_pass http://behind/delayed/out/; }}
    location /whole/ {{ proxy_pass http://behind; }}
    location /chain/ {{ proxy_pass http://behind/; }}
  }}
}}
",
            at = at.display()
        );
        let path = at.join("nginx.conf");
        std::fs::write(&path, text)?;
        let mut command = Command::new(host::find("nginx").context("no nginx")?);
        command.arg("-p").arg(&at).arg("-c").arg(path).args(["-g", "daemon off;"]);
        Self::ready(service, folder, port, command)
    }
}
