//! Runs cases: subjects prepared ahead, traffic, then the wait for exactly what is due.

use std::{
    collections::{BTreeSet, HashMap},
    process::Command,
    time::{Duration, Instant},
};

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
/// How often a case is tried at most where the kernel skips runs of probes meanwhile. Where programs can be interrupted (7.0 on,
/// `preempt=full`) that happens by chance, often if everything is emulated; the loss is told, which is all that can be asked there.
const TRIES: u32 = 5;
/// How long what is due is waited for if runs were skipped: it may not come at all.
const PERHAPS: Duration = Duration::from_secs(2);

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
        let mut entries = vec![observed::subjects()?, "exe_path: \"*/uring_server\"".to_owned(), scripts];
        let players: BTreeSet<String> = cases
            .iter()
            .filter_map(|case| case.players.as_ref())
            .flatten()
            .map(|player| player.program.display().to_string())
            .collect();
        entries.extend(players.iter().map(|program| format!("exe_path: \"{program}\"")));
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        let spantap = Setup::observing(&entries, &collector).environment("OTEL_EBPF_LOG_LEVEL", "debug").start()?;
        for case in cases.iter().filter(|case| case.lacks.is_none() && case.start != Start::BeforeSpantap) {
            pairs.insert(case.name.clone(), prepare(case)?);
        }
        for program in players {
            host::wait_for(&format!("TLS of {program} to be read"), ARRIVAL, || {
                let text = spantap.own_metrics().ok()?;
                text.lines().any(|line| line.contains("state=\"read\"") && line.contains(&program)).then_some(())
            })?;
        }
        let mut world = Observed::of(collector, spantap);
        world.wait_observing()?;
        Ok(Self { world, pairs, passed: Vec::new() })
    }

    /// Runs one case.
    pub(crate) fn run(&mut self, case: &Case) -> Result<()> {
        let mut pair = Some(self.pairs.remove(&case.name).context("was not prepared")?);
        // What was open before Spantap cannot be had again.
        let tries = if case.start == Start::BeforeSpantap { 1 } else { TRIES };
        self.unless_skipped(tries, |table, number| match pair.take() {
            Some(pair) => table.run_with(case, pair),
            None => {
                // Other services, so that nothing of an earlier try is taken for this one.
                let case = Case { name: format!("{}-{number}", case.name), ..case.clone() };
                let pair = prepare(&case)?;
                table.world.wait_observing()?;
                table.run_with(&case, pair)
            }
        })
    }

    /// Tries `body` with the number of the try, again if it fails and the kernel has skipped runs of probes meanwhile.
    fn unless_skipped(&mut self, tries: u32, mut body: impl FnMut(&mut Self, u32) -> Result<()>) -> Result<()> {
        for number in 1.. {
            let before = self.world.spantap()?.losses()?;
            let Err(error) = body(self, number) else { break };
            let skipped = admin::lost_between(&before, &self.world.spantap()?.losses()?).get("probe_skipped").copied();
            let Some(skipped) = skipped.filter(|_| number < tries) else { return Err(error) };
            eprintln!("again: the kernel skipped {skipped} runs of probes, and counted them: {error:#}");
        }
        Ok(())
    }

    fn run_with(&mut self, case: &Case, mut pair: Pair) -> Result<()> {
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
        let since = Instant::now();
        collector.wait_until(ARRIVAL, |telemetry| {
            let lost = admin::lost_between(before, &spantap.losses()?);
            let allowed = allowed(case, &lost);
            // What was lost and may not be comes back by no waiting.
            if allowed.is_err() && !matches!(case.lost, Lost::Must(_)) {
                return Ok(allowed);
            }
            let outcome = due(case, telemetry, &lost).and(allowed);
            if is_in_vain(since, &lost) { Ok(outcome) } else { outcome.map(Ok) }
        })??;
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
        self.unless_skipped(TRIES, |table, number| {
            table.same_port(["a", "b"].map(|which| format!("same_port_{which}{number}")))
        })
    }

    fn same_port(&mut self, names: [String; 2]) -> Result<()> {
        let before = self.world.spantap()?.losses()?;
        let port = host::free_port()?;
        let folder = self.world.collector.folder().to_path_buf();
        let mut subjects = Vec::new();
        for name in &names {
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
        let Observed { collector, spantap, .. } = &mut self.world;
        let spantap = spantap.as_ref().context("Spantap was stopped")?;
        let came_true = |telemetry: &Telemetry| {
            for name in &names {
                let expected: Vec<_> = (0..5).map(|n| expect::span("GET", format!("/{name}/{n}"), 200)).collect();
                for kind in [Kind::Server, Kind::Client] {
                    expect::spans(telemetry, name, kind, &expected)?;
                    expect::metrics_agree(telemetry, name, kind)?;
                }
            }
            anyhow::Ok(())
        };
        let since = Instant::now();
        collector.wait_until(ARRIVAL, |telemetry| {
            let lost = admin::lost_between(&before, &spantap.losses()?);
            let came_true = came_true(telemetry);
            if is_in_vain(since, &lost) { Ok(came_true) } else { came_true.map(Ok) }
        })?
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
    if let Some([serves, asks]) = &case.players {
        let server = Subject::start(serves.command(), &server)?;
        return Ok(Pair { server, client: Subject::start(asks.command(), &client)? });
    }
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
            expect::spans_over(telemetry, &server, Kind::Server, at_server, case.scheme())?;
            expect::spans_over(telemetry, &client, Kind::Client, at_client, case.scheme())?;
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
            spans.iter().try_for_each(|span| expect::well_formed_over(span, case.scheme()))?;
            let counted = admin::exchanges(lost);
            let sum = spans.len() as u64 + counted;
            ensure!(sum == *total, "{total} exchanges, {} reported, {counted} counted: {lost:?}", spans.len());
        }
        Due::BeyondSight(total) => {
            let spans = [telemetry.spans_of(&server), telemetry.spans_of(&client)].concat();
            spans.iter().try_for_each(|span| expect::well_formed_over(span, case.scheme()))?;
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

fn is_in_vain(since: Instant, lost: &Losses) -> bool {
    lost.contains_key("probe_skipped") && since.elapsed() > host::patient(PERHAPS)
}

fn allowed(case: &Case, lost: &Losses) -> Result<()> {
    let mut lost = lost.clone();
    if host::is_emulated() {
        // Which event it was, and whether anybody's who is observed, nobody knows: the exchanges tell.
        lost.remove("probe_skipped");
    }
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
