//! Two agents at once, each with a hook set and a forwarder of its own: they tell the same exchanges, times aside, or what is missing is
//! counted. `REQUESTS=100000 cargo test -p spantap-tests --test differential -- --nocapture` for a longer run, and its figures.
#![allow(missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use spantap_tests::{
    admin, host, load,
    place::{LIMIT, Place, observed},
    process::Process,
    suite::{Suite, say_skip},
};

const FORWARDER: [&str; 7] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
/// What differs from one agent to another: times, and numbers that are made up.
const OWN: [&str; 5] = ["time", "duration_seconds", "queue_seconds", "trace_id", "span_id"];
/// Threads that wait in a receive.
const WAITING: usize = 64;

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), host::lacks("setpriv")];
    Suite::new("differential", lacks, World::start)
        .case("each_set_tells_the_same_of_a_load", |world| world.compare(load_of(requests())))
        .case("each_set_tells_the_same_of_64_threads_that_wait", |world| world.compare((WAITING as u64, waiting)))
        .run()
}

fn requests() -> u64 {
    std::env::var("REQUESTS").ok().and_then(|number| number.parse().ok()).unwrap_or(5_000)
}

/// A line of the console.
type Fields = serde_json::Map<String, serde_json::Value>;
type Traffic = (u64, fn(u16, u64) -> Result<()>);

fn load_of(requests: u64) -> Traffic {
    (requests, |port, requests| load::make(port, "/d/{n}", requests, 16))
}

/// Every connection is open, and the thread at its other end waits in a receive, before the first request is made.
fn waiting(port: u16, connections: u64) -> Result<()> {
    let open = (0..connections).map(|_| TcpStream::connect(("127.0.0.1", port)));
    let open = open.collect::<std::io::Result<Vec<_>>>()?;
    host::wait_for("the threads that wait", LIMIT, || (receiving().ok()? >= open.len()).then_some(()))?;
    let threads = open.into_iter().enumerate().map(|(number, mut stream)| {
        thread::spawn(move || -> Result<()> {
            stream.set_read_timeout(Some(LIMIT))?;
            write!(stream, "GET /d/{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
            Ok(())
        })
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
}

/// How many threads of this process are in recvfrom(2), by `/proc/self/task/ID/syscall` (proc(5)): 45 on x86-64.
fn receiving() -> Result<usize> {
    let tasks = fs::read_dir("/proc/self/task")?;
    let calls = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("syscall")).ok());
    Ok(calls.filter(|call| call.starts_with("45 ")).count())
}

/// Answers each request with a body as long as its number says, until the other end closes.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        head.extend(piece.get(..count).unwrap_or_default());
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&head);
        let number = text.split_whitespace().nth(1).and_then(|path| path.rsplit('/').next()?.parse::<usize>().ok());
        let length = number.unwrap_or(0) % 3000;
        let close = text.contains("Connection: close");
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
        if length > 0 {
            stream.write_all(&vec![b'x'; length])?;
        }
        head.clear();
        if close {
            return Ok(());
        }
    }
}

/// This process is what is watched: it serves, and asks itself.
struct World {
    port: u16,
    sets: Vec<&'static str>,
}

impl spantap_tests::suite::World for World {
    fn logs(&self) -> String {
        String::new()
    }
}

/// An agent and its forwarder.
struct Watcher {
    set: &'static str,
    forwarder: Process,
    agent: Process,
    _place: Place,
}

/// What a watcher told.
struct Told {
    set: &'static str,
    exchanges: BTreeMap<String, u64>,
    lost: admin::Losses,
}

impl World {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", host::free_port()?))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(stream));
            }
        });
        let mut sets = Vec::new();
        for set in ["fentry", "tracepoint", "kprobe"] {
            match Watcher::start(port, set)? {
                Ok(mut watcher) => {
                    watcher.stop()?;
                    sets.push(set);
                }
                Err(why) => say_skip(&format!("differential: the hook set {set}"), &why),
            }
        }
        // One that is alone is held against itself.
        if let [only] = sets[..] {
            sets.push(only);
        }
        ensure!(!sets.is_empty(), "no hook set can be had");
        Ok(Self { port, sets })
    }

    fn compare(&mut self, (requests, traffic): Traffic) -> Result<()> {
        for pair in self.sets.windows(2) {
            let mut watchers = Vec::new();
            for set in pair {
                watchers.push(Watcher::start(self.port, set)?.map_err(anyhow::Error::msg)?);
            }
            traffic(self.port, requests)?;
            let told: Result<Vec<Told>> = watchers.into_iter().map(Watcher::told).collect();
            judge(requests, &told?)?;
        }
        Ok(())
    }
}

fn judge(requests: u64, told: &[Told]) -> Result<()> {
    for Told { set, exchanges, lost } in told {
        let (all, counted) = (exchanges.values().sum::<u64>(), admin::exchanges(lost));
        eprintln!("{set}: {requests} requests, {all} exchanges of both sides, {counted} counted as lost: {lost:?}");
        ensure!(
            all + counted == 2 * requests,
            "{set}: {all} exchanges of {requests} requests, {counted} lost: {lost:?}"
        );
        let twice = exchanges.iter().find(|(_, times)| **times > 1);
        ensure!(twice.is_none(), "{set}: told twice: {twice:?}");
    }
    let [one, other] = told else { bail!("{} watchers", told.len()) };
    let may_differ = admin::exchanges(&one.lost) + admin::exchanges(&other.lost);
    let only = |here: &Told, there: &Told| {
        here.exchanges.keys().filter(|key| !there.exchanges.contains_key(*key)).cloned().collect::<Vec<_>>()
    };
    let (here, there) = (only(one, other), only(other, one));
    ensure!(
        (here.len() + there.len()) as u64 <= may_differ,
        "only {}: {:?}\nonly {}: {:?}",
        one.set,
        here.get(..here.len().min(3)),
        other.set,
        there.get(..there.len().min(3))
    );
    Ok(())
}

impl Watcher {
    /// The inner error: this hook set cannot be had here.
    fn start(port: u16, set: &'static str) -> Result<Result<Self, String>> {
        let place = Place::new(port, &format!("  hooks: {set}\n  tls: \"off\"\n"))?;
        let forwarder = place.start_until(&FORWARDER, "spantap", &["forward"], "waiting for the agent")?;
        let mut agent = place.start(&[], "spantap-agent", &[])?;
        host::wait_for("the agent's start", LIMIT, || {
            (agent.log().contains("streaming to the forwarder") || !agent.is_running()).then_some(())
        })?;
        if !agent.is_running() {
            let log = agent.log();
            return Ok(Err(log.lines().last().unwrap_or("it ended").to_owned()));
        }
        let mut watcher = Self { set, forwarder, agent, _place: place };
        observed(&mut watcher.forwarder, port, "/ready").with_context(|| watcher.agent.tail())?;
        Ok(Ok(watcher))
    }

    fn stop(&mut self) -> Result<()> {
        for process in [&mut self.agent, &mut self.forwarder] {
            let ended = process.stop(LIMIT)?;
            ensure!(ended.code() == Some(0), "ended with {ended}\n{}", process.tail());
        }
        Ok(())
    }

    fn told(mut self) -> Result<Told> {
        // What was observed last is printed within its tick.
        self.stop()?;
        let books = admin::summary(&self.forwarder.log()).context("no summary")?;
        ensure!(books.adds_up, "{}: the books do not add up: {books:?}", self.set);
        let lines = self.forwarder.output().lines().map(serde_json::from_str).collect::<Result<Vec<Fields>, _>>()?;
        let text = |fields: &Fields, name: &str| Some(fields.get(name)?.as_str()?.to_owned());
        // A parent's number is made up as well: who it is counts.
        let names: BTreeMap<String, String> = lines
            .iter()
            .filter_map(|line| {
                Some((text(line, "span_id")?, format!("{} {}", text(line, "side")?, text(line, "path")?)))
            })
            .collect();
        let mut exchanges = BTreeMap::new();
        for mut fields in lines {
            if text(&fields, "path").is_some_and(|path| path.starts_with("/d/")) {
                if let Some(parent) = text(&fields, "parent_span_id") {
                    let name = names.get(&parent).with_context(|| format!("a parent that was not told: {fields:?}"))?;
                    fields.insert("parent_span_id".to_owned(), name.clone().into());
                }
                OWN.iter().for_each(|own| drop(fields.remove(*own)));
                *exchanges.entry(serde_json::to_string(&fields)?).or_default() += 1;
            }
        }
        Ok(Told { set: self.set, exchanges, lost: books.losses })
    }
}
