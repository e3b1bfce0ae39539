//! Where the functions of a TLS library are found: in a root of the program's own on an overlay, as containers have it, shared
//! or linked into a program that was stripped, with its symbols in a file apart.
#![allow(missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result};
use spantap_tests::{
    certificate::Certificate,
    collector::{self, Collector},
    compiled, host,
    https::{self, lost, nothing_lost, own_peer, succeeds},
    process::Process,
    spantap::{Setup, Spantap},
    suite::{Suite, World},
    telemetry::Kind,
};

const ARRIVAL: Duration = Duration::from_secs(20);
/// Names of the programs in the folder of the test, and of what each has linked into it.
const SHARED: &str = "shared";
const APART: &str = "symbols-apart";
const STRIPPED: &str = "stripped";

struct Found {
    spantap: Spantap,
    collector: Collector,
    servers: Vec<(&'static str, u16, Process)>,
    _folder: tempfile::TempDir,
    _certificate: Certificate,
}

impl World for Found {
    fn logs(&self) -> String {
        self.spantap.tail()
    }
}

fn main() -> ExitCode {
    let tools = ["cc", "objcopy", "unshare", "openssl", "python3"].map(host::lacks);
    let library =
        ["/usr/lib/x86_64-linux-gnu/libssl.a", "/usr/lib64/libssl.a"].into_iter().any(|at| Path::new(at).exists());
    let library = (!library).then(|| "there is no libssl.a".into());
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), library].into_iter().chain(tools);
    Suite::new("tls_found", lacks, start)
        .case("a_library_in_a_root_of_its_own", |found| read(found, SHARED))
        .case("symbols_in_a_debug_file_by_build_id", |found| read(found, APART))
        .case("no_symbols_anywhere_is_told", not_read)
        .run()
}

/// Compiles the server to `folder/name`.
fn compile(folder: &Path, name: &str, libraries: &[&str]) -> Result<PathBuf> {
    let program = folder.join(name);
    let mut command = Command::new("cc");
    // A build id of its own, though the sources are the same.
    command.args(["-O1", "-Wall", "-Wl,--build-id=uuid", "-o"]).arg(&program);
    command.arg(compiled::subjects().join("tls/server.c")).args(libraries);
    succeeds(&mut command)?;
    Ok(program)
}

fn build_id(program: &Path) -> Result<String> {
    let output = Command::new("readelf").arg("-n").arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    let id = text.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).context("no build id")?;
    Ok(id.trim().to_owned())
}

fn start() -> Result<Found> {
    let (folder, certificate) = (host::folder()?, Certificate::make()?);
    let at = folder.path();
    let linked = ["-l:libssl.a", "-l:libcrypto.a", "-ldl", "-pthread"];
    compile(at, SHARED, &["-lssl", "-lcrypto"])?;
    for name in [APART, STRIPPED] {
        let program = compile(at, name, &linked)?;
        let symbols = at.join(format!("{name}.debug"));
        succeeds(Command::new("objcopy").arg("--only-keep-debug").arg(&program).arg(&symbols))?;
        succeeds(Command::new("strip").arg("--strip-all").arg(&program))?;
        if name == APART {
            let id = build_id(&program)?;
            let (begin, rest) = id.split_at_checked(2).context("a short build id")?;
            let place = at.join("upper/lib/debug/.build-id").join(begin);
            fs::create_dir_all(&place)?;
            fs::rename(&symbols, place.join(format!("{rest}.debug")))?;
        }
    }
    for name in ["root/usr", "root/dev", "upper"] {
        fs::create_dir_all(at.join(name))?;
    }
    for name in ["lib", "lib64", "bin"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), at.join("root").join(name))?;
    }
    for (from, to) in [(certificate.file(), "cert.pem"), (certificate.key(), "key.pem")] {
        fs::copy(from, at.join("root").join(to))?;
    }
    let mut servers = Vec::new();
    for name in [SHARED, APART, STRIPPED] {
        fs::copy(at.join(name), at.join("root").join(name))?;
        let port = host::free_port()?;
        // Folders to write belong to one overlay at a time.
        let script = format!(
            "set -e; cd {}; mount -t overlay -o lowerdir=/usr,upperdir=upper-{name},workdir=work-{name} overlay root/usr; \
             exec chroot root /{name} {port} /cert.pem /key.pem",
            at.display()
        );
        succeeds(Command::new("cp").arg("-R").arg(at.join("upper")).arg(at.join(format!("upper-{name}"))))?;
        fs::create_dir(at.join(format!("work-{name}")))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", &script]);
        let mut process = Process::start(name, at, command)?;
        process.wait_ready(ARRIVAL, |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        servers.push((name, port, process));
    }
    let collector = Collector::start()?;
    let ports: Vec<String> = servers.iter().map(|(_, port, _)| port.to_string()).collect();
    let spantap = Setup::observing(&[&format!("{{open_ports: \"{}\"}}", ports.join(","))], &collector).start()?;
    host::wait_for("TLS of two servers to be read", ARRIVAL, || {
        let text = spantap.own_metrics().ok()?;
        let read = |name: &str| text.lines().any(|line| line.contains("state=\"read\"") && line.contains(name));
        (read(SHARED) && read(APART)).then_some(())
    })?;
    Ok(Found { spantap, collector, servers, _folder: folder, _certificate: certificate })
}

impl Found {
    fn port(&self, name: &str) -> u16 {
        self.servers.iter().find(|(known, ..)| *known == name).map_or(0, |(_, port, _)| *port)
    }
}

fn read(found: &mut Found, name: &str) -> Result<()> {
    let (before, port, prefix) = (found.spantap.losses()?, found.port(name), format!("/{name}"));
    https::ask(port, &prefix, [5, 6, 1], &[])?;
    own_peer(&https::spans(&mut found.collector, ARRIVAL, (Kind::Server, port), &prefix, 30)?)?;
    nothing_lost(&before, &found.spantap.losses()?)
}

fn not_read(found: &mut Found) -> Result<()> {
    let before = lost(&found.spantap.losses()?, "encrypted");
    https::ask(found.port(STRIPPED), "/stripped", [4, 6, 1], &[])?;
    host::wait_for("connections to count as encrypted", ARRIVAL, || {
        found.spantap.losses().ok().filter(|losses| lost(losses, "encrypted") == before + 4)
    })?;
    let told = |line: &str| line.contains(STRIPPED) && line.contains("OpenSSL, static");
    host::wait_for("the program to be told", ARRIVAL, || {
        found.spantap.own_metrics().ok().filter(|text| text.lines().any(told))
    })
    .map(drop)
}
