//! Servers that know nothing of tracing: nginx, Python, Node, Go; each an instance of its own on a free port.
//!
//! In: nothing but what the machine has installed. Out: guarded processes that answer.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{certificate::Certificate, compiled, host, http, process::Process};

/// Longest time from start to the first answer.
const READY: Duration = Duration::from_secs(15);
/// Size of nginx's `/files/big`.
pub const BIG: u64 = 100 * 1024 * 1024;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Its process; of nginx the master.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(name: &str, folder: tempfile::TempDir, port: u16, command: Command) -> Result<Self> {
        let process = Process::start(name, folder.path(), command)?;
        let mut server = Self { process, port, folder };
        server.process.wait_ready(READY, |_| http::get(port, "/").is_ok())?;
        Ok(server)
    }

    /// nginx with its own prefix: `/` answers 200, `/files/` static files (`small`, and `big` by sendfile),
    /// `/proxy/` asks `upstream`, `/status/404` and `/status/500` answer so,
    /// `/requests` is nginx's own count (`stub_status`).
    ///
    /// # Errors
    /// When it does not start.
    pub fn nginx(workers: u32, upstream: Option<u16>) -> Result<Self> {
        Self::nginx_on(host::free_port()?, workers, upstream)
    }

    fn nginx_on(port: u16, workers: u32, upstream: Option<u16>) -> Result<Self> {
        let folder = host::folder()?;
        let files = folder.path().join("files");
        std::fs::create_dir(&files)?;
        // Its workers run as another user.
        std::fs::set_permissions(&files, std::fs::Permissions::from_mode(0o755))?;
        std::fs::write(files.join("small"), vec![b'x'; 20_000])?;
        std::fs::File::create(files.join("big"))?.set_len(BIG)?;
        let path = folder.path().join("nginx.conf");
        std::fs::write(&path, nginx_configuration(folder.path(), port, workers, upstream))?;
        let mut command = Command::new(host::find("nginx").context("no nginx")?);
        command.arg("-p").arg(folder.path()).arg("-c").arg(path).args(["-g", "daemon off;"]);
        Self::start("nginx", folder, port, command)
    }

    /// An nginx that is started later: its port is known now.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn nginx_later() -> Result<Later> {
        Ok(Later { port: host::free_port()? })
    }

    /// Python's `http.server` on a folder with the file `hello`: HTTP/1.0, a connection for each request.
    ///
    /// # Errors
    /// When it does not start.
    pub fn python_http() -> Result<Self> {
        let folder = host::folder()?;
        let port = host::free_port()?;
        std::fs::write(folder.path().join("hello"), "hello")?;
        let mut command = Command::new(python()?);
        command
            .args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"])
            .arg(folder.path())
            .arg(port.to_string());
        Self::start("python-http", folder, port, command)
    }

    /// Python's asyncio: `tests/subjects/async_server.py`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn python_async() -> Result<Self> {
        Self::of_subjects("python-async", python()?, "async_server.py")
    }

    /// Node's http module: `tests/subjects/server.js`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn node() -> Result<Self> {
        Self::of_subjects("node", host::find("node").context("no node")?, "server.js")
    }

    /// Go's net/http: `tests/subjects/goserver`.
    ///
    /// # Errors
    /// When it does not compile or start.
    pub fn go() -> Result<Self> {
        let folder = host::folder()?;
        let port = host::free_port()?;
        let mut command = Command::new(compiled::go_program("goserver")?);
        command.arg(port.to_string());
        Self::start("goserver", folder, port, command)
    }

    fn of_subjects(name: &str, program: PathBuf, source: &str) -> Result<Self> {
        let folder = host::folder()?;
        let port = host::free_port()?;
        let mut command = Command::new(program);
        command.arg(compiled::subjects().join(source)).arg(port.to_string());
        Self::start(name, folder, port, command)
    }

    /// [`Server::node`] over TLS.
    ///
    /// # Errors
    /// When it does not start.
    pub fn node_over_tls(certificate: &Certificate) -> Result<Self> {
        let mut command = Command::new(host::find("node").context("no node")?);
        command.arg(compiled::subjects().join("server.js"));
        Self::over_tls("node-tls", command, certificate)
    }

    /// [`Server::go`] over TLS, HTTP/1.1.
    ///
    /// # Errors
    /// When it does not compile or start.
    pub fn go_over_tls(certificate: &Certificate) -> Result<Self> {
        Self::over_tls("goserver-tls", Command::new(compiled::go_program("goserver")?), certificate)
    }

    fn over_tls(name: &str, mut command: Command, certificate: &Certificate) -> Result<Self> {
        let (folder, port) = (host::folder()?, host::free_port()?);
        command.arg(port.to_string()).arg(certificate.file()).arg(certificate.key());
        let process = Process::start(name, folder.path(), command)?;
        let mut server = Self { process, port, folder };
        server.process.wait_ready(READY, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(server)
    }

    /// URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Folder that lives as long as the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// nginx with one worker that answers 200 over TLS with HTTP/1.1, and its port without TLS, which has its own count of requests.
///
/// # Errors
/// When it does not start.
pub fn nginx_over_tls(certificate: &Certificate) -> Result<(Server, u16)> {
    nginx_over_tls_with(certificate, &[])
}

/// The same with these variables in its environment.
///
/// # Errors
/// When it does not start.
pub fn nginx_over_tls_with(certificate: &Certificate, environment: &[(&str, &Path)]) -> Result<(Server, u16)> {
    let (folder, port, plain) = (host::folder()?, host::free_port()?, host::free_port()?);
    let (at, file, key) = (folder.path().display(), certificate.file(), certificate.key());
    let text = format!(
        "worker_processes 1; pid {at}/nginx.pid; error_log {at}/error.log; events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3;
  uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;
  server {{ listen 127.0.0.1:{plain}; location = /requests {{ stub_status; }} location / {{ return 200; }} }}
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {};
    location / {{ return 200 \"hello\\n\"; }}
  }}
}}
",
        file.display(),
        key.display()
    );
    let path = folder.path().join("nginx.conf");
    std::fs::write(&path, text)?;
    let mut command = Command::new(host::find("nginx").context("no nginx")?);
    command.arg("-p").arg(folder.path()).arg("-c").arg(path).args(["-g", "daemon off;"]);
    command.envs(environment.iter().copied());
    let process = Process::start("nginx-tls", folder.path(), command)?;
    let mut server = Server { process, port, folder };
    server.process.wait_ready(READY, |_| http::get(plain, "/").is_ok())?;
    Ok((server, plain))
}

/// An nginx that does not run yet.
#[derive(Debug)]
pub struct Later {
    /// Its port.
    pub port: u16,
}

impl Later {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(self) -> Result<Server> {
        Server::nginx_on(self.port, 1, None)
    }
}

/// The interpreter itself: what is in the path may be a script that starts it.
///
/// # Errors
/// When there is none.
pub fn python() -> Result<PathBuf> {
    host::real_program("python3", &["-c", "import os, sys; print(os.path.realpath(sys.executable))"])
}

fn nginx_configuration(folder: &Path, port: u16, workers: u32, upstream: Option<u16>) -> String {
    let folder = folder.display();
    let proxy = upstream.map(|upstream| {
        // Keep-alive to the upstream, as in most installations.
        let pool = format!("  upstream behind {{ server 127.0.0.1:{upstream}; keepalive 8; }}\n");
        let headers = "proxy_http_version 1.1; proxy_set_header Connection \"\";";
        (pool, format!("    location /proxy/ {{ proxy_pass http://behind/; {headers} }}\n"))
    });
    let (pool, location) = proxy.unwrap_or_default();
    format!(
        "worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 100000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
{pool}  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location = /requests {{ stub_status; }}
    location / {{ return 200 \"hello\\n\"; }}
    location /files/ {{ root {folder}; }}
    location /status/404 {{ return 404; }}
    location /status/500 {{ return 500; }}
{location}  }}
}}
"
    )
}

/// Python's `http.server` over TLS in `folder`, a thread for each connection, when it listens on `port`.
///
/// # Errors
/// When it does not start.
pub fn python_over_tls(folder: &Path, certificate: &Path, key: &Path, port: u16) -> Result<Process> {
    let mut command = Command::new(python()?);
    command.arg(compiled::subjects().join("tls/threads_server.py")).arg(port.to_string()).arg(certificate).arg(key);
    let mut process = Process::start("python-tls", folder, command)?;
    process.wait_ready(READY, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(process)
}
