//! Another agent is started before the one that runs is stopped: it takes over, nothing is told twice, and what is missing is counted.
#![allow(missing_docs)]

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use spantap_tests::{
    admin,
    certificate::Certificate,
    collector, host, http, https, kernel_programs,
    load::Steady,
    observed::{self, ARRIVAL, Observed},
    place::{LIMIT, Place, observed},
    process::Process,
    servers::{Server, nginx_over_tls},
    spantap::{Setup, child_of},
    suite::Suite,
    telemetry::{Kind, Telemetry},
};

/// Requests a second on connections that stay open, and how many of these there are.
const PACE: u64 = 1000;
const CONNECTIONS: u64 = 16;
/// Threads that open a connection for each request.
const SHORT: u64 = 2;
const TAKEOVERS: u32 = 3;
const FORWARDER: [&str; 7] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];

fn main() -> ExitCode {
    let programs = [host::lacks("nginx"), host::lacks("bpftool"), host::lacks("setpriv")];
    let lacks = [host::lacks_root_and_btf()].into_iter().chain(programs);
    let lacks_tls =
        [collector::lacks_collector(), host::lacks("openssl"), host::lacks("python3")].into_iter().flatten().next();
    Suite::new("replacement", lacks, || Ok(()))
        .case_unless(collector::lacks_collector(), "another_agent_takes_over_under_load", |()| takes_over())
        .case_unless(lacks_tls, "another_agent_takes_over_https", |()| takes_over_https())
        .case("a_request_under_way_is_told_once_by_the_next_agent", |()| under_way())
        .case("two_agents_by_mistake_are_told_of_and_the_later_one_stays", |()| by_mistake())
        .case("a_supervised_agent_waits_for_the_end_of_the_one_that_took_over", |()| supervised())
        .run()
}

/// How often each path of nginx was reported.
fn told(telemetry: &Telemetry) -> BTreeMap<String, u32> {
    let mut told = BTreeMap::new();
    for span in telemetry.spans.iter().filter(|span| span.kind == Kind::Server && span.service() == "nginx") {
        if ["/keep/", "/short/"].iter().any(|prefix| span.path().starts_with(prefix)) {
            *told.entry(span.path().to_owned()).or_default() += 1;
        }
    }
    told
}

/// Requests for `/short/0` and so on, each over a connection of its own.
struct Short {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Short {
    fn start(port: u16) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..SHORT).map(|_| {
            let (stop, made) = (stop.clone(), made.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let path = format!("/short/{}", made.fetch_add(1, Ordering::Relaxed));
                    ensure!(http::get(port, &path)?.status == 200, "{path}");
                    std::thread::sleep(Duration::from_millis(3));
                }
                Ok(())
            })
        });
        Self { threads: threads.collect(), stop, made }
    }

    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
        }
        Ok(self.made.load(Ordering::Relaxed))
    }
}

fn more_come(world: &mut Observed) -> Result<()> {
    let so_far = told(world.collector.telemetry()?).len();
    world.collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(told(telemetry).len() > so_far + 500, "spans do not come any more");
        Ok(())
    })
}

fn takes_over() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let entries = [&*observed::subjects()?, &format!("open_ports: {}", server.port)];
    let mut world = Observed::start(|collector| Ok(Setup::observing(&entries, collector).split()))?;
    world.wait_observing()?;
    let before = world.spantap()?.losses()?;
    let (load, short) = (Steady::numbered(server.port, "/keep", CONNECTIONS, PACE), Short::start(server.port));
    for _ in 0..TAKEOVERS {
        more_come(&mut world)?;
        let programs = kernel_programs::attached(world.spantap()?.agent_pid()?)?;
        let ended = world.spantap()?.replace_agent()?;
        ensure!(ended.code() == Some(0), "the agent before ended with {ended}");
        kernel_programs::wait_gone(&programs)?;
    }
    more_come(&mut world).context("of the last agent")?;
    let made = load.stop().context("the watched program noticed")? + short.stop()?;
    // At the stop the last spans go out, and what was open at the last takeover is counted, if its five seconds are not over.
    let log = world.spantap.take().context("stopped")?.stop()?;
    let summary = admin::summary(&log).context("no summary")?;
    world.collector.settle(Duration::from_secs(1), ARRIVAL)?;
    let told = told(world.collector.telemetry()?);
    let lost = admin::lost_between(&before, &summary.losses);
    let (missing, counted) = (made.saturating_sub(told.len() as u64), admin::exchanges(&lost));
    let twice: Vec<_> = told.iter().filter(|(_, times)| **times > 1).collect();
    eprintln!(
        "{TAKEOVERS} takeovers: {made} made, {missing} missing, {} twice, {counted} counted as lost",
        twice.len()
    );
    ensure!(twice.is_empty(), "told twice: {twice:?}");
    ensure!(missing <= counted, "{missing} of {made} are missing, {counted} counted: {lost:?}");
    ensure!(summary.adds_up, "the books do not add up: {summary:?}");
    // Those that were under way at the three moments, and not many more.
    ensure!(counted <= u64::from(TAKEOVERS) * CONNECTIONS, "{counted} of {made} are counted as lost: {lost:?}");
    Ok(())
}

/// The next agent takes the place when it reads TLS, so that nothing is missing in between.
fn takes_over_https() -> Result<()> {
    let certificate = Certificate::make()?;
    let (server, _) = nginx_over_tls(&certificate)?;
    let port = server.port;
    let entries = [&*observed::subjects()?, &format!("open_ports: {port}")];
    let mut world = Observed::start(|collector| Ok(Setup::observing(&entries, collector).split()))?;
    world.wait_observing()?;
    https::ask(port, "/tls/first", [1, 1, 1], &[])?;
    world.collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(!told_of_tls(telemetry).is_empty(), "nothing is read over TLS yet");
        Ok(())
    })?;
    let before = world.spantap()?.losses()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let load = std::thread::spawn(move || -> Result<u64> {
        let mut made = 1;
        for round in 0.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            https::ask(port, &format!("/tls/{round}"), [4, 300, 1], &[])?;
            made += 4 * 300;
        }
        Ok(made)
    });
    let ended = world.spantap()?.replace_agent();
    let so_far = told_of_tls(world.collector.telemetry()?).len();
    let more = world.collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(told_of_tls(telemetry).len() > so_far + 500, "spans do not come any more");
        Ok(())
    });
    stop.store(true, Ordering::Relaxed);
    let made = load.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
    ensure!(ended?.code() == Some(0), "the agent before");
    more?;
    let log = world.spantap.take().context("stopped")?.stop()?;
    world.collector.settle(Duration::from_secs(1), ARRIVAL)?;
    let told = told_of_tls(world.collector.telemetry()?);
    let lost = admin::lost_between(&before, &admin::summary(&log).context("no summary")?.losses);
    let (missing, counted) = (made.saturating_sub(told.len() as u64), admin::exchanges(&lost));
    eprintln!("over TLS: {made} made, {missing} missing, {counted} counted as lost: {lost:?}");
    let twice: Vec<_> = told.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "told twice: {twice:?}");
    // A connection that began just when the next agent attached may be counted as a whole.
    let whole = https::lost(&lost, "encrypted") * 300;
    ensure!(missing <= counted + whole, "{missing} of {made} are missing, {lost:?}");
    Ok(())
}

fn told_of_tls(telemetry: &Telemetry) -> BTreeMap<String, u32> {
    let mut told = BTreeMap::new();
    for span in telemetry.spans.iter().filter(|span| span.kind == Kind::Server && span.path().starts_with("/tls/")) {
        *told.entry(span.path().to_owned()).or_default() += 1;
    }
    told
}

/// This process is server and client, and answers when the test says so. Requests begin before the next agent is there, and while both
/// observe, as the forwarder stands still; all of them end when the next one alone observes.
fn under_way() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", host::free_port()?))?;
    let port = listener.local_addr()?.port();
    let place = Place::new(port, "  tls: \"off\"\n")?;
    let mut forwarder = place.start_until(&FORWARDER, "spantap", &["forward"], "waiting for the agent")?;
    let mut first = place.start_until(&[], "spantap-agent", &[], "streaming to the forwarder")?;
    let (mut client, mut server) = connected(&listener)?;
    forwarder.wait_ready(LIMIT, |forwarder| {
        let answered = ask(&mut client, "/ready").and_then(|()| answer(&mut client, &mut server));
        answered.is_ok() && forwarder.output().contains("\"/ready\"")
    })?;
    let mut early = connected(&listener)?;
    ask(&mut early.0, "/early")?;
    read_head(&mut early.1)?;
    forwarder.signal(Signal::STOP)?;
    let mut second = place.start(&[], "spantap-agent", &[])?;
    second.wait_ready(LIMIT, |second| second.log().contains("observing"))?;
    // Whole ones, which both see, on a connection that both know and on one that is closed again.
    ask(&mut client, "/both")?;
    answer(&mut client, &mut server)?;
    let (mut brief_client, mut brief_server) = connected(&listener)?;
    ask(&mut brief_client, "/both")?;
    answer(&mut brief_client, &mut brief_server)?;
    drop((brief_client, brief_server));
    // And those that the next one sees the end of.
    let mut late = connected(&listener)?;
    for (client, server) in [(&mut client, &mut server), (&mut late.0, &mut late.1)] {
        ask(client, "/open")?;
        read_head(server)?;
    }
    forwarder.signal(Signal::CONT)?;
    let ended = first.wait(LIMIT)?;
    ensure!(ended.code() == Some(0), "the first agent ended with {ended}: {}", first.tail());
    let (early_client, early_server) = (&mut early.0, &mut early.1);
    for (client, server) in [(&mut client, &mut server), (&mut late.0, &mut late.1), (early_client, early_server)] {
        send_answer(client, server)?;
        ask(client, "/after")?;
        answer(client, server)?;
    }
    forwarder.wait_ready(LIMIT, |forwarder| times(forwarder, "/after") == 6)?;
    for process in [&mut second, &mut forwarder] {
        let ended = process.stop(LIMIT)?;
        ensure!(ended.code() == Some(0), "ended with {ended}: {}", process.tail());
    }
    let books = admin::summary(&forwarder.log()).context("no summary")?;
    // Each is told by both of its sides.
    for (path, expected) in [("/both", 4), ("/open", 4), ("/after", 6), ("/early", 0)] {
        let told = times(&forwarder, path);
        ensure!(told == expected, "{path} was told {told} times, not {expected}: {}", forwarder.output());
    }
    // The next agent knows nothing of how that one began. Its response is seen, and counted as well.
    let lost = admin::exchanges(&books.losses);
    ensure!((2..=4).contains(&lost), "/early is counted {lost} times: {books:?}");
    ensure!(books.adds_up, "{books:?}");
    Ok(())
}

/// How often it has printed an exchange for this path, of either side.
fn times(forwarder: &Process, path: &str) -> usize {
    forwarder.output().matches(&format!("\"path\":\"{path}\"")).count()
}

fn connected(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    let server = listener.accept()?.0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LIMIT))?;
    }
    Ok((client, server))
}

fn ask(client: &mut TcpStream, path: &str) -> Result<()> {
    Ok(write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")?)
}

fn read_head(stream: &mut TcpStream) -> Result<()> {
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "closed");
        head.extend(piece.get(..count).unwrap_or_default());
    }
    Ok(())
}

fn send_answer(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    read_head(client)
}

fn answer(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    read_head(server)?;
    send_answer(client, server)
}

/// Nobody meant to replace anything: what is said, who stays, and that nothing is counted twice.
fn by_mistake() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let place = Place::new(server.port, "")?;
    let mut forwarder = place.start_until(&FORWARDER, "spantap", &["forward"], "waiting for the agent")?;
    let mut first = place.start(&[], "spantap-agent", &[])?;
    observed(&mut forwarder, server.port, "/first")?;
    let mut second = place.start(&[], "spantap-agent", &[])?;
    let ended = first.wait(LIMIT)?;
    ensure!(ended.code() == Some(0), "the first agent ended with {ended}: {}", first.tail());
    says(&first, "another agent has come to the forwarder")?;
    says(&first, "everything observed was handed over")?;
    observed(&mut forwarder, server.port, "/second")?;
    says(&forwarder, "another agent has come: the one before is asked to hand over and to end")?;
    says(&forwarder, "goes on where the agent before has ended")?;
    // Whoever starts the first again has it take the place back, once.
    let mut third = place.start(&[], "spantap-agent", &[])?;
    let ended = second.wait(LIMIT)?;
    ensure!(ended.code() == Some(0), "the second agent ended with {ended}: {}", second.tail());
    observed(&mut forwarder, server.port, "/third")?;
    ensure!(http::get(server.port, "/once")?.status == 200, "the server");
    forwarder.wait_ready(LIMIT, |forwarder| forwarder.output().contains("\"/once\""))?;
    for process in [&mut third, &mut forwarder] {
        let ended = process.stop(LIMIT)?;
        ensure!(ended.code() == Some(0), "ended with {ended}: {}", process.tail());
    }
    let told = times(&forwarder, "/once");
    ensure!(told == 1, "told {told} times");
    Ok(())
}

fn says(process: &Process, text: &str) -> Result<()> {
    ensure!(process.log().contains(text), "nothing is said of {text:?}: {}", process.log());
    Ok(())
}

/// Its supervisor would start it again if it ended, and that one would take the place back, and so on. So it waits, until the other
/// is gone.
fn supervised() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let place = Place::new(server.port, "")?;
    let mut spantap = place.start(&[], "spantap", &[])?;
    observed(&mut spantap, server.port, "/first")?;
    let supervisor = child_of(spantap.pid()).context("spantap has no child")?;
    let first = child_of(supervisor).context("the supervisor has no child")?;
    let programs = kernel_programs::attached(first)?;
    let mut second = place.start_until(&[], "spantap-agent", &[], "streaming to the forwarder")?;
    spantap.wait_ready(LIMIT, |spantap| spantap.log().contains("this one waits for its end"))?;
    kernel_programs::wait_gone(&programs)?;
    observed(&mut spantap, server.port, "/second")?;
    ensure!(child_of(supervisor) == Some(first), "the first agent was started again");
    ensure!(second.is_running(), "the second agent ended: {}", second.tail());
    ensure!(http::get(server.port, "/once")?.status == 200, "the server");
    spantap.wait_ready(LIMIT, |spantap| spantap.output().contains("\"/once\""))?;
    let ended = second.stop(LIMIT)?;
    ensure!(ended.code() == Some(0), "the second agent ended with {ended}");
    // Nobody observes any more: the first makes room for one that does.
    let next =
        host::wait_for("an agent of spantap's own", LIMIT, || child_of(supervisor).filter(|agent| *agent != first))?;
    observed(&mut spantap, server.port, "/third")?;
    ensure!(child_of(supervisor) == Some(next), "that agent was started again");
    let ended = spantap.stop(LIMIT)?;
    ensure!(ended.code() == Some(0), "spantap ended with {ended}\n{}", spantap.tail());
    let told = times(&spantap, "/once");
    ensure!(told == 1, "told {told} times:\n{}", spantap.output());
    Ok(())
}
