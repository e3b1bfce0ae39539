//! What networks, disks and kills do to the export, under load, with the real programs and a real Collector: every request has a
//! number, and each is looked for in what arrived. `MINUTES=3` keeps the Collector away for three minutes instead of five seconds,
//! `PACE=2000` is the load in requests a second: `make chaos MINUTES=3`.
#![allow(missing_docs)]

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::fs::{DirBuilderExt, FileExt, chown},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use spantap_tests::{
    admin,
    collector::{self, Collector},
    host,
    load::Steady,
    observed::{self, Observed},
    servers::Server,
    spantap::Setup,
    suite::Suite,
};

/// User `nobody` of Debian, as which the forwarder runs.
const NOBODY: u32 = 65534;
const CONNECTIONS: u64 = 20;
/// `otel_traces_export.batch_timeout` of the tests' configuration.
const BATCH_TIMEOUT: f64 = 0.1;
/// Resident memory of the forwarder at its highest: what ARCHITECTURE.md bounds, and a debug build's own size.
const MEMORY: u64 = 64 << 20;

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    let lacks = [host::lacks_root_and_btf(), host::lacks("nginx"), host::lacks("setpriv"), no_collector];
    Suite::new("chaos", lacks, || Ok(()))
        .case("collector_away", |()| away())
        .case("killed_while_the_collector_is_away", |()| killed())
        .case_unless(host::lacks("mount"), "disk_full", |()| disk_full())
        .case("a_file_of_the_spool_is_cut_in_the_middle", |()| cut())
        .run()
}

fn number(variable: &str, default: f64) -> f64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How long the Collector is away, beyond what a case waits for.
fn outage() -> Duration {
    Duration::from_secs_f64(60.0 * number("MINUTES", 5.0 / 60.0))
}

fn pace() -> u64 {
    number("PACE", 2000.0) as u64
}

/// A Collector, Spantap in two parts with a spool, an nginx that it watches, and load on it.
struct World {
    observed: Observed,
    load: Steady,
    /// Those that are stopped: their files stay as long as they.
    before: Vec<Collector>,
    spool: PathBuf,
    /// Highest resident memory of the forwarders that are gone.
    memory: u64,
    _server: Server,
    _mounted: Option<Mounted>,
    _folder: tempfile::TempDir,
}

/// What a case found.
struct Found {
    made: u64,
    /// Numbers that did not arrive.
    missing: Vec<u64>,
    /// Spans and exchanges that are counted as lost.
    counted: u64,
}

impl World {
    /// `small`: bytes of the disk that the spool has to itself.
    fn start(keys: &str, small: Option<u64>) -> Result<Self> {
        let (server, folder) = (Server::nginx(1, None)?, host::folder()?);
        let spool = folder.path().join("spool");
        fs::DirBuilder::new().mode(0o700).create(&spool)?;
        chown(&spool, Some(NOBODY), Some(NOBODY))?;
        let mounted = small.map(|bytes| Mounted::on(&spool, bytes)).transpose()?;
        let own = format!("{{path: {}, {keys}}}", spool.display());
        let mut observed = Observed::start(|collector| {
            let entries = [&*observed::subjects()?, &format!("open_ports: {}", server.port)];
            Ok(Setup::observing(&entries, collector).split().own_key("spool", &own))
        })?;
        observed.wait_observing()?;
        let load = Steady::numbered(server.port, "/chaos", CONNECTIONS, pace());
        let (before, memory) = (Vec::new(), 0);
        Ok(Self { observed, load, before, spool, memory, _server: server, _mounted: mounted, _folder: folder })
    }

    /// Waits until a figure of the traces' destination is as `enough` wants it.
    fn wait(&mut self, metric: &str, limit: Duration, enough: impl Fn(u64) -> bool) -> Result<u64> {
        let spantap = self.observed.spantap()?;
        let mut last = None;
        let found = host::wait_for(metric, limit, || {
            last = figure(&spantap.own_metrics().ok()?, metric);
            last.filter(|n| enough(*n))
        });
        found.with_context(|| format!("{metric} is {last:?}\n{}", spantap.tail()))
    }

    fn stop_collector(&mut self) -> Result<()> {
        self.wait("spantap_export_exported_total", SOON, |n| n > 500)?;
        self.observed.collector.stop()
    }

    fn start_collector(&mut self) -> Result<()> {
        let next = Collector::start_on(self.observed.collector.port)?;
        self.before.push(std::mem::replace(&mut self.observed.collector, next));
        Ok(())
    }

    /// Notes how much memory the forwarder took, which is about to go.
    fn note_memory(&mut self) -> Result<()> {
        self.memory = self.memory.max(highest_memory(self.observed.spantap()?.forwarder_pid())?);
        Ok(())
    }

    fn kill_forwarder(&mut self, between: impl FnOnce()) -> Result<()> {
        self.note_memory()?;
        self.observed.spantap()?.kill_forwarder(between)
    }

    /// Waits until the spool is empty, ends the load, stops everything and looks for each number.
    fn finish(mut self, what: &str) -> Result<Found> {
        let waiting = outage() * 4 + SOON;
        self.wait("spantap_export_spool_size", waiting, |n| n == 0)?;
        let made = self.load.stop().context("the watched program noticed")?;
        let spantap = self.observed.spantap.as_ref().context("stopped")?;
        host::wait_for("nothing to wait any more", SOON, || {
            let own = spantap.own_metrics().ok()?;
            let waits = ["spantap_export_spool_size", "spantap_export_queue_size"].map(|name| figure(&own, name));
            (waits == [Some(0); 2]).then_some(())
        })?;
        let memory = self.memory.max(highest_memory(spantap.forwarder_pid())?);
        let log = self.observed.spantap.take().context("stopped")?.stop()?;
        let books = admin::summary(&log).context("no summary")?;
        ensure!(books.adds_up, "the books do not add up:\n{log}");
        self.observed.collector.stop()?;
        let mut arrived = vec![0_u32; usize::try_from(made)?];
        for collector in self.before.iter().chain([&self.observed.collector]) {
            count(collector.folder(), &mut arrived)?;
        }
        let missing: Vec<u64> = (0..made).zip(&arrived).filter(|(_, times)| **times == 0).map(|(n, _)| n).collect();
        let repeated = arrived.iter().filter(|times| **times > 1).count() as u64;
        let on_export = ["export_queue_full", "export_refused", "export_given_up", "export_at_stop", "spool_full"];
        let lost: u64 = on_export.iter().filter_map(|reason| books.losses.get(*reason)).sum();
        let counted = lost + admin::exchanges(&books.losses);
        eprintln!(
            "{what}: {made} made, {} missing, {repeated} more than once, {counted} counted as lost; \
             the forwarder took {:.1} MB at its highest",
            missing.len(),
            memory as f64 / 1e6
        );
        ensure!(memory <= MEMORY, "the forwarder took {memory} bytes of memory");
        Ok(Found { made, missing, counted })
    }
}

/// Longest time for what takes a moment.
const SOON: Duration = Duration::from_secs(60);

fn figure(own: &str, metric: &str) -> Option<u64> {
    let samples = admin::samples(own);
    let of_traces = |s: &&admin::Sample| s.name == metric && s.labels.get("signal").is_some_and(|v| v == "traces");
    samples.iter().find(of_traces).map(|s| s.value as u64)
}

/// Highest resident memory so far, bytes.
fn highest_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.split_whitespace().next().context("no number")?.parse::<u64>()? << 10)
}

/// Adds up how often each number stands in what a Collector wrote: there are too many spans to keep them all.
fn count(folder: &Path, arrived: &mut [u32]) -> Result<()> {
    let path = folder.join("traces.jsonl");
    let file = fs::File::open(&path).with_context(|| path.display().to_string())?;
    for line in BufReader::with_capacity(1 << 20, file).lines() {
        for rest in line?.split("\"url.path\",\"value\":{\"stringValue\":\"/chaos/").skip(1) {
            let number: usize = rest.split('"').next().context("no end")?.parse().context("no number")?;
            *arrived.get_mut(number).with_context(|| format!("number {number} was never asked for"))? += 1;
        }
    }
    Ok(())
}

fn away() -> Result<()> {
    let mut world = World::start("max_size: 1GiB", None)?;
    world.stop_collector()?;
    world.wait("spantap_export_spool_size", SOON, |n| n > 1000)?;
    std::thread::sleep(outage());
    world.start_collector()?;
    let found = world.finish("collector away")?;
    ensure!(found.missing.len() as u64 <= found.counted, "{:?} of {} are missing", found.missing, found.made);
    ensure!(found.counted * 1000 <= found.made, "{} of {} are counted as lost", found.counted, found.made);
    Ok(())
}

/// Bound: docs/decisions/spool.md. Away: what came within `batch_timeout` and what was on its way between the parts, taken as a second.
fn killed() -> Result<()> {
    let mut world = World::start("max_size: 1GiB", None)?;
    world.stop_collector()?;
    world.wait("spantap_export_spool_size", SOON, |n| n > 1000)?;
    std::thread::sleep(outage() / 2);
    let before = world.load.answered();
    std::thread::sleep(Duration::from_secs(1));
    let in_a_second = world.load.answered() - before;
    world.kill_forwarder(|| {})?;
    let recovered = world.wait("spantap_export_recovered_total", SOON, |n| n > 1000)?;
    world.wait("spantap_export_spool_size", SOON, |n| n > recovered + 1000)?;
    std::thread::sleep(outage() / 2);
    world.start_collector()?;
    let found = world.finish("killed while the Collector is away")?;
    let (first, last) = (found.missing.first(), found.missing.last());
    eprintln!(
        "  missing: from {first:?} to {last:?}; {in_a_second} requests a second; batch_timeout is {BATCH_TIMEOUT:?}"
    );
    ensure!(found.missing.len() as u64 <= in_a_second + found.counted, "more than came in a second");
    Ok(())
}

/// A file system of its own for the spool.
struct Mounted(PathBuf);

impl Mounted {
    fn on(path: &Path, bytes: u64) -> Result<Self> {
        let options = format!("size={bytes},mode=700,uid={NOBODY},gid={NOBODY}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status()?;
        ensure!(done.success(), "mount: {done}");
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The forwarder may still be about to end where a case failed.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// What the disk does not take waits in memory; what has no room there either is counted, each span of it.
fn disk_full() -> Result<()> {
    let mut world = World::start("max_size: 1GiB", Some(4 << 20))?;
    world.stop_collector()?;
    world.wait("spantap_export_spool_errors_total", SOON, |n| n > 0)?;
    let kept = world.wait("spantap_export_spool_size", SOON, |n| n > 1000)?;
    // Until memory, too, has no more room.
    let spantap = world.observed.spantap()?;
    host::wait_for("spans without room to be counted", SOON, || {
        spantap.losses().ok()?.get("export_queue_full").filter(|n| **n > 1000).copied()
    })?;
    world.start_collector()?;
    let found = world.finish("disk full")?;
    ensure!(
        kept > 0 && found.missing.len() as u64 <= found.counted,
        "{} missing, {} counted",
        found.missing.len(),
        found.counted
    );
    ensure!(found.missing.len() > 1000, "the disk was not full: {} are missing", found.missing.len());
    Ok(())
}

/// Two files: one is cut off in the middle, in another bytes are changed. What stands whole before them, and every other file, arrives.
fn cut() -> Result<()> {
    let mut world = World::start("max_size: 16MiB", None)?;
    world.stop_collector()?;
    // Segments of 1 MiB.
    world.wait("spantap_export_spool_bytes", SOON, |n| n > 5 << 20)?;
    let spool = world.spool.join("traces");
    let mut spoilt = Ok(0);
    world.kill_forwarder(|| spoilt = spoil(&spool))?;
    let spoilt = spoilt?;
    world.wait("spantap_export_recovered_total", SOON, |n| n > 1000)?;
    let counted = world.observed.spantap()?.losses()?;
    let damaged = counted.get("spool_damaged").copied().unwrap_or(0);
    world.start_collector()?;
    let found = world.finish("a file is cut")?;
    ensure!(damaged > 0, "nothing is counted as damaged: {counted:?}");
    let most = spoilt / 300 + pace() + found.counted;
    ensure!(
        !found.missing.is_empty() && found.missing.len() as u64 <= most,
        "{} missing; {spoilt} bytes were spoilt, in which {most} have room",
        found.missing.len()
    );
    Ok(())
}

/// Bytes that are behind the two spoilt places.
fn spoil(spool: &Path) -> Result<u64> {
    let mut segments: Vec<PathBuf> = fs::read_dir(spool)?.flatten().map(|entry| entry.path()).collect();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    segments.sort();
    let [_, second, third, fourth, ..] = segments.as_slice() else { bail!("only {} segments", segments.len()) };
    let (length, other) = (fs::metadata(second)?.len(), fs::metadata(fourth)?.len());
    ensure!(fs::metadata(third)?.len() > 0);
    OpenOptions::new().write(true).open(second)?.set_len(length / 2)?;
    OpenOptions::new().write(true).open(fourth)?.write_all_at(&[0xff; 4096], other / 2)?;
    Ok(length.div_ceil(2) + other.div_ceil(2))
}
