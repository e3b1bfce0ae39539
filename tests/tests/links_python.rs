//! Links inside of CPython's asyncio: from a request to those that are sent in its contexts.
//!
//! The truth is in the path: the number in the path that the program is asked for is in the path that it asks for.
//! `REQUESTS=1000 cargo test -p spantap-tests --test links_python -- --nocapture` makes that many, over 1, 20 and 100
//! connections, and takes every version with both.
#![allow(missing_docs)]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    certificate::Certificate,
    collector, compiled, host, load,
    loops::{self, Score},
    observed::{self, Observed},
    python_environment::Python,
    relays::Relay,
    servers,
    spantap::Setup,
    suite::{Suite, World},
};

const ARRIVAL: Duration = Duration::from_secs(90);
const READY: Duration = Duration::from_secs(30);
const SCRIPT: &str = "asyncio_relay.py";
/// Debian's, which is stripped, with all of CPython in the program.
const DEBIAN: &str = "/usr/bin/python3.11";
/// Server, event loop, and what its handlers do.
const CASES: &[(&str, &str, &[&str])] = &[
    ("aiohttp", "asyncio", &["now", "later", "new", "two", "three", "queued", "thread", "callback"]),
    ("uvicorn", "asyncio", &["now", "later", "three", "queued", "thread"]),
    ("uvicorn", "uvloop", &["now", "later", "new", "two", "three", "queued", "callback"]),
    ("fastapi", "asyncio", &["later", "sync"]),
    ("streams", "asyncio", &["later"]),
];
type OverTls = (&'static str, &'static str, (bool, bool), &'static [&'static str]);
/// The same over TLS: whether it is asked so, and whether it asks so.
const OVER_TLS: &[OverTls] = &[
    ("aiohttp", "asyncio", (false, true), &["now", "later", "three", "thread", "httpx"]),
    ("uvicorn", "uvloop", (false, true), &["later", "three"]),
    ("uvicorn", "asyncio", (true, true), &["later"]),
    ("uvicorn", "uvloop", (true, true), &["later"]),
    // The first request of a connection may come with the end of the handshake: its task does not wait for it then.
    ("streams", "asyncio", (true, true), &["later"]),
];

fn main() -> ExitCode {
    let requests = std::env::var("REQUESTS").ok().and_then(|number| number.parse().ok());
    let thorough = requests.is_some();
    let (requests, connections): (u64, &[u64]) = requests.map_or((200, &[20]), |number| (number, &[1, 20, 100]));
    let python = Python::of_pyenv("3.11").map_or_else(servers::python, Ok);
    // What cannot be installed is missing.
    let with_packages = |program: PathBuf| Python::of(program).map_err(|error| Python::lacks(&error));
    let python = python.map_err(|_| "no python3".to_owned()).and_then(with_packages);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), python.as_ref().err().cloned()];
    // Without symbols not all is linked: the cases below say of what.
    let stripped = match python.as_ref().map(Python::has_symbols) {
        Ok(Ok(false)) => Some("python3 is stripped".to_owned()),
        Ok(Err(error)) => Some(format!("{error:#}")),
        _ => None,
    };
    let mut suite = Suite::new("links_python", lacks, world);
    for (server, events, modes) in CASES {
        for mode in *modes {
            for connections in connections {
                let name = format!("{server}_{events}_{mode}_{connections}");
                let subject = python.clone().map(|python| Subject { python, server, events, tls: (false, false) });
                let lacks = stripped.clone().filter(|_| matches!(*server, "aiohttp" | "streams"));
                suite =
                    suite.case_unless(lacks, name, move |world| good(world, subject, mode, (requests, *connections)));
            }
        }
    }
    for (server, events, tls, modes) in OVER_TLS {
        for (mode, connections) in modes.iter().flat_map(|mode| connections.iter().map(move |count| (*mode, *count))) {
            let part = if tls.0 { "behind_tls" } else { "asking_over_tls" };
            let name = format!("{server}_{events}_{part}_{mode}_{connections}");
            let subject = python.clone().map(|python| Subject { python, server, events, tls: *tls });
            let lacks = stripped.clone().filter(|_| matches!(*server, "aiohttp" | "streams"));
            suite = suite.case_unless(lacks, name, move |world| match (*server, tls.0) {
                ("streams", true) => but_first(world, subject, mode, (requests, connections)),
                _ => good(world, subject, mode, (requests, connections)),
            });
        }
    }
    let lacks = stripped.clone();
    let subject =
        python.clone().map(|python| Subject { python, server: "aiohttp", events: "uvloop", tls: (false, false) });
    for mode in ["later", "three"] {
        let subject = subject.clone();
        suite = suite.case_unless(lacks.clone(), format!("aiohttp_uvloop_{mode}_has_none_wrong"), move |world| {
            none_wrong(world, subject, mode, requests)
        });
    }
    let after =
        python.clone().map(|python| Subject { python, server: "uvicorn", events: "asyncio", tls: (false, false) });
    suite = suite.case("after_the_answer_has_none", move |world| none(world, after, "after", requests));
    for (version, of_all) in [("3.9", "uvicorn"), ("3.10", ""), ("3.12", "aiohttp"), ("3.13", "uvicorn")] {
        let servers = [("aiohttp", "asyncio"), ("uvicorn", "uvloop")];
        let servers = servers.into_iter().filter(|(server, _)| thorough || *server == of_all);
        let with_version = || {
            let program = Python::of_pyenv(version).ok_or_else(|| format!("no Python {version} of pyenv"));
            program.and_then(with_packages)
        };
        for (server, events) in servers {
            let python = with_version();
            let lacks = python.as_ref().err().cloned();
            let subject = python.map(|python| Subject { python, server, events, tls: (false, false) });
            let name = format!("version_{version}_{server}_{events}");
            suite = suite.case_unless(lacks, name, move |world| good(world, subject, "later", (requests, 20)));
        }
    }
    let debian = || Some(PathBuf::from(DEBIAN)).filter(|path| path.is_file()).ok_or_else(|| format!("no {DEBIAN}"));
    let debian = debian().and_then(with_packages);
    let subject =
        |server| debian.clone().map(|python| Subject { python, server, events: "asyncio", tls: (false, false) });
    let (lacks, uvicorn, aiohttp) = (debian.as_ref().err().cloned(), subject("uvicorn"), subject("aiohttp"));
    suite
        .case_unless(lacks.clone(), "stripped_uvicorn", move |world| good(world, uvicorn, "later", (requests, 20)))
        // What wakes its tasks has no symbol there.
        .case_unless(lacks, "stripped_aiohttp_has_none", move |world| none(world, aiohttp, "later", requests))
        .run()
}

/// A way to serve.
#[derive(Debug, Clone)]
struct Subject {
    python: Python,
    server: &'static str,
    events: &'static str,
    /// Whether it is asked over TLS, and whether it asks over TLS.
    tls: (bool, bool),
}

impl Subject {
    fn name(&self) -> String {
        let file = self.python.program.display();
        let tls = match self.tls {
            (false, false) => "",
            (true, false) => " behind TLS",
            (false, true) => " asking over TLS",
            (true, true) => " with TLS on both sides",
        };
        format!("{file} {} {}{tls}", self.server, self.events)
    }
}

/// A server that runs.
struct Running {
    name: String,
    service: String,
    relay: Relay,
}

/// The usual world, the script in a folder by which it is selected, and servers.
struct Asyncio {
    observed: Observed,
    folder: tempfile::TempDir,
    runs: u32,
    near: Option<Running>,
    /// What stands before the near one, if that is asked over TLS.
    front: Option<Running>,
    /// By whether it answers over TLS.
    far: HashMap<bool, Running>,
    certificate: Certificate,
}

impl World for Asyncio {
    fn logs(&self) -> String {
        self.observed.logs()
    }
}

fn world() -> Result<Asyncio> {
    let folder = host::folder()?;
    std::fs::copy(compiled::subjects().join(SCRIPT), folder.path().join(SCRIPT))?;
    let selected = format!("cmd_args: \"*{}/{SCRIPT}*\"", folder.path().display());
    let observed = Observed::start(|collector| Ok(Setup::observing(&[&observed::subjects()?, &selected], collector)))?;
    let certificate = Certificate::make()?;
    Ok(Asyncio { observed, folder, runs: 0, near: None, front: None, far: HashMap::new(), certificate })
}

impl Asyncio {
    /// Starts a server. The script of another folder is not observed.
    fn start(&mut self, subject: &Subject, script: &Path, other: u16, asks_for: &str) -> Result<Running> {
        self.runs += 1;
        let service = format!("python-{}", self.runs);
        let command = |port: u16| {
            let mut command = Command::new(&subject.python.program);
            command.arg(script).args([subject.server, subject.events, &port.to_string(), &other.to_string()]);
            command.env("PYTHONPATH", &subject.python.packages).env("ASKS_FOR", asks_for);
            if subject.tls.0 {
                command.env("SERVES_TLS", self.certificate.pair());
            }
            if subject.tls.1 {
                command.env("ASKS_TLS", "1");
            }
            Ok(command)
        };
        let relay = match subject.tls.0 {
            true => Relay::start_over_tls(&service, command)?,
            false => Relay::start(&service, command)?,
        };
        Ok(Running { name: subject.name(), service, relay })
    }

    /// The server that is wanted is running, and linked; others of its kind are not.
    fn serve(&mut self, subject: &Subject) -> Result<()> {
        if self.near.as_ref().is_some_and(|running| running.name == subject.name()) {
            return Ok(());
        }
        (self.near, self.front) = (None, None);
        let plain = |tls| Subject { server: "streams", events: "asyncio", tls, ..subject.clone() };
        let script = compiled::subjects().join(SCRIPT);
        let over_tls = subject.tls.1;
        if !self.far.contains_key(&over_tls) {
            let far = self.start(&plain((over_tls, false)), &script, 1, "out")?;
            self.far.insert(over_tls, far);
        }
        let far = self.far.get(&over_tls).context("no far end")?.relay.port;
        let near = self.start(subject, &self.folder.path().join(SCRIPT), far, "out")?;
        if subject.tls.0 {
            self.front = Some(self.start(&plain((false, true)), &script, near.relay.port, "in")?);
        }
        self.observed.wait_observing()?;
        let pid = format!("pid={} ", near.relay.process.pid());
        let spantap = self.observed.spantap()?;
        host::wait_for("the program to be linked", READY, || {
            let events = format!("uvloop={}", subject.events == "uvloop");
            let parts = ["linking requests of CPython", &pid, &events];
            let is_said = |line: &str| parts.into_iter().all(|part| line.contains(part));
            spantap.forwarder().log().lines().any(is_said).then_some(())
        })?;
        self.near = Some(near);
        Ok(())
    }
}

/// Asks for numbers, and tells how the links are.
fn run(
    world: &mut Asyncio,
    subject: Result<Subject, String>,
    mode: &'static str,
    (requests, connections): (u64, u64),
) -> Result<Score> {
    let subject = subject.map_err(anyhow::Error::msg)?;
    world.serve(&subject)?;
    let near = world.near.as_ref().context("no server")?;
    // Of other connections the same paths are other ones.
    let within = format!("/{mode}/in/{connections}-");
    let asked = world.front.as_ref().unwrap_or(near).relay.port;
    load::make(asked, &format!("{within}{{n}}"), requests, connections)?;
    let asks = |number: u64| {
        let path = format!("/{mode}/out/{connections}-{number}");
        let several = |count| (0..count).map(|n| format!("{path}/{n}")).collect();
        match mode {
            "two" => several(2),
            "three" => several(3),
            _ => vec![path],
        }
    };
    let score = world.observed.collector.wait_until(ARRIVAL, |telemetry| {
        let paths = (|number| format!("{within}{number}"), asks);
        loops::inside(telemetry, &near.service, requests, paths, &["python-context"])
    })?;
    println!("{} {mode} {connections}: right, wrong, unlinked: {score:?}", subject.name());
    Ok(score)
}

fn good(
    world: &mut Asyncio,
    subject: Result<Subject, String>,
    mode: &'static str,
    (requests, connections): (u64, u64),
) -> Result<()> {
    run(world, subject, mode, (requests, connections))?.is_good()
}

/// uvloop looks for requests between an answer and the step of the task that will wait for the next one: what has come by then wakes
/// nobody, and is not linked. That may be all of them.
fn none_wrong(world: &mut Asyncio, subject: Result<Subject, String>, mode: &'static str, requests: u64) -> Result<()> {
    let score = run(world, subject, mode, (requests, 20))?;
    ensure!(score.1 == 0, "{score:?}");
    Ok(())
}

/// As good as any other, but for the first request of each connection. What stands before the server may make a few more of them.
fn but_first(
    world: &mut Asyncio,
    subject: Result<Subject, String>,
    mode: &'static str,
    (requests, connections): (u64, u64),
) -> Result<()> {
    let score = run(world, subject, mode, (requests, connections))?;
    ensure!(score.1 == 0 && score.0 > 0 && score.2 <= 2 * connections, "{score:?}");
    Ok(())
}

fn none(world: &mut Asyncio, subject: Result<Subject, String>, mode: &'static str, requests: u64) -> Result<()> {
    let score = run(world, subject, mode, (requests, 20))?;
    ensure!(score == Score(0, 0, requests), "{score:?}");
    Ok(())
}
