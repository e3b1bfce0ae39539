//! N requests made: N server spans, N client spans, histograms that count N; or the difference is counted as lost.
//!
//! A slow Collector beside a fast load may fill the queue of spans: then fewer arrive, and the books say how many.
#![allow(missing_docs)]

use std::{process::Command, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin, collector, expect, host,
    observed::{self, Observed},
    pair::Subject,
    servers::Server,
    spantap::Setup,
    suite::Suite,
    telemetry::{Kind, Span, Telemetry},
};

const REQUESTS: u64 = 10_000;
const CONNECTIONS: u64 = 64;
const ARRIVAL: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    let lacks = [host::lacks_root_and_btf(), host::lacks("nginx"), no_collector];
    Suite::new("exactness", lacks, || {
        Observed::start(|c| Ok(Setup::observing(&[&observed::subjects()?, "exe_path: \"*/nginx\""], c)))
    })
    .case("ten_thousand_requests_at_full_speed", |world| full_speed(world, false))
    .case("ten_thousand_requests_and_a_connection_for_each_hundred", |world| full_speed(world, true))
    .case("the_summary_says_the_same", summary)
    .run()
}

fn full_speed(world: &mut Observed, many_clients: bool) -> Result<()> {
    let nginx = Server::nginx(2, None)?;
    let path = if many_clients { "/many" } else { "/one" };
    let clients = if many_clients { 10 } else { 1 };
    let service = format!("load{}", path.replace('/', "-"));
    let mut loads = Vec::new();
    for _ in 0..clients {
        let mut command = Command::new(host::own("subject")?);
        let numbers = [REQUESTS / clients, CONNECTIONS.div_ceil(clients)].map(|n| n.to_string());
        command.args(["load", &nginx.port.to_string(), path]).args(numbers);
        loads.push(Subject::start(command, &service)?);
    }
    // They and nginx's workers were started before this call, so they are observed when it returns.
    world.wait_observing()?;
    let before = world.spantap()?.own_metrics()?;
    loads.iter().try_for_each(|load| load.tell("begin"))?;
    loads.iter_mut().try_for_each(|load| load.finish(Duration::from_secs(60)))?;

    let Observed { collector, spantap, .. } = world;
    let spantap = spantap.as_ref().context("Spantap was stopped")?;
    let check = |telemetry: &Telemetry| {
        let own = spantap.own_metrics()?;
        let lost = admin::lost_between(&admin::losses(&before), &admin::losses(&own));
        // Other servers of this machine may be called nginx too.
        let here = |s: &Span| s.path() == path && s.attributes.number("server.port") == Some(i64::from(nginx.port));
        let of = |kind| telemetry.spans.iter().filter(|s| s.kind == kind && here(s)).count() as u64;
        let (server, client) = (of(Kind::Server), of(Kind::Client));
        ensure!(server <= REQUESTS && client <= REQUESTS, "{server} server and {client} client spans of {REQUESTS}");
        let counted = admin::exchanges(&lost) + admin::spans_lost(&own) - admin::spans_lost(&before);
        ensure!(
            server + client + counted == 2 * REQUESTS,
            "{server} server and {client} client spans of {REQUESTS} each, {counted} counted as lost: {lost:?}"
        );
        let all = [("nginx", Kind::Server), ("load-one", Kind::Client), ("load-many", Kind::Client)];
        let missing = all.map(|(service, kind)| expect::spans_missing(telemetry, service, kind));
        let missing = missing.into_iter().sum::<Result<u64>>()?;
        ensure!(missing == admin::spans_lost(&own), "{missing} spans are missing, lost: {lost:?}");
        Ok(())
    };
    collector.wait_until(ARRIVAL, check)?;
    // Nothing may come twice, either.
    collector.settle(Duration::from_millis(500), ARRIVAL)?;
    check(collector.telemetry()?)
}

fn summary(world: &mut Observed) -> Result<()> {
    let log = world.spantap.take().context("Spantap was stopped")?.stop()?;
    let books = admin::summary(&log).context("no summary at the end of the log")?;
    ensure!(books.adds_up, "the books are not right: {books:?}");
    let telemetry = world.collector.telemetry()?;
    let of = |kind| telemetry.spans.iter().filter(|s| s.kind == kind).count() as u64;
    let (server, client) = (of(Kind::Server), of(Kind::Client));
    let lost: u64 =
        books.losses.iter().filter(|(reason, _)| reason.starts_with("export_")).map(|(_, items)| items).sum();
    ensure!(
        server <= books.server && client <= books.client && server + client + lost == books.server + books.client,
        "{server} server and {client} client spans, but the summary is {books:?}"
    );
    Ok(())
}
