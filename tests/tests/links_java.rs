//! Links inside of programs on a JDK: which of them the rule of threads finds, and that none is wrong.
//!
//! The truth is in the path: the number in the path that the program is asked for is in the path that it asks for. Tried are the
//! `java` that is installed, and virtual threads of another one. `REQUESTS`: requests of each kind, and all kinds on both.
#![allow(missing_docs)]

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin, collector, host,
    java::{self, Java},
    load,
    loops::{self, Score, by_path},
    observed::{self, Observed},
    relays::{self, Relay},
    servers,
    spantap::Setup,
    suite::{Suite, World},
    telemetry::{Kind, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(60);
/// Requests of each kind unless `REQUESTS` says how many.
const FEW: u64 = 60;
const CONNECTIONS: [u64; 2] = [1, 20];
/// Threads of a pool: more than connections, so that none of them waits.
const MANY: &str = "24";

/// What is expected of links; none is wrong in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// All but those of a beginning: until a program is warm, an answer may take longer than links are waited for.
    All,
    /// None.
    None,
    /// As many as there are.
    Some,
}

/// Name, kind of server and its threads, ways to ask, links.
type Case = (&'static str, [&'static str; 2], &'static [(&'static str, Links)]);

/// One program each: one that answers by other threads than receive is linked no more, whatever else it does.
const CASES: [Case; 6] = [
    ("pool", ["pool", MANY], &[("url", Links::All), ("client", Links::Some), ("same", Links::Some)]),
    ("async", ["pool", MANY], &[("async", Links::Some)]),
    ("async_few", ["pool", "2"], &[("async", Links::Some)]),
    ("sockets", ["sockets", ""], &[("url", Links::All), ("client", Links::Some)]),
    ("virtual", ["virtual", ""], &[("url", Links::None), ("client", Links::None)]),
    ("virtual_sockets", ["virtualsockets", ""], &[("url", Links::None)]),
];

fn main() -> ExitCode {
    let requests = std::env::var("REQUESTS").ok().and_then(|number| number.parse().ok());
    let python = servers::python().err().map(|_| "no python3".to_owned());
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), host::lacks("javac"), python];
    let mut suite = Suite::new("links_java", lacks, world);
    for (name, java, all) in [("installed", Java::installed(), true), ("fetched", Java::fetched(), requests.is_some())]
    {
        for (case, kind, modes) in CASES {
            let is_virtual = kind.first().is_some_and(|kind| kind.starts_with("virtual"));
            // The other one is there for these.
            if !(all || is_virtual) || (name == "installed" && is_virtual) {
                continue;
            }
            let (java, case) = (java.clone(), format!("{name}_{case}"));
            suite = suite.case_unless(java.as_ref().err().cloned(), case.clone(), move |world| {
                judge(world, &case, &java.map_err(anyhow::Error::msg)?, (kind, modes), requests.unwrap_or(FEW))
            });
        }
    }
    suite.run()
}

/// The usual world, and a folder with the class.
struct Classes {
    observed: Observed,
    folder: tempfile::TempDir,
}

impl World for Classes {
    fn logs(&self) -> String {
        self.observed.logs()
    }
}

fn world() -> Result<Classes> {
    let folder = host::folder()?;
    java::class("Relay", folder.path())?;
    let classes = format!("cmd_args: \"*{} Relay *\"", folder.path().display());
    let observed = Observed::start(|collector| {
        Ok(Setup::observing(&[&observed::subjects()?, &relays::scripts(), &classes], collector))
    })?;
    Ok(Classes { observed, folder })
}

/// Links of what the far end received to what the program sent.
fn between(
    telemetry: &Telemetry,
    [near, far]: [&str; 2],
    requests: u64,
    path: impl Fn(u64) -> String,
) -> Result<Score> {
    let (near, far) = (telemetry.spans_of(near), telemetry.spans_of(far));
    let (sent, arrived) = (by_path(&near, Kind::Client), by_path(&far, Kind::Server));
    let mut score = Score::default();
    for number in 0..requests {
        let path = path(number);
        let (child, parent) = (arrived.get(&*path).context("not arrived")?, sent.get(&*path).context("not sent")?);
        score.judge(child, parent, &["connection"]);
    }
    Ok(score)
}

fn judge(
    world: &mut Classes,
    name: &str,
    java: &Java,
    (kind, modes): ([&str; 2], &[(&str, Links)]),
    requests: u64,
) -> Result<()> {
    let (service, far_service) = (format!("java-{name}"), format!("java-{name}-far"));
    let far = Relay::threads(&far_service, 0, "0.001")?;
    let near = Relay::start(&service, |port| {
        let mut command = Command::new(&java.program);
        command.args(["-Xmx128m", "-cp"]).arg(world.folder.path());
        command.args(["Relay", &port.to_string(), &far.port.to_string()]).args(kind);
        Ok(command)
    })?;
    world.observed.wait_observing()?;
    let before = admin::unlinked(&world.observed.spantap()?.own_metrics()?);
    let runs = modes.iter().flat_map(|(mode, links)| CONNECTIONS.map(|connections| (mode, connections, *links)));
    for (mode, connections, _) in runs.clone() {
        load::make(near.port, &format!("/{mode}/in/{connections}-{{n}}"), requests, connections)?;
    }
    let (mut asked, mut missing, mut bad) = (0, 0, Vec::new());
    for (mode, connections, links) in runs {
        let path = |way: &'static str| move |number| format!("/{mode}/{way}/{connections}-{number}");
        let (inside, between) = world.observed.collector.wait_until(ARRIVAL, |telemetry| {
            let paths = (path("in"), |number| vec![path("out")(number)]);
            let inside = loops::inside(telemetry, &service, requests, paths, &["thread"])?;
            Ok((inside, between(telemetry, [&service, &far_service], requests, path("out"))?))
        })?;
        let version = java.version;
        println!(
            "{name} {mode} {connections}, Java {version}: right, wrong, unlinked: inside {inside:?}, between {between:?}"
        );
        (asked, missing) = (asked + requests, missing + inside.2 + between.2);
        let is_good = match links {
            Links::All => inside.2 * 5 <= requests,
            Links::None => inside.0 == 0,
            Links::Some => true,
        };
        if inside.1 > 0 || between.1 > 0 || !is_good {
            bad.push(format!("{mode} {connections}: {inside:?} {between:?}, expected {links:?}"));
        }
    }
    let reasons = admin::lost_between(&before, &admin::unlinked(&world.observed.spantap()?.own_metrics()?));
    println!("{name}: spans without a parent: {reasons:?}");
    drop((near, far));
    ensure!(bad.is_empty(), "{bad:?}");
    // Who asks the program is not observed.
    let counted: u64 = reasons.values().sum();
    ensure!(counted == asked + missing, "{asked} roots, {missing} missing, counted {reasons:?}");
    Ok(())
}
