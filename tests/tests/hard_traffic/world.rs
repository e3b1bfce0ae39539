//! Runs cases: subjects prepared ahead, traffic, then the wait for exactly what is due.

use std::{collections::HashMap, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use spantap_tests::{
    admin::{self, Losses},
    collector::Collector,
    compiled, expect, host,
    observed::{self, ARRIVAL, Observed},
    pair::{Pair, Subject},
    spantap::Setup,
    suite::World,
    telemetry::{Kind, Telemetry},
};

use crate::{
    case::{Case, Due, Lost, Server, Start},
    processes,
};

/// Longest time for the traffic of one case.
const TRAFFIC: Duration = Duration::from_secs(40);
/// How long nothing may come before a case that expects nothing is believed.
const QUIET: Duration = Duration::from_millis(400);

/// What the cases share.
pub(crate) struct Table {
    world: Observed,
    pairs: HashMap<String, Pair>,
    passed: Vec<Case>,
}

impl World for Table {
    fn logs(&self) -> String {
        self.world.logs()
    }
}

impl Table {
    pub(crate) fn start(cases: &[Case]) -> Result<Self> {
        let collector = Collector::start()?;
        let mut pairs = HashMap::new();
        for case in cases.iter().filter(|case| case.lacks.is_none() && case.start == Start::BeforeSpantap) {
            let pair = prepare(case)?;
            begin(case, &pair, &collector)?;
            // One of the two gives it when the traffic before Spantap is over.
            let early = |subject: &Subject| subject.wait_signal("early", Duration::from_millis(100)).is_ok();
            host::wait_for("the early traffic", TRAFFIC, || {
                (early(&pair.client) || early(&pair.server)).then_some(())
            })?;
            pairs.insert(case.name.clone(), pair);
        }
        let scripts = format!("cmd_args: \"*{}/*\"", compiled::subjects().display());
        let setup = Setup::observing(&[&observed::subjects()?, "exe_path: \"*/uring_server\"", &scripts], &collector)
            .environment("OTEL_EBPF_LOG_LEVEL", "debug");
        let spantap = setup.start()?;
        for case in cases.iter().filter(|case| case.lacks.is_none() && case.start != Start::BeforeSpantap) {
            pairs.insert(case.name.clone(), prepare(case)?);
        }
        let mut world = Observed::of(collector, spantap);
        world.wait_observing()?;
        Ok(Self { world, pairs, passed: Vec::new() })
    }

    /// Runs one case.
    pub(crate) fn run(&mut self, case: &Case) -> Result<()> {
        let mut pair = self.pairs.remove(&case.name).context("was not prepared")?;
        let before = self.world.spantap()?.losses()?;
        match case.start {
            Start::BeforeSpantap => pair.signal("observed")?,
            Start::ClientFresh => {
                pair.client = Subject::scripted(&format!("{}-client", case.name))?;
                begin(case, &pair, &self.world.collector)?;
            }
            Start::Ahead => begin(case, &pair, &self.world.collector)?,
        }
        pair.finish(TRAFFIC)?;
        self.came_true(case, &before)?;
        self.passed.push(case.clone());
        Ok(())
    }

    fn came_true(&mut self, case: &Case, before: &Losses) -> Result<()> {
        let Observed { collector, spantap, .. } = &mut self.world;
        let spantap = spantap.as_ref().context("Spantap was stopped")?;
        let outcome = collector.wait_until(ARRIVAL, |telemetry| {
            let lost = admin::lost_between(before, &spantap.losses()?);
            due(case, telemetry, &lost)?;
            allowed(case, &lost)
        });
        outcome?;
        // What this case loses must not be taken for a loss of the next one.
        if !matches!(case.lost, Lost::Nothing) {
            collector.settle(QUIET, ARRIVAL)?;
        }
        let lost = admin::lost_between(before, &spantap.losses()?);
        due(case, collector.telemetry()?, &lost)?;
        allowed(case, &lost)
    }

    /// Spans that came twice or late would have been missed by the cases themselves.
    pub(crate) fn nothing_came_later(&mut self) -> Result<()> {
        self.world.collector.settle(QUIET, ARRIVAL)?;
        let telemetry = self.world.collector.telemetry()?;
        let wrong: Vec<String> = self
            .passed
            .iter()
            .filter(|case| matches!(case.due, Due::Spans(..)))
            .filter_map(|case| due(case, telemetry, &Losses::new()).err())
            .map(|error| format!("{error:#}"))
            .collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        let evil: Vec<_> = telemetry.spans.iter().filter(|s| s.path().starts_with("/evil")).collect();
        ensure!(evil.is_empty(), "spans of heads inside bodies: {evil:?}");
        let mut ids: Vec<&str> = telemetry.spans.iter().map(|s| s.span_id.as_str()).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        ensure!(ids.len() == count, "{} span ids occur twice", count - ids.len());
        Ok(())
    }

    /// Two processes in two network namespaces, with the same addresses and ports.
    pub(crate) fn same_port_twice(&mut self) -> Result<()> {
        let names = ["same_port_a", "same_port_b"];
        let port = host::free_port()?;
        let folder = self.world.collector.folder().to_path_buf();
        let mut subjects = Vec::new();
        for name in names {
            let mut command = Command::new("unshare");
            command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\""]).arg(host::own("subject")?);
            let subject = Subject::start(command, name)?;
            subject.begin(&processes::alone(name, port), None, &folder)?;
            subject.listening()?;
            subjects.push(subject);
        }
        self.world.wait_observing()?;
        subjects.iter().try_for_each(|subject| subject.tell("both"))?;
        subjects.iter_mut().try_for_each(|subject| subject.finish(TRAFFIC))?;
        self.world.collector.wait_until(ARRIVAL, |telemetry| {
            for name in names {
                let expected: Vec<_> = (0..5).map(|n| expect::span("GET", format!("/{name}/{n}"), 200)).collect();
                for kind in [Kind::Server, Kind::Client] {
                    expect::spans(telemetry, name, kind, &expected)?;
                    expect::metrics_agree(telemetry, name, kind)?;
                }
            }
            Ok(())
        })
    }

    /// SIGTERM: exit code 0, and a summary that names exactly what arrived.
    pub(crate) fn stops(&mut self) -> Result<()> {
        let spantap = self.world.spantap.take().context("Spantap was stopped")?;
        // Exchanges of traces that are not sampled are reported, by metrics alone.
        let own = spantap.own_metrics()?;
        let unsampled: f64 =
            admin::samples(&own).iter().filter(|s| s.name == "spantap_spans_unsampled_total").map(|s| s.value).sum();
        let log = spantap.stop()?;
        let books = admin::summary(&log).context("no summary at the end of the log")?;
        ensure!(books.adds_up, "the books are not right: {books:?}");
        let telemetry = self.world.collector.telemetry()?;
        let came = telemetry.spans.len() as u64 + unsampled as u64;
        ensure!(came == books.server + books.client, "{came} spans came, the summary says {books:?}");
        Ok(())
    }
}

fn prepare(case: &Case) -> Result<Pair> {
    let (server, client) = (format!("{}-server", case.name), format!("{}-client", case.name));
    let server = match &case.server {
        Server::Plays(_) => Subject::scripted(&server)?,
        Server::Program(program, arguments) => Subject::start(Server::command(program, arguments), &server)?,
    };
    Ok(Pair { server, client: Subject::scripted(&client)? })
}

fn begin(case: &Case, pair: &Pair, collector: &Collector) -> Result<()> {
    let nothing = Vec::new();
    let script = match &case.server {
        Server::Plays(script) => script,
        Server::Program(..) => &nothing,
    };
    pair.begin(script, &case.client, collector.folder())
}

fn due(case: &Case, telemetry: &Telemetry, lost: &Losses) -> Result<()> {
    let (server, client) = (format!("{}-server", case.name), format!("{}-client", case.name));
    match &case.due {
        Due::Spans(at_server, at_client) => {
            expect::spans(telemetry, &server, Kind::Server, at_server)?;
            expect::spans(telemetry, &client, Kind::Client, at_client)?;
            // Nobody is both here.
            expect::spans(telemetry, &server, Kind::Client, &[])?;
            expect::spans(telemetry, &client, Kind::Server, &[])?;
        }
        Due::Unsampled => {
            expect::spans(telemetry, &server, Kind::Server, &[])?;
            let count = telemetry.count("http.server.request.duration", &server);
            ensure!(count == 1, "metrics count before sampling: {count}, not 1");
            return Ok(());
        }
        Due::ReportedOrLost(total) => {
            let spans = [telemetry.spans_of(&server), telemetry.spans_of(&client)].concat();
            spans.iter().try_for_each(|span| expect::well_formed(span))?;
            let counted = admin::exchanges(lost);
            let sum = spans.len() as u64 + counted;
            ensure!(sum == *total, "{total} exchanges, {} reported, {counted} counted: {lost:?}", spans.len());
        }
        Due::BeyondSight(total) => {
            let spans = [telemetry.spans_of(&server), telemetry.spans_of(&client)].concat();
            spans.iter().try_for_each(|span| expect::well_formed(span))?;
            let (reported, counted) = (spans.len() as u64, admin::exchanges(lost));
            ensure!(
                reported > 0 && counted > 0 && reported + counted <= *total,
                "{total} exchanges, {reported} reported, {counted} counted: {lost:?}"
            );
        }
    }
    expect::metrics_agree(telemetry, &server, Kind::Server)?;
    expect::metrics_agree(telemetry, &client, Kind::Client)
}

fn allowed(case: &Case, lost: &Losses) -> Result<()> {
    match case.lost {
        Lost::Nothing => ensure!(lost.is_empty(), "nothing may be lost, counted: {lost:?}"),
        Lost::May(reasons) => {
            let others: Vec<_> = lost.iter().filter(|(reason, _)| !reasons.contains(&reason.as_str())).collect();
            ensure!(others.is_empty(), "only {reasons:?} may be lost, counted: {others:?}");
        }
        Lost::Must(reason) => {
            if lost.get(reason) != Some(&2) || lost.len() > 1 {
                bail!("{reason} must be counted, once at each end, counted: {lost:?}");
            }
        }
    }
    Ok(())
}
