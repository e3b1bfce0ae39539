//! `traceparent` put into requests: only when asked, only into what is surely the head of one, once, and nothing else changed.
//!
//! A program that is observed asks in all shapes and writes down what it sent; one that is not writes down what arrived.
//! `ROUNDS=2200 cargo test -p spantap-tests --test propagation only_the -- --nocapture` for more of them, and how many there were.
#![allow(missing_docs)]

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use spantap_tests::{
    admin, collector, compiled, host, http,
    observed::{self, Observed},
    process::Process,
    servers,
    spantap::Setup,
    suite::Suite,
    telemetry::{Kind, Span},
};

const ARRIVAL: Duration = Duration::from_secs(40);
const TRAFFIC: Duration = Duration::from_secs(120);
/// Name, value and end of the line.
const FIELD: usize = 70;

fn main() -> ExitCode {
    let python = servers::python().err().map(|_| "no python3".to_owned());
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), python];
    Suite::new("propagation", lacks, world)
        .case("only_the_header_is_added_exactly_once", all_shapes)
        .case("a_trace_stays_whole_where_it_can", whole)
        .case("off_by_default_no_byte_is_changed", off)
        .run()
}

fn setup(collector: &collector::Collector) -> Result<Setup> {
    let of = |script: &str| format!("cmd_args: \"*{}*\"", compiled::subjects().join(script).display());
    let asking = of("asking.py").replace("asking.py*", "asking.py asking *");
    Ok(Setup::observing(&[&observed::subjects()?, &asking, &of("relay.py")], collector))
}

/// The tests do not ask how many bytes wait, which some kernels answer wrongly (docs/decisions/propagation.md).
fn world() -> Result<Observed> {
    Observed::start(|collector| {
        Ok(setup(collector)?
            .own_key("accept_wrong_fionread", "true")
            .environment("BEYLA_BPF_CONTEXT_PROPAGATION", "headers"))
    })
}

/// What one connection sent, and what arrived.
struct Connection {
    shape: String,
    /// Targets of requests that must have got a field.
    expected: Vec<String>,
    sent: Vec<u8>,
    arrived: Vec<u8>,
}

/// Lets the two programs play `rounds` times all shapes.
fn play(world: &mut Observed, service: &str, rounds: u32) -> Result<Vec<Connection>> {
    let folder = host::folder()?;
    let port = host::free_port()?;
    let program = |arguments: &[&str]| -> Result<Command> {
        let mut command = Command::new(servers::python()?);
        command.arg(compiled::subjects().join("asking.py")).args(arguments).env("OTEL_SERVICE_NAME", service);
        Ok(command)
    };
    let place = folder.path().display().to_string();
    let mut target = Process::start("target", folder.path(), program(&["target", &place, &port.to_string()])?)?;
    target.wait_ready(TRAFFIC, |target| target.output().contains("listening"))?;
    let arguments = ["asking", &port.to_string(), &place, &rounds.to_string(), "wait"];
    let mut asking = Process::start(service, folder.path(), program(&arguments)?)?;
    world.wait_observing()?;
    std::fs::write(folder.path().join("begin"), "")?;
    let ended = asking.wait(TRAFFIC).with_context(|| asking.tail())?;
    ensure!(ended.success(), "the asking program: {ended}\n{}", asking.tail());
    host::wait_for("what arrived to be written down", TRAFFIC, || {
        let (got, sent) = (count(folder.path(), "got"), count(folder.path(), "sent"));
        (sent > 0 && got >= sent).then_some(())
    })?;
    connections(folder.path())
}

fn count(folder: &Path, extension: &str) -> usize {
    let of = |path: std::path::PathBuf| path.extension().is_some_and(|known| known == extension);
    std::fs::read_dir(folder).map_or(0, |entries| entries.flatten().filter(|entry| of(entry.path())).count())
}

fn connections(folder: &Path) -> Result<Vec<Connection>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "sent") {
            continue;
        }
        let told = std::fs::read(&path)?;
        let end = told.iter().position(|byte| *byte == b'\n').context("no first line")?;
        let (line, sent) = told.split_at(end + 1);
        let line = std::str::from_utf8(line)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let shape = words.next().context("no shape")?;
        let arrived = std::fs::read(path.with_extension("got")).with_context(|| format!("{shape}: nothing arrived"))?;
        all.push(Connection { shape, expected: words.collect(), sent: sent.to_vec(), arrived });
    }
    Ok(all)
}

/// Target of a request, trace id and span id that were put into it.
type Added = (String, String, String);

impl Connection {
    /// Compares byte by byte: where the two differ, a field was put in, right behind a request line.
    fn added(&self) -> Result<Vec<Added>> {
        let (mut sent, mut arrived) = (&*self.sent, &*self.arrived);
        let (mut added, mut line) = (Vec::new(), Vec::new());
        while !sent.is_empty() || !arrived.is_empty() {
            if let (Some((ours, rest)), Some((theirs, others))) = (sent.split_first(), arrived.split_first())
                && ours == theirs
                && !(line.ends_with(b" HTTP/1.1\r\n") && is_field(arrived) && !is_field(sent))
            {
                if line.ends_with(b"\n") {
                    line.clear();
                }
                line.push(*ours);
                (sent, arrived) = (rest, others);
                continue;
            }
            let at = self.sent.len() - sent.len();
            let (field, rest) = arrived.split_at_checked(FIELD).with_context(|| format!("differs at {at}"))?;
            ensure!(is_field(field), "differs at {at}: {:?}", String::from_utf8_lossy(field));
            let head = String::from_utf8_lossy(&line);
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            ensure!(head.ends_with(" HTTP/1.1\r\n"), "at {at}, which is no end of a request line: {head:?}");
            let value = String::from_utf8_lossy(field);
            let ids: Vec<&str> = value.trim().rsplit(' ').next().unwrap_or_default().split('-').collect();
            let ["00", trace, span, "01"] = ids.as_slice() else { bail!("at {at}: {value:?}") };
            added.push((target, (*trace).to_owned(), (*span).to_owned()));
            line.clear();
            arrived = rest;
        }
        Ok(added)
    }
}

fn is_field(bytes: &[u8]) -> bool {
    let Some(field) = bytes.get(..FIELD) else { return false };
    field.starts_with(b"traceparent: 00-") && field.ends_with(b"\r\n")
}

/// Rounds of all shapes between two looks at what became of them.
const PIECE: u32 = 50;

fn all_shapes(world: &mut Observed) -> Result<()> {
    let rounds: u32 = std::env::var("ROUNDS").ok().and_then(|number| number.parse().ok()).unwrap_or(3);
    let (mut connections, mut requests, mut added) = (0, 0, 0);
    for piece in 0..rounds.div_ceil(PIECE) {
        let rounds = PIECE.min(rounds - piece * PIECE);
        let (played, given) = shapes(world, &format!("propagation-on-{piece}"), rounds)?;
        connections += played.len();
        requests += played.iter().map(|connection| count_of(b"\r\nHost: asking\r\n", &connection.sent)).sum::<usize>();
        added += given;
    }
    println!("{connections} connections compared byte by byte; {added} of {requests} requests were given a field");
    let own = world.spantap()?.own_metrics()?;
    let counted: HashMap<String, f64> = admin::samples(&own)
        .into_iter()
        .filter(|sample| sample.name == "spantap_agent_propagation")
        .filter_map(|sample| Some((sample.labels.get("outcome")?.clone(), sample.value)))
        .collect();
    println!("{counted:?}");
    for outcome in ["added", "present", "split", "pipelined", "too_large", "tunnel", "not_http", "endless"] {
        ensure!(counted.get(outcome).is_some_and(|count| *count > 0.0), "{outcome} is not counted: {counted:?}");
    }
    ensure!(!counted.contains_key("failed") && !counted.contains_key("untold"), "{counted:?}");
    Ok(())
}

fn count_of(what: &[u8], bytes: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|window| *window == what).count()
}

/// Plays, compares, and looks for the spans; the connections, and how many requests were given a field.
fn shapes(world: &mut Observed, service: &str, rounds: u32) -> Result<(Vec<Connection>, usize)> {
    let played = play(world, service, rounds)?;
    let (mut ids, mut shapes) = (HashMap::new(), BTreeMap::new());
    for connection in &played {
        let shape = &connection.shape;
        let added = connection.added().with_context(|| shape.clone())?;
        let targets: Vec<&String> = added.iter().map(|(target, ..)| target).collect();
        // A socket that may have no room has its requests left alone: there, which of them is not said.
        if shape != "hurried" {
            ensure!(targets == connection.expected.iter().collect::<Vec<_>>(), "{shape}: {targets:?}");
        }
        *shapes.entry(shape.clone()).or_insert(0) += added.len();
        for (target, trace, span) in added {
            ensure!(ids.insert(span, (target, trace)).is_none(), "{shape}: one span id for two requests");
        }
    }
    let (all, times) = (shapes.values().sum::<usize>(), rounds as usize);
    ensure!(played.len() >= 20 * times, "{} connections", played.len());
    ensure!(all > 30 * times && shapes.get("plain") == Some(&(10 * times)), "{shapes:?}");
    let wanted: HashMap<&str, (&str, &str)> = ids
        .iter()
        .filter(|(_, (target, _))| target.starts_with("/plain/") || target.starts_with("/bodies/"))
        .map(|(span, (target, trace))| (&**target, (&**trace, &**span)))
        .collect();
    world.collector.wait_until(ARRIVAL, |telemetry| {
        let spans = telemetry.spans_of(service);
        let sent: HashMap<&str, &Span> =
            spans.iter().filter(|span| span.kind == Kind::Client).map(|span| (span.path(), &**span)).collect();
        for (target, (trace, span)) in &wanted {
            let own = sent.get(target).with_context(|| format!("no span of {target}"))?;
            ensure!(own.trace_id == *trace && own.span_id == *span, "{target}: {own:?}, went out as {trace} {span}");
        }
        // The program's own bytes are what its sizes tell of.
        for (target, span) in sent.iter().filter(|(target, _)| target.starts_with("/bodies/")) {
            let number = target.rsplit('/').next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
            let Some(wanted) = [36, 108, 1, 0, 38].get(number.wrapping_sub(1)) else { continue };
            let size = span.attributes.number("http.request.body.size");
            ensure!(size == Some(*wanted), "{target}: a body of {size:?} bytes");
        }
        Ok(())
    })?;
    Ok((played, all))
}

/// A program serves requests and makes one for each: those that came without a header are one tree with what goes on elsewhere; those
/// with one keep their trace, and what was sent for them is in another.
fn whole(world: &mut Observed) -> Result<()> {
    let (folder, service) = (host::folder()?, "propagation-whole");
    let place = folder.path().display().to_string();
    let (near, far) = (host::free_port()?, host::free_port()?);
    let mut command = Command::new(servers::python()?);
    command.arg(compiled::subjects().join("asking.py")).args(["target", &place, &far.to_string()]);
    let mut target = Process::start("target", folder.path(), command)?;
    target.wait_ready(TRAFFIC, |target| target.output().contains("listening"))?;
    let mut command = Command::new(servers::python()?);
    command.arg(compiled::subjects().join("relay.py")).args([&near.to_string(), &far.to_string(), "0"]);
    command.env("OTEL_SERVICE_NAME", service).env("ASK_TIMEOUT", "20");
    let mut relay = Process::start(service, folder.path(), command)?;
    relay.wait_ready(TRAFFIC, |_| http::get(near, "/ready").is_ok())?;
    world.wait_observing()?;
    for number in 0..5 {
        ensure!(http::get(near, &format!("/ask/in/{number}"))?.status == 200, "no answer");
    }
    let given = "0af7651916cd43dd8448eb211c80319c";
    let curl = Command::new(host::find("curl").context("no curl")?)
        .args(["-sf", "-m", "20", "-H", &format!("traceparent: 00-{given}-b7ad6b7169203331-01")])
        .arg(format!("http://127.0.0.1:{near}/ask/in/given"))
        .output()?;
    ensure!(curl.status.success(), "curl: {curl:?}");
    let arrived = host::wait_for("the requests at the target", TRAFFIC, || {
        let mut all = String::new();
        for entry in std::fs::read_dir(folder.path()).ok()?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "got" || extension == "part") {
                all += &String::from_utf8_lossy(&std::fs::read(path).ok()?);
            }
        }
        (all.matches("GET /ask/out/").count() == 6).then_some(all)
    })?;
    let out: HashMap<String, (String, String)> = arrived
        .split("GET ")
        .filter_map(|request| {
            let (path, rest) = request.split_once(" HTTP/1.1\r\ntraceparent: 00-")?;
            let mut ids = rest.split('-');
            Some((path.to_owned(), (ids.next()?.to_owned(), ids.next()?.to_owned())))
        })
        .collect();
    ensure!(out.len() == 6, "{arrived}");
    world.collector.wait_until(ARRIVAL, |telemetry| {
        let spans = telemetry.spans_of(service);
        let find = |kind, path: &str| {
            let found = spans.iter().find(|span| span.kind == kind && span.path() == path);
            found.with_context(|| format!("no span of {path}"))
        };
        for name in ["0", "1", "2", "3", "4", "given"] {
            let (server, client) =
                (find(Kind::Server, &format!("/ask/in/{name}"))?, find(Kind::Client, &format!("/ask/out/{name}"))?);
            let (trace, span) = out.get(client.path()).context("not sent")?;
            ensure!(client.trace_id == *trace && client.span_id == *span, "{client:?} went out as {trace} {span}");
            if name == "given" {
                ensure!(server.trace_id == given && client.trace_id != given, "{server:?}");
                ensure!(client.parent_span_id.is_empty(), "a parent in another trace: {client:?}");
            } else {
                ensure!(server.trace_id == *trace && client.parent_span_id == server.span_id, "{server:?} {client:?}");
            }
        }
        Ok(())
    })
}

fn off(world: &mut Observed) -> Result<()> {
    world.spantap.take().context("Spantap was stopped by an earlier case")?.stop()?;
    world.spantap = Some(setup(&world.collector)?.start()?);
    for connection in play(world, "propagation-off", 1)? {
        ensure!(connection.sent == connection.arrived, "{}: bytes were changed", connection.shape);
    }
    let own = world.spantap()?.own_metrics()?;
    ensure!(!own.contains("spantap_agent_propagation"), "it says that it does something to requests");
    Ok(())
}
