//! What is read is not harmed: probes come and go under load, and libraries change under running programs.
//!
//! `FOR=600` has the first case go on for ten minutes; without it, it ends after [`CYCLES`] starts and stops.
#![allow(missing_docs)]

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin,
    certificate::Certificate,
    host, http,
    servers::{Server, nginx_over_tls, nginx_over_tls_with, python, python_over_tls},
    spantap::{Setup, Spantap},
    suite::Suite,
};

const ARRIVAL: Duration = Duration::from_secs(20);
/// Starts and stops of Spantap at least.
const CYCLES: u32 = 3;
/// What `FOR` may ask for, seconds.
const LONGEST: u64 = 3600;

/// `load.py PORT CONNECTIONS FILE`: asks until there is `FILE`, checks every answer, prints how many there were.
const LOAD: &str = r#"
import http.client, os, ssl, sys, threading
port, connections, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
counts, failed = [0] * connections, []
def run(own):
    try:
        while not os.path.exists(file):
            asking = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
            for _ in range(50):
                asking.request("GET", "/"); answer = asking.getresponse(); body = answer.read()
                if answer.status != 200 or body not in (b"ok", b"hello\n"): raise ValueError((answer.status, body))
                counts[own] += 1
            asking.close()
    except Exception as error: failed.append(repr(error))
threads = [threading.Thread(target=run, args=(own,)) for own in range(connections)]
for thread in threads: thread.start()
for thread in threads: thread.join()
if failed: sys.exit(failed[0])
print(sum(counts))
"#;

fn main() -> ExitCode {
    let tools = ["nginx", "curl", "python3", "openssl"].map(host::lacks);
    Suite::new("tls_harm", [host::lacks_root_and_btf()].into_iter().chain(tools), || Ok(()))
        .case("probes_come_and_go_under_load", |()| come_and_go())
        .case("a_library_is_replaced_under_a_running_program", |()| replaced())
        .run()
}

fn observe(port: u16, other: u16) -> Result<Spantap> {
    let yaml = format!("discovery:\n  instrument:\n    - open_ports: \"{port},{other}\"\ntrace_printer: counter\n");
    Setup::new(yaml).start()
}

/// Server exchanges over TLS and over plain text so far.
fn exchanges(spantap: &Spantap) -> Result<u64> {
    let own = spantap.own_metrics()?;
    let of =
        |s: &admin::Sample| s.name == "spantap_exchanges_total" && s.labels.get("side").is_some_and(|s| s == "server");
    Ok(admin::samples(&own).into_iter().filter(of).map(|s| s.value as u64).sum())
}

/// nginx's own count of requests, this one included.
fn requests(plain: u16) -> Result<u64> {
    let text = http::get(plain, "/requests")?.text();
    let numbers = text.lines().nth(2).context("no stub_status")?;
    numbers.split_whitespace().nth(2).and_then(|n| n.parse().ok()).context("no count of requests")
}

fn workers(master: u32) -> Result<String> {
    Ok(std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?)
}

/// A client of `LOAD`; ended with the test.
struct Load(Child);

impl Load {
    fn start(script: &Path, port: u16, stop: &Path) -> Result<Self> {
        let mut command = Command::new(python()?);
        command.arg(script).arg(port.to_string()).arg("4").arg(stop).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(command.process_group(0).spawn()?))
    }

    /// How many answers it had, every one of them right.
    fn end(mut self) -> Result<u64> {
        let output = self.0.stdout.take().context("no output")?;
        let said = std::io::read_to_string(output)?;
        let error = std::io::read_to_string(self.0.stderr.take().context("no error output")?)?;
        ensure!(self.0.wait()?.success(), "the client failed: {error}");
        Ok(said.trim().parse()?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn come_and_go() -> Result<()> {
    let certificate = Certificate::make()?;
    let (mut nginx, plain) = nginx_over_tls(&certificate)?;
    let folder = host::folder()?;
    let (script, stop) = (folder.path().join("load.py"), folder.path().join("stop"));
    std::fs::write(&script, LOAD)?;
    let other_port = host::free_port()?;
    let mut other = python_over_tls(folder.path(), &certificate.file(), &certificate.key(), other_port)?;
    let (children, first) = (workers(nginx.process.pid())?, requests(plain)?);
    let loads = [Load::start(&script, nginx.port, &stop)?, Load::start(&script, other_port, &stop)?];
    let asked: u64 = std::env::var("FOR").ok().and_then(|text| text.parse().ok()).unwrap_or(0).min(LONGEST);
    let end = Instant::now() + Duration::from_secs(asked);
    let (mut cycles, mut curls) = (0, 0);
    while cycles < CYCLES || Instant::now() < end {
        let spantap = observe(nginx.port, other_port)?;
        host::wait_for("exchanges over TLS", ARRIVAL, || exchanges(&spantap).ok().filter(|n| *n > 50))?;
        // Programs that begin and end meanwhile, with the same library.
        let url = format!("https://127.0.0.1:{}/", nginx.port);
        let ended =
            Command::new("curl").args(["-s", "-S", "-k", "-o", "/dev/null", "--max-time", "20", &url]).output()?;
        ensure!(ended.status.success(), "curl: {}", String::from_utf8_lossy(&ended.stderr));
        curls += 1;
        if cycles % 2 == 0 {
            spantap.stop()?;
        } else {
            // Killed, its probes go all the same.
            drop(spantap);
        }
        cycles += 1;
    }
    std::fs::write(&stop, "")?;
    let [of_nginx, of_python] = loads.map(Load::end);
    let (of_nginx, of_python) = (of_nginx?, of_python?);
    println!("{cycles} starts, {of_nginx} requests of nginx, {of_python} of Python");
    ensure!(nginx.process.is_running() && other.is_running(), "a server has ended");
    ensure!(workers(nginx.process.pid())? == children, "nginx has other workers than before");
    // Both questions for the count are in the difference, one of them before it.
    let counted = requests(plain)? - first - 1;
    ensure!(counted == of_nginx + curls, "nginx counts {counted} requests, its clients made {}", of_nginx + curls);
    ensure!(of_python > 0, "nobody asked Python");
    Ok(())
}

/// What a running process has mapped as libssl.
fn library(pid: u32) -> Result<PathBuf> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.contains("/libssl.so")).context("no libssl is mapped")?;
    line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from).context("no path")
}

fn ask(port: u16) -> Result<()> {
    let url = format!("https://127.0.0.1:{port}/");
    let asked = Command::new("curl").args(["-s", "-S", "-k", "-f", "--max-time", "20", &url]).output()?;
    ensure!(asked.status.success() && asked.stdout == b"hello\n", "curl: {}", String::from_utf8_lossy(&asked.stderr));
    Ok(())
}

fn replaced() -> Result<()> {
    const ASKED: u64 = 5;
    let certificate = Certificate::make()?;
    let original = library(nginx_over_tls(&certificate)?.0.process.pid())?;
    let folder = host::folder()?;
    let own = folder.path().join(original.file_name().context("no name")?);
    std::fs::copy(&original, &own)?;
    let (mut nginx, plain): (Server, u16) = nginx_over_tls_with(&certificate, &[("LD_LIBRARY_PATH", folder.path())])?;
    ensure!(library(nginx.process.pid())? == own, "nginx does not use the copy of its library");

    let spantap = observe(nginx.port, plain)?;
    let reported = |spantap: &Spantap, least: u64| {
        host::wait_for("exchanges", ARRIVAL, || exchanges(spantap).ok().filter(|n| *n >= least))
    };
    host::wait_for("TLS to be read", ARRIVAL, || {
        ask(nginx.port).ok()?;
        exchanges(&spantap).ok().filter(|n| *n > 0)
    })?;
    // As package managers do it: another file by the same name, the old one is still mapped.
    let next = folder.path().join("next");
    std::fs::copy(&original, &next)?;
    std::fs::rename(&next, &own)?;
    let before = exchanges(&spantap)?;
    (0..ASKED).try_for_each(|_| ask(nginx.port))?;
    reported(&spantap, before + ASKED)?;
    spantap.stop()?;

    // Whoever comes now finds another file by that name: the one that is mapped is read all the same.
    let spantap = observe(nginx.port, plain)?;
    host::wait_for("TLS to be read", ARRIVAL, || {
        ask(nginx.port).ok()?;
        exchanges(&spantap).ok().filter(|n| *n > 0)
    })?;
    let before = exchanges(&spantap)?;
    (0..ASKED).try_for_each(|_| ask(nginx.port))?;
    reported(&spantap, before + ASKED)?;
    ensure!(nginx.process.is_running(), "nginx has ended");
    spantap.stop().map(drop)
}
