//! Stop and restart of each process in the middle of traffic: nothing hangs, what is lost is counted, and the watched
//! program does not notice.
#![allow(missing_docs)]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use spantap_tests::{
    admin,
    collector::{self, Collector},
    host,
    load::{self, Steady},
    observed::{self, Observed},
    servers::Server,
    spantap::Setup,
    suite::Suite,
    telemetry::{Kind, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    let lacks = [host::lacks_root_and_btf(), host::lacks("nginx"), host::lacks("setpriv"), no_collector];
    Suite::new("restart", lacks, || Ok(()))
        .case("agent_restarts_under_load", |()| agent_restarts())
        .case("forwarder_restarts_under_load", |()| forwarder_restarts())
        .case("agent_is_killed_under_load", |()| agent_is_killed())
        .case("agent_stands_still_under_load", |()| agent_stands_still())
        .case("agent_stands_still_until_connections_end", |()| agent_stands_still_until_the_end())
        .case("collector_restarts_under_load", |()| collector_restarts())
        .run()
}

fn split(server: &Server, small_ring: bool) -> Result<Observed> {
    Observed::start(|collector| {
        let setup =
            Setup::observing(&[&observed::subjects()?, &format!("open_ports: {}", server.port)], collector).split();
        Ok(if small_ring { setup.own_key("ring_buffer_size", "262144") } else { setup })
    })
}

fn nginx(telemetry: &Telemetry, path: &str) -> u64 {
    telemetry.spans.iter().filter(|s| s.kind == Kind::Server && s.service() == "nginx" && s.path() == path).count()
        as u64
}

/// Waits until spans with this path come again after `since` of them.
fn flows(world: &mut Observed, path: &str, since: u64) -> Result<()> {
    world.collector.wait_until(ARRIVAL, |telemetry| {
        let now = nginx(telemetry, path);
        ensure!(now > since + 20, "{now} spans for {path}, no more than before");
        Ok(())
    })
}

fn count(world: &mut Observed, path: &str) -> Result<u64> {
    Ok(nginx(world.collector.telemetry()?, path))
}

fn agent_restarts() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let mut world = split(&server, false)?;
    world.wait_observing()?;
    let load = Steady::start(server.port, "/agent", 4, Duration::from_millis(5));
    flows(&mut world, "/agent", 0)?;
    // What happens while there is no agent is not observed; everything on both sides of it is.
    world.spantap()?.restart_agent(|| std::thread::sleep(Duration::from_millis(500)))?;
    keeps_little(world.spantap()?.agent_pid()?)?;
    let before = count(&mut world, "/agent")?;
    flows(&mut world, "/agent", before)?;
    let made = load.stop().context("the watched program noticed")?;
    world.collector.settle(Duration::from_millis(700), ARRIVAL)?;
    let reported = count(&mut world, "/agent")?;
    ensure!(reported <= made, "{reported} reported of {made}");
    world.spantap.take().context("stopped")?.stop().map(drop)
}

/// The socket was there when this agent started: it has joined its group, and kept what `/proc` takes and no more.
/// It can get nothing back, and makes only the system calls of its list.
fn keeps_little(agent: u32) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{agent}/status"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // CAP_CHECKPOINT_RESTORE (TLS is read) is bit 40, CAP_SYS_PTRACE 19, CAP_DAC_READ_SEARCH 2.
    let kept = Some("0000010000080004");
    for (name, expected) in [
        ("CapEff:", kept),
        ("CapPrm:", kept),
        ("CapBnd:", kept),
        ("CapInh:", Some("0000000000000000")),
        ("CapAmb:", Some("0000000000000000")),
        ("NoNewPrivs:", Some("1")),
        ("Seccomp:", Some("2")),
    ] {
        ensure!(field(name) == expected, "{name} {:?}, expected {expected:?}", field(name));
    }
    Ok(())
}

fn forwarder_restarts() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let mut world = split(&server, false)?;
    world.wait_observing()?;
    let load = Steady::start(server.port, "/forwarder", 4, Duration::from_millis(5));
    flows(&mut world, "/forwarder", 0)?;
    // The agent keeps what it sees meanwhile. What was open in the first forwarder stands in its summary.
    world.spantap()?.restart_forwarder(|| std::thread::sleep(Duration::from_secs(1)))?;
    let first_log = world.spantap()?.log_of_start(0);
    let before = count(&mut world, "/forwarder")?;
    flows(&mut world, "/forwarder", before)?;
    let made = load.stop().context("the watched program noticed")?;
    let lost_before = admin::summary(&first_log).context("no summary of the first forwarder")?.losses;
    world.collector.settle(Duration::from_millis(700), ARRIVAL)?;
    let lost_after = world.spantap()?.losses()?;
    let reported = count(&mut world, "/forwarder")?;
    let lost = admin::exchanges(&lost_before) + admin::exchanges(&lost_after);
    ensure!(reported <= made, "{reported} reported of {made}: some twice");
    ensure!(
        reported + lost >= made,
        "{made} made, {reported} reported, {lost} counted as lost: {lost_before:?} then {lost_after:?}"
    );
    world.spantap.take().context("stopped")?.stop().map(drop)
}

fn agent_is_killed() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let mut world = split(&server, false)?;
    world.wait_observing()?;
    let load = Steady::start(server.port, "/killed", 4, Duration::from_millis(5));
    flows(&mut world, "/killed", 0)?;
    world.spantap()?.agent()?.kill();
    std::thread::sleep(Duration::from_millis(300));
    // The forwarder stays, and takes the next agent.
    world.spantap()?.start_agent()?;
    let before = count(&mut world, "/killed")?;
    flows(&mut world, "/killed", before)?;
    load.stop().context("the watched program noticed")?;
    world.spantap.take().context("stopped")?.stop().map(drop)
}

/// The agent gets no CPU while the ring buffer overflows: reported and counted are what was made, to the last one.
fn agent_stands_still() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let mut world = split(&server, true)?;
    world.wait_observing()?;
    let before = world.spantap()?.own_metrics()?;
    let load = Steady::start(server.port, "/still", 8, Duration::from_millis(1));
    flows(&mut world, "/still", 0)?;
    world.spantap()?.agent()?.signal(Signal::STOP)?;
    let at_stop = load.answered();
    std::thread::sleep(Duration::from_secs(3));
    let meanwhile = load.answered() - at_stop;
    world.spantap()?.agent()?.signal(Signal::CONT)?;
    let reported = count(&mut world, "/still")?;
    flows(&mut world, "/still", reported)?;
    let made = load.stop().context("the watched program noticed")?;
    ensure!(meanwhile > 1000, "only {meanwhile} requests while the agent stood still: too few to overflow anything");

    let Observed { collector, spantap, .. } = &mut world;
    let spantap = spantap.as_ref().context("stopped")?;
    collector.wait_until(ARRIVAL, |telemetry| books(telemetry, "/still", made, &before, &spantap.own_metrics()?))?;
    let lost = admin::lost_between(&admin::losses(&before), &spantap.losses()?);
    ensure!(lost.get("ring_buffer_full").is_some_and(|n| *n > 0), "the ring buffer should have overflowed: {lost:?}");
    world.spantap.take().context("stopped")?.stop().map(drop)
}

fn books(telemetry: &Telemetry, path: &str, made: u64, before: &str, own: &str) -> Result<()> {
    let (reported, lost) = (nginx(telemetry, path), admin::lost_between(&admin::losses(before), &admin::losses(own)));
    let counted = admin::exchanges(&lost) + admin::spans_lost(own) - admin::spans_lost(before);
    ensure!(reported + counted == made, "{made} made, {reported} reported, {counted} counted as lost: {lost:?}");
    Ok(())
}

/// The same, until the connections are closed: of some the beginning is told and no end, of others nothing at all.
fn agent_stands_still_until_the_end() -> Result<()> {
    const EACH: u64 = 2_000;
    let server = Server::nginx(1, None)?;
    let mut world = split(&server, true)?;
    world.wait_observing()?;
    world.spantap()?.agent()?.signal(Signal::STOP)?;
    for _ in 0..2 {
        load::make(server.port, "/ends", EACH, 8)?;
    }
    world.spantap()?.agent()?.signal(Signal::CONT)?;
    let after = Steady::start(server.port, "/after", 1, Duration::from_millis(5));
    flows(&mut world, "/after", 0)?;
    // The ring buffer may be full still at the first of these.
    let after = after.stop().context("the watched program noticed")?;

    // What is open, because its response was lost with all that followed, is counted when the forwarder ends.
    let log = world.spantap.take().context("stopped")?.stop()?;
    let books = admin::summary(&log).context("no summary")?;
    ensure!(books.adds_up, "the books do not add up: {books:?}");
    let (made, counted) = (2 * EACH + after, admin::exchanges(&books.losses));
    let lost = books.losses.get("ring_buffer_full").copied().unwrap_or_default();
    ensure!(lost > EACH, "the ring buffer should have overflowed: {books:?}");
    world.collector.wait_until(ARRIVAL, |telemetry| {
        let reported = nginx(telemetry, "/ends") + nginx(telemetry, "/after");
        ensure!(reported + counted == made, "{made} made, {reported} reported, {counted} counted as lost: {books:?}");
        Ok(())
    })
}

/// The receiver is away for two seconds: retries bring everything.
fn collector_restarts() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let mut world = split(&server, false)?;
    world.wait_observing()?;
    let load = Steady::start(server.port, "/collector", 4, Duration::from_millis(5));
    flows(&mut world, "/collector", 0)?;
    let port = world.collector.port;
    world.collector.stop()?;
    std::thread::sleep(Duration::from_secs(2));
    let first = count(&mut world, "/collector")?;
    world.collector = Collector::start_on(port)?;
    flows(&mut world, "/collector", 0)?;
    let made = load.stop().context("the watched program noticed")?;
    let Observed { collector, spantap, .. } = &mut world;
    let spantap = spantap.as_ref().context("stopped")?;
    collector.wait_until(ARRIVAL, |telemetry| {
        let (reported, own) = (first + nginx(telemetry, "/collector"), spantap.own_metrics()?);
        let lost = admin::losses(&own);
        let counted = admin::exchanges(&lost) + admin::spans_lost(&own);
        // A batch whose answer was lost with the receiver is sent again.
        ensure!(reported + counted >= made, "{made} made, {reported} reported, {counted} counted as lost: {lost:?}");
        Ok(())
    })?;
    world.spantap.take().context("stopped")?.stop().map(drop)
}
