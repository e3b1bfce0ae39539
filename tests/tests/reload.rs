//! Another configuration while running: by SIGHUP and by a change of the file, under load, with nothing lost; a broken one
//! is refused. And what only a configuration of spans changes: which of them are kept, and what of the head is in them.
#![allow(missing_docs)]

use std::{fs, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use spantap_tests::{
    admin,
    collector::{self, Collector},
    host, http,
    load::{self, Steady},
    observed::{self, Observed},
    servers::Server,
    spantap::{Setup, Spantap},
    suite::Suite,
    telemetry::{Kind, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), host::lacks("nginx"), collector::lacks_collector()];
    Suite::new("reload", lacks, || Ok(()))
        .case("endpoint_changes_under_load", |()| endpoint_changes())
        .case("broken_file_is_refused", |()| broken_file())
        .case("changed_file_is_read", |()| changed_file())
        .case("discovery_changes_in_one_command", |()| discovery_changes(false))
        .case("discovery_changes_in_an_agent_of_its_own", |()| discovery_changes(true))
        .case("errors_are_kept_at_any_ratio", |()| errors_are_kept())
        .case("entries_have_routes_and_samplers", |()| entries())
        .run()
}

fn world(server: &Server) -> Result<Observed> {
    let mut world = Observed::start(|collector| {
        Ok(Setup::observing(&[&observed::subjects()?, &format!("open_ports: {}", server.port)], collector))
    })?;
    world.wait_observing()?;
    Ok(world)
}

fn nginx(telemetry: &Telemetry, path: &str) -> u64 {
    telemetry.spans.iter().filter(|s| s.kind == Kind::Server && s.service() == "nginx" && s.path() == path).count()
        as u64
}

fn flows(collector: &mut Collector, path: &str, since: u64) -> Result<()> {
    collector.wait_until(ARRIVAL, |telemetry| {
        let now = nginx(telemetry, path);
        ensure!(now > since + 20, "{now} spans for {path}, no more than before");
        Ok(())
    })
}

/// Puts another text in the place of the configuration in one step, as editors do.
fn configure(spantap: &Spantap, change: impl FnOnce(String) -> String) -> Result<()> {
    let path = spantap.configuration();
    let new = path.with_extension("new");
    let text = change(fs::read_to_string(&path)?);
    fs::write(&new, text)?;
    fs::rename(&new, &path).context("putting the new configuration in its place")
}

fn reloads(spantap: &Spantap, result: &str) -> Result<f64> {
    let own = spantap.own_metrics()?;
    let line = own.lines().find(|line| line.starts_with("spantap_config_reloads_total") && line.contains(result));
    let value = line.and_then(|line| line.rsplit(' ').next()).context("no spantap.config.reloads")?;
    value.parse().context("a number")
}

fn wait_reloaded(spantap: &Spantap, result: &str, times: f64) -> Result<()> {
    host::wait_for(&format!("reload {times} {result}"), ARRIVAL, || {
        reloads(spantap, result).ok().filter(|n| *n >= times)
    })
    .map(drop)
}

/// Both receivers together got every span once, and the second one's series count everything since the start.
fn endpoint_changes() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let Observed { collector: mut first, spantap, .. } = world(&server)?;
    let mut spantap = spantap.context("started")?;
    let mut second = Collector::start()?;
    let before = spantap.own_metrics()?;
    let load = Steady::start(server.port, "/endpoint", 4, Duration::from_millis(2));
    flows(&mut first, "/endpoint", 0)?;
    let (old, new) = (first.endpoint(), second.endpoint());
    configure(&spantap, |text| text.replace(&old, &new))?;
    spantap.forwarder().signal(Signal::HUP)?;
    flows(&mut second, "/endpoint", 0)?;
    // And back again, while the second is in use.
    configure(&spantap, |text| text.replace(&new, &old))?;
    spantap.forwarder().signal(Signal::HUP)?;
    let at_first = nginx(first.telemetry()?, "/endpoint");
    flows(&mut first, "/endpoint", at_first)?;
    let made = load.stop().context("the watched program noticed")?;

    first.wait_until(ARRIVAL, |telemetry| {
        let (one, two) = (nginx(telemetry, "/endpoint"), nginx(second.telemetry()?, "/endpoint"));
        ensure!(one + two == made, "{made} made, {one} and {two} spans");
        ensure!(two > 20, "{two} spans at the second");
        let counted = telemetry.count("http.server.request.duration", "nginx");
        ensure!(counted >= made, "{made} made, the first's series count {counted}: they began anew");
        Ok(())
    })?;
    ensure!(second.telemetry()?.count("http.server.request.duration", "nginx") > 0, "no metrics at the second");
    let own = spantap.own_metrics()?;
    let lost = admin::lost_between(&admin::losses(&before), &admin::losses(&own));
    ensure!(lost.values().all(|n| *n == 0), "lost: {lost:?}");
    let log = spantap.stop()?;
    ensure!(log.contains("adds_up=true") || log.contains("\"adds_up\":true"), "the books: {log}");
    Ok(())
}

fn broken_file() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let mut world = world(&server)?;
    let load = Steady::start(server.port, "/broken", 2, Duration::from_millis(5));
    flows(&mut world.collector, "/broken", 0)?;
    let spantap = world.spantap()?;
    configure(spantap, |text| format!("routes:\n  unmatched: nonsense\n{text}"))?;
    spantap.forwarder().signal(Signal::HUP)?;
    wait_reloaded(spantap, "refused", 1.0)?;
    let log = spantap.tail();
    ensure!(log.contains("spantap.yml:2:14: routes.unmatched: found \"nonsense\""), "file, line and key: {log}");
    let before = nginx(world.collector.telemetry()?, "/broken");
    flows(&mut world.collector, "/broken", before)?;
    load.stop().context("the watched program noticed")?;
    let spantap = world.spantap()?;
    ensure!(reloads(spantap, "\"ok\"")? == 0.0, "something was reloaded");
    world.spantap.take().context("stopped")?.stop().map(drop)
}

/// No signal: the file alone. Routes change, ignored paths go, what cannot change is named.
fn changed_file() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let mut world = world(&server)?;
    let load = Steady::start(server.port, "/orders/17", 2, Duration::from_millis(5));
    let ignored = Steady::start(server.port, "/health", 1, Duration::from_millis(5));
    flows(&mut world.collector, "/orders/17", 0)?;
    let route = |telemetry: &Telemetry, wanted: &str| {
        let named =
            |s: &&std::sync::Arc<spantap_tests::telemetry::Span>| s.attributes.text("http.route") == Some(wanted);
        telemetry.spans.iter().filter(named).count()
    };
    world.collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(route(telemetry, "/orders/*") > 0, "no route by the heuristic");
        Ok(())
    })?;
    let spantap = world.spantap()?;
    let routes = "routes:\n  patterns: ['/orders/{id}']\n  ignored_patterns: [/health]\nlog_level: debug\n";
    configure(spantap, |text| format!("{routes}{text}"))?;
    wait_reloaded(spantap, "\"ok\"", 1.0)?;
    let log = spantap.tail();
    ensure!(log.contains("log_level: not changed"), "what cannot change is said: {log}");
    world.collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(route(telemetry, "/orders/{id}") > 20, "no route by the new pattern");
        Ok(())
    })?;
    let spantap = world.spantap()?;
    let own = spantap.own_metrics()?;
    let line = own.lines().find(|l| l.starts_with("spantap_ignored_by_route_total") && l.contains("\"traces\""));
    ensure!(line.is_some_and(|l| !l.ends_with(" 0")), "nothing was ignored: {line:?}");
    load.stop().and(ignored.stop()).context("the watched program noticed")?;
    let log = world.spantap.take().context("stopped")?.stop()?;
    ensure!(log.contains("adds_up=true") || log.contains("\"adds_up\":true"), "the books: {log}");
    Ok(())
}

/// One program stays observed and loses nothing, another is observed no more, a third, whose connections are open already, is
/// from now on. Then a mistake, after which all goes on.
fn discovery_changes(split: bool) -> Result<()> {
    let [stays, goes, comes] = [Server::nginx(1, None)?, Server::nginx(1, None)?, Server::nginx(1, None)?];
    let mut collector = Collector::start()?;
    let entry = |server: &Server, name: &str| format!("{{open_ports: {}, name: {name}}}", server.port);
    let setup = Setup::observing(&[&entry(&stays, "old-name"), &entry(&goes, "goes")], &collector);
    let mut spantap = if split { setup.split().start()? } else { setup.start()? };
    // The first requests may come before the servers are found.
    collector.wait_until(ARRIVAL, |telemetry| {
        for (server, name) in [(&stays, "old-name"), (&goes, "goes")] {
            ensure!(http::get(server.port, "/first")?.status == 200, "no answer");
            ensure!(!telemetry.spans_of(name).is_empty(), "{name} is not observed");
        }
        Ok(())
    })?;
    let before = spantap.own_metrics()?;
    let of = |telemetry: &Telemetry, name: &str, path: &str| {
        telemetry.spans_of(name).iter().filter(|s| s.path() == path).count() as u64
    };
    let pause = Duration::from_millis(2);
    let staying = Steady::start(stays.port, "/stays", 2, pause);
    let (going, coming) = (Steady::start(goes.port, "/goes", 2, pause), Steady::start(comes.port, "/comes", 2, pause));
    collector.wait_until(ARRIVAL, |telemetry| {
        let (stays, goes) = (of(telemetry, "old-name", "/stays"), of(telemetry, "goes", "/goes"));
        ensure!(stays > 20 && goes > 20, "{stays} and {goes} spans");
        ensure!(of(telemetry, "comes", "/comes") == 0, "nobody asked for the third");
        Ok(())
    })?;

    let (old, new) = (entry(&goes, "goes"), entry(&comes, "comes"));
    configure(&spantap, |text| text.replace(&old, &new).replace("old-name", "new-name"))?;
    if split {
        spantap.agent()?.signal(Signal::HUP)?;
    }
    collector.wait_until(ARRIVAL, |telemetry| {
        let (stays, comes) = (of(telemetry, "new-name", "/stays"), of(telemetry, "comes", "/comes"));
        ensure!(stays > 20 && comes > 20, "{stays} spans under the new name, {comes} of the third");
        Ok(())
    })?;
    collector.settle(Duration::from_millis(300), Duration::from_millis(900)).ok();
    let (at, asked) = (of(collector.telemetry()?, "goes", "/goes"), going.answered());

    configure(&spantap, |text| text.replace("new-name", "never-name").replace("open_ports: ", "open_ports: x"))?;
    host::wait_for("both say the mistake", ARRIVAL, || {
        let log = spantap.tail();
        (log.matches("is refused, the old one goes on").count() >= 2 && log.contains("open_ports")).then_some(())
    })?;
    let earlier = of(collector.telemetry()?, "comes", "/comes");
    collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(of(telemetry, "comes", "/comes") > earlier + 20, "the old rules do not go on");
        Ok(())
    })?;
    ensure!(going.answered() > asked + 20, "the second program was asked all the time");
    going.stop().and(coming.stop()).context("the watched programs noticed")?;
    let made = staying.stop().context("the watched program noticed")?;
    collector.wait_until(ARRIVAL, |telemetry| {
        let (old, new) = (of(telemetry, "old-name", "/stays"), of(telemetry, "new-name", "/stays"));
        ensure!(old + new == made, "{made} made, {old} spans under the old and {new} under the new name");
        Ok(())
    })?;
    let telemetry = collector.telemetry()?;
    ensure!(of(telemetry, "goes", "/goes") == at, "the second is still observed");
    ensure!(of(telemetry, "never-name", "/stays") == 0, "the file with the mistake holds");
    let lost = admin::lost_between(&admin::losses(&before), &admin::losses(&spantap.own_metrics()?));
    let open = |reason: &str| reason.contains("not_observed");
    let sum: u64 = lost.values().sum();
    ensure!(
        lost.iter().all(|(reason, n)| *n == 0 || open(reason)) && sum <= 4,
        "lost beside what was open of the second and third: {lost:?}"
    );
    let log = spantap.stop()?;
    ensure!(log.contains("adds_up=true") || log.contains("\"adds_up\":true"), "the books: {log}");
    Ok(())
}

/// A sampler that keeps nothing, and errors that are kept all the same; metrics count everything. Fields of the head by list.
fn errors_are_kept() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let mut collector = Collector::start()?;
    let spantap = Setup::observing(&[&format!("open_ports: {}", server.port)], &collector)
        .own_key("sampler", "{keep_errors: true}")
        .own_key("headers", "{request: [host], response: [server]}")
        .environment("OTEL_TRACES_SAMPLER", "traceidratio")
        .environment("OTEL_TRACES_SAMPLER_ARG", "0")
        .start()?;
    // The server is observed once the first error is reported.
    collector.wait_until(ARRIVAL, |telemetry| {
        ensure!(http::get(server.port, "/status/500")?.status == 500, "no 500");
        ensure!(nginx(telemetry, "/status/500") > 0, "no span of an error");
        Ok(())
    })?;
    load::make(server.port, "/fine", 200, 2)?;
    collector.wait_until(ARRIVAL, |telemetry| {
        let good = telemetry
            .points("http.server.request.duration")
            .filter(|p| p.service() == "nginx" && p.attributes.number("http.response.status_code") == Some(200));
        let good: u64 = good.map(|p| p.count).sum();
        ensure!(good >= 200, "{good} of 200 are measured");
        Ok(())
    })?;
    collector.settle(Duration::from_millis(500), ARRIVAL)?;
    let telemetry = collector.telemetry()?;
    let spans = telemetry.spans_of("nginx");
    ensure!(spans.iter().all(|s| s.status_code() == Some(500)), "only errors are kept");
    for key in ["http.request.header.host", "http.response.header.server"] {
        ensure!(spans.iter().all(|s| s.attributes.has(key)), "no {key}");
    }
    let log = spantap.stop()?;
    ensure!(log.contains("adds_up=true") || log.contains("\"adds_up\":true"), "the books: {log}");
    Ok(())
}

/// What a discovery entry says reaches the forwarder with the process: its routes, its sampler.
fn entries() -> Result<()> {
    let (silent, traced) = (Server::nginx(1, None)?, Server::nginx(1, None)?);
    let own = |port: u16, name: &str, more: &str| {
        format!("{{open_ports: {port}, name: {name}, routes: {{incoming: ['/{name}/{{id}}']}}{more}}}")
    };
    let mut collector = Collector::start()?;
    let entries = [
        own(silent.port, "silent", ", sampler: {name: always_off}"),
        own(traced.port, "traced", ", sampler: {name: traceidratio, arg: '1'}"),
    ];
    let spantap = Setup::observing(&entries.each_ref().map(String::as_str), &collector).start()?;
    let measured = |telemetry: &Telemetry, name: &str| {
        let route = format!("/{name}/{{id}}");
        let points = telemetry.points("http.server.request.duration").filter(|p| p.service() == name);
        points.filter(|p| p.attributes.text("http.route") == Some(&route)).map(|p| p.count).sum::<u64>()
    };
    collector.wait_until(ARRIVAL, |telemetry| {
        for (server, name) in [(&silent, "silent"), (&traced, "traced")] {
            ensure!(http::get(server.port, &format!("/{name}/7"))?.status == 200, "no answer");
            ensure!(measured(telemetry, name) > 0, "{name} is not measured under its route");
        }
        ensure!(!telemetry.spans_of("traced").is_empty(), "no span of the one that is traced");
        Ok(())
    })?;
    let telemetry = collector.telemetry()?;
    ensure!(telemetry.spans_of("silent").is_empty(), "spans of a service whose sampler is always_off");
    ensure!(telemetry.spans_of("traced").iter().all(|s| s.name == "GET /traced/{id}"), "the route is in the name");
    spantap.stop().map(drop)
}
