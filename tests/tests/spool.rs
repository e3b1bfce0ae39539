//! A real Collector that is away for long, with a spool: what was observed arrives, over stops and kills of the forwarder.
#![allow(missing_docs)]

use std::{
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin,
    collector::{self, Collector},
    host,
    load::Steady,
    observed::{self, Observed},
    servers::Server,
    spantap::{Setup, clear_environment},
    suite::Suite,
    telemetry::{Kind, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(30);
/// User `nobody` of Debian, as which the forwarder runs when it is started apart.
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    let lacks = [host::lacks_root_and_btf(), host::lacks("nginx"), host::lacks("setpriv"), no_collector];
    Suite::new("spool", lacks, || Ok(()))
        .case("nothing_is_missing_after_an_outage_with_a_restart_in_it", |()| outage())
        .case("a_kill_takes_only_what_was_not_spooled", |()| killed())
        .case("a_second_forwarder_is_refused", |()| second())
        .case("the_one_command_gives_the_folder_away", |()| one_command())
        .run()
}

/// Collector, Spantap in two parts with a spool, an nginx that it watches.
struct World {
    observed: Observed,
    server: Server,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl World {
    fn start() -> Result<Self> {
        let (server, folder) = (Server::nginx(1, None)?, host::folder()?);
        let path = folder.path().join("spool");
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        chown(&path, Some(NOBODY), Some(NOBODY))?;
        let own = format!("{{path: {}, max_size: 64MiB}}", path.display());
        let mut observed = Observed::start(|collector| {
            let entries = [&*observed::subjects()?, &format!("open_ports: {}", server.port)];
            Ok(Setup::observing(&entries, collector).split().own_key("spool", &own))
        })?;
        observed.wait_observing()?;
        Ok(Self { observed, server, path, _folder: folder })
    }

    /// Waits until a figure of the traces' destination is as `enough` wants it.
    fn wait(&mut self, metric: &str, enough: impl Fn(u64) -> bool) -> Result<u64> {
        let spantap = self.observed.spantap()?;
        let mut last = None;
        let found = host::wait_for(metric, ARRIVAL, || {
            last = figure(&spantap.own_metrics().ok()?, metric);
            last.filter(|n| enough(*n))
        });
        found.with_context(|| format!("{metric} is {last:?}"))
    }

    fn wait_arrived(&mut self, what: &str, mut enough: impl FnMut(&Telemetry, &str) -> Result<()>) -> Result<()> {
        let Observed { collector, spantap, .. } = &mut self.observed;
        let spantap = spantap.as_ref().context("stopped")?;
        collector.wait_until(ARRIVAL, |telemetry| enough(telemetry, &spantap.own_metrics()?)).context(what.to_owned())
    }
}

fn figure(own: &str, metric: &str) -> Option<u64> {
    let samples = admin::samples(own);
    let of_traces = |s: &&admin::Sample| s.name == metric && s.labels.get("signal").is_some_and(|v| v == "traces");
    samples.iter().find(of_traces).map(|s| s.value as u64)
}

fn nginx(telemetry: &Telemetry, path: &str) -> u64 {
    telemetry.spans.iter().filter(|s| s.kind == Kind::Server && s.service() == "nginx" && s.path() == path).count()
        as u64
}

fn outage() -> Result<()> {
    let mut world = World::start()?;
    let load = Steady::start(world.server.port, "/outage", 4, Duration::from_millis(5));
    world.wait_arrived("spans before", |telemetry, _| {
        ensure!(nginx(telemetry, "/outage") > 50, "too few");
        Ok(())
    })?;
    let port = world.observed.collector.port;
    world.observed.collector.stop()?;
    world.wait("spantap_export_spool_size", |n| n > 1000)?;
    let first = nginx(world.observed.collector.telemetry()?, "/outage");
    // A new forwarder goes on with what the one before it left.
    world.observed.spantap()?.restart_forwarder(|| {})?;
    let log = world.observed.spantap()?.log_of_start(0);
    let before = admin::summary(&log).context("no summary of the first forwarder")?;
    ensure!(before.adds_up, "the books of the first forwarder do not add up:\n{log}");
    let recovered = world.wait("spantap_export_recovered_total", |n| n > 1000)?;
    world.wait("spantap_export_spool_size", |n| n > recovered + 1000)?;
    world.observed.collector = Collector::start_on(port)?;
    world.wait("spantap_export_spool_size", |n| n == 0)?;
    let made = load.stop().context("the watched program noticed")?;
    world.wait_arrived("every span", |telemetry, own| {
        let (reported, lost) = (first + nginx(telemetry, "/outage"), admin::losses(own));
        // Requests under way while the forwarder is not there lose their place in the stream, and are counted.
        let counted = admin::exchanges(&before.losses) + admin::exchanges(&lost);
        ensure!(admin::spans_lost(own) == 0, "spans are lost on export: {lost:?}");
        ensure!(reported + counted >= made, "{made} made, {reported} reported, {counted} counted: {lost:?}");
        Ok(())
    })?;
    let log = world.observed.spantap.take().context("stopped")?.stop()?;
    ensure!(admin::summary(&log).is_some_and(|books| books.adds_up), "the books do not add up:\n{log}");
    let left: Vec<_> = std::fs::read_dir(world.path.join("traces"))?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left == ["position"], "files are left in the spool: {left:?}");
    Ok(())
}

/// Bound: what came within `batch_timeout` (100 ms here) and what was on its way between the parts; taken as a second.
fn killed() -> Result<()> {
    let mut world = World::start()?;
    let port = world.observed.collector.port;
    world.observed.collector.stop()?;
    let load = Steady::start(world.server.port, "/killed", 4, Duration::from_millis(5));
    world.wait("spantap_export_spool_size", |n| n > 1000)?;
    let before = load.answered();
    std::thread::sleep(Duration::from_secs(1));
    let in_a_second = load.answered() - before;
    world.observed.spantap()?.kill_forwarder(|| {})?;
    let recovered = world.wait("spantap_export_recovered_total", |n| n > 1000)?;
    world.wait("spantap_export_spool_size", |n| n > recovered + 500)?;
    let made = load.stop().context("the watched program noticed")?;
    world.observed.collector = Collector::start_on(port)?;
    world.wait("spantap_export_spool_size", |n| n == 0)?;
    world.observed.collector.settle(Duration::from_secs(1), ARRIVAL)?;
    let reported = nginx(world.observed.collector.telemetry()?, "/killed");
    eprintln!("killed: {made} made, {reported} arrived, {in_a_second} in a second");
    ensure!(
        reported + in_a_second >= made,
        "{} of {made} are missing, more than came in a second ({in_a_second})",
        made - reported
    );
    world.observed.spantap.take().context("stopped")?.stop().map(drop)
}

fn second() -> Result<()> {
    let mut world = World::start()?;
    let mut command = Command::new(host::built("spantap")?);
    command.args(["forward", "--config"]).arg(world.observed.spantap()?.configuration());
    clear_environment(&mut command);
    command.env("SPANTAP_ADMIN", "off").env("SPANTAP_SOCKET", world.path.with_file_name("other/ingest.sock"));
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(69), "{}: {said}", output.status);
    ensure!(said.contains("another spantap keeps its spool in") && said.contains("SPANTAP_SPOOL_PATH"), "{said}");
    world.observed.spantap.take().context("stopped")?.stop().map(drop)
}

fn one_command() -> Result<()> {
    let (mut collector, folder) = (Collector::start()?, host::folder()?);
    let path = folder.path().join("spool");
    let server = Server::nginx(1, None)?;
    let setup = Setup::observing(&[&format!("open_ports: {}", server.port)], &collector);
    let spantap = setup.own_key("spool", &format!("{{path: {}}}", path.display())).start()?;
    let found = std::fs::metadata(&path)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", spantap.forwarder_pid()))?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse::<u32>().ok());
    ensure!(
        user.is_some_and(|user| user != 0) && user == Some(found.uid()),
        "{user:?} has a folder of {}",
        found.uid()
    );
    ensure!(found.mode() & 0o7777 == 0o700, "mode {:o}", found.mode());
    let load = Steady::start(server.port, "/one", 2, Duration::from_millis(5));
    let arrives = |telemetry: &Telemetry| {
        ensure!(nginx(telemetry, "/one") > 20, "too few");
        Ok(())
    };
    collector.wait_until(ARRIVAL, arrives)?;
    let port = collector.port;
    collector.stop()?;
    let size = || figure(&spantap.own_metrics().ok()?, "spantap_export_spool_size").filter(|n| *n > 200);
    host::wait_for("spans in the spool", ARRIVAL, size)?;
    load.stop()?;
    let mut collector = Collector::start_on(port)?;
    collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(nginx(telemetry, "/one") > 200, "too few");
        Ok(())
    })?;
    spantap.stop().map(drop)
}
