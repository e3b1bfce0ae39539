//! Two agents at once, each with a hook set and a forwarder of its own: they tell the same exchanges, times aside, or what is missing is
//! counted. `REQUESTS=100000 cargo test -p spantap-tests --test differential -- --nocapture` for a longer run, and its figures.
#![allow(missing_docs)]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use spantap_tests::{
    admin, host, kernel_programs, load,
    place::LIMIT,
    setting::Setting,
    sockmap::{self, Sockmap},
    suite::{Suite, say_skip},
    watcher::{Told, Watcher},
};

/// Requests of a load between two looks whether all of it was told.
const PIECE: u64 = 1_000;
/// Connections of a load.
const CONNECTIONS: u64 = 16;
/// Threads that wait in a receive.
const WAITING: usize = 64;

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), host::lacks("setpriv")];
    let groups = sockmap::lacks_groups();
    Suite::new("differential", lacks, World::start)
        .case("each_set_tells_the_same_of_a_load", |world| world.compare(load_of(requests())))
        .case("each_set_tells_the_same_of_64_threads_that_wait", |world| world.compare((WAITING as u64, waiting)))
        .case_unless(groups.clone(), "each_set_tells_the_same_with_a_program_on_the_sockets", |world| {
            world.compare_with_sockmap(load_of(requests()))
        })
        .case_unless(groups, "each_set_tells_the_same_of_64_threads_with_a_program_on_the_sockets", |world| {
            world.compare_with_sockmap((WAITING as u64, waiting))
        })
        .case("cost_of_sets_that_tell_all", World::cost)
        .run()
}

fn requests() -> u64 {
    std::env::var("REQUESTS").ok().and_then(|number| number.parse().ok()).unwrap_or(5_000)
}

type Traffic = (u64, fn(u16, u64, &mut [Watcher]) -> Result<()>);

fn load_of(requests: u64) -> Traffic {
    (requests, in_pieces)
}

/// As fast as they can be made, in pieces that are told before the next one.
fn in_pieces(port: u16, requests: u64, watchers: &mut [Watcher]) -> Result<()> {
    timed(port, requests, watchers).map(drop)
}

/// The same; how many requests a second were made, without the time in between.
fn timed(port: u16, requests: u64, watchers: &mut [Watcher]) -> Result<f64> {
    let mut took = Duration::ZERO;
    for piece in 0..requests.div_ceil(PIECE) {
        let begun = Instant::now();
        load::make(port, &format!("/d/{piece}/{{n}}"), PIECE.min(requests - piece * PIECE), CONNECTIONS)?;
        took += begun.elapsed();
        watchers.iter_mut().try_for_each(|watcher| watcher.catch_up(port))?;
    }
    Ok(requests as f64 / took.as_secs_f64())
}

/// Every connection is open, and the thread at its other end waits in a receive, before the first request is made.
fn waiting(port: u16, connections: u64, watchers: &mut [Watcher]) -> Result<()> {
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
    threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))?;
    watchers.iter_mut().try_for_each(|watcher| watcher.catch_up(port))
}

/// How many threads of this process are in recvfrom(2), by `/proc/self/task/ID/syscall` (proc(5)): 45 on x86-64.
fn receiving() -> Result<usize> {
    let tasks = fs::read_dir("/proc/self/task")?;
    let calls = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("syscall")).ok());
    Ok(calls.filter(|call| call.starts_with("45 ")).count())
}

/// Answers each request with a body as long as its number says, until the other end closes.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    // A body is not to wait for the acknowledgement of its head, 40 ms.
    stream.set_nodelay(true)?;
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
            traffic(self.port, requests, &mut watchers)?;
            let told: Result<Vec<Told>> = watchers.into_iter().map(Watcher::told).collect();
            judge(requests, &told?)?;
        }
        Ok(())
    }

    /// The same, while both ends of each connection are in a table of somebody else's, whose program sees all that is sent.
    fn compare_with_sockmap(&mut self, traffic: Traffic) -> Result<()> {
        let sockmap = Sockmap::start(self.port)?;
        self.compare(traffic)?;
        let (seen, pairs) = (sockmap.seen()?, self.sets.windows(2).count() as u64);
        eprintln!("in the table: {} sockets, {} sends", seen.sockets, seen.sends);
        // Each request and each answer is a send, most answers are two.
        ensure!(seen.sockets > 0 && seen.sends >= 2 * traffic.0 * pairs, "it was not on all sockets: {seen:?}");
        Ok(())
    }

    /// Prints what each set takes: requests without and with it in turns, then the time of its programs by the kernel's statistics.
    fn cost(&mut self) -> Result<()> {
        const ROUNDS: u64 = 3;
        let (requests, port) = (requests(), self.port);
        let mut sets = self.sets.clone();
        sets.dedup();
        for set in sets {
            let mut ratios = Vec::new();
            for _ in 0..ROUNDS {
                let without = timed(port, requests, &mut [])?;
                let mut watchers = [Watcher::start(port, set)?.map_err(anyhow::Error::msg)?];
                let with = timed(port, requests, &mut watchers)?;
                watchers.into_iter().try_for_each(|watcher| all_told(requests, &watcher.told()?))?;
                eprintln!("{set}: {without:.0} requests a second without, {with:.0} with");
                ratios.push(with / without);
            }
            ratios.sort_by(f64::total_cmp);
            let _counted = Setting::set("kernel.bpf_stats_enabled", "1")?;
            let mut watchers = [Watcher::start(port, set)?.map_err(anyhow::Error::msg)?];
            let agent = watchers.first().map_or(0, Watcher::agent);
            let (time_before, runs_before) = kernel_programs::time(agent);
            in_pieces(port, requests, &mut watchers)?;
            let (time, runs) = kernel_programs::time(agent);
            let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / requests as f64;
            eprintln!(
                "{set}: ratio {:.2} ({:.2} to {:.2}), {:.0} ns of programs a request in {:.1} runs",
                ratios.get(ratios.len() / 2).copied().unwrap_or_default(),
                ratios.first().copied().unwrap_or_default(),
                ratios.last().copied().unwrap_or_default(),
                each(time, time_before),
                each(runs, runs_before)
            );
            // Two sends, two receives.
            ensure!(runs - runs_before >= 4 * requests, "{set}: {} runs for {requests} requests", runs - runs_before);
            watchers.into_iter().try_for_each(|watcher| all_told(requests, &watcher.told()?))?;
        }
        Ok(())
    }
}

/// Every exchange of these requests was told once, or counted as lost.
fn all_told(requests: u64, Told { set, exchanges, orphans, lost }: &Told) -> Result<()> {
    let (all, counted) = (exchanges.values().map(|exchange| exchange.times).sum::<u64>(), admin::exchanges(lost));
    eprintln!("{set}: {requests} requests, {all} exchanges of both sides, {counted} counted as lost: {lost:?}");
    // Nothing descends from what is nowhere to be found, but from what was lost.
    ensure!(*orphans <= counted, "{set}: {orphans} exchanges whose parent was not told, {counted} lost: {lost:?}");
    ensure!(all + counted == 2 * requests, "{set}: {all} exchanges of {requests} requests, {counted} lost: {lost:?}");
    let twice = exchanges.iter().find(|(_, exchange)| exchange.times > 1);
    ensure!(twice.is_none(), "{set}: told twice: {twice:?}");
    Ok(())
}

/// Each told all, and what they told differs in no more than what was lost, and in links that are missing.
fn judge(requests: u64, told: &[Told]) -> Result<()> {
    told.iter().try_for_each(|told| all_told(requests, told))?;
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
    // A link may be missing: whoever sent the request was held up before that was recorded, for longer than is waited. None is wrong.
    let (mut both, mut missing) = (0, 0);
    for (told, exchange) in &one.exchanges {
        match (&exchange.parent, other.exchanges.get(told).map(|other| &other.parent)) {
            (Some(here), Some(Some(there))) => {
                ensure!(here == there, "{told}: {here} for {}, {there} for {}", one.set, other.set);
                both += 1;
            }
            (Some(_), Some(None)) | (None, Some(Some(_))) => missing += 1,
            _ => {}
        }
    }
    eprintln!("{both} exchanges descend from the same for both, {missing} for one of them alone");
    ensure!(both > 0, "nothing descends from anything");
    Ok(())
}
