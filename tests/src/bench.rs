//! What Spantap costs on this machine, measured and printed as tables.
//!
//! In: numbers of rounds and seconds. Out: tables on standard output, progress on standard error. Rounds without and with Spantap
//! alternate, because other work on the machine changes by the minute; ratios are medians of pairs. Only the
//! loopback is used, and everything ends after rounds times seconds.

mod https;
mod measure;
mod report;
mod round;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{host, servers::Server};
use report::Report;
use round::{Scene, Signals};

/// How long and how often.
#[derive(Debug, Clone, Copy)]
struct Extent {
    rounds: u32,
    seconds: u32,
}

/// The `bench` program.
pub fn main() -> ExitCode {
    if let Some(reason) = host::lacks_root_and_btf().or(host::lacks("nginx")).or(host::lacks("wrk")) {
        eprintln!("bench: {reason}");
        return ExitCode::from(77);
    }
    match arguments().and_then(|(extent, markdown)| run(extent, markdown)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(Extent, bool)> {
    let (mut extent, mut markdown) = (Extent { rounds: 5, seconds: 10 }, false);
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut number = || -> Result<u32> {
            let text = given.next().with_context(|| format!("{argument} needs a number"))?;
            let number = text.parse().with_context(|| format!("{argument}: {text} is no number"))?;
            if !(1..=120).contains(&number) {
                bail!("{argument}: 1 to 120");
            }
            Ok(number)
        };
        match argument.as_str() {
            "--rounds" => extent.rounds = number()?,
            "--seconds" => extent.seconds = number()?,
            "--markdown" => markdown = true,
            other => bail!("unknown argument {other}: --rounds N --seconds N --markdown"),
        }
    }
    Ok((extent, markdown))
}

fn run(extent: Extent, markdown: bool) -> Result<()> {
    println!("{}", report::machine(extent.rounds, extent.seconds, markdown));
    println!("{}", nginx(extent)?.print(markdown));
    let other = if host::lacks("go").is_none() {
        Some(("Go", Server::go()?))
    } else if host::lacks("node").is_none() {
        Some(("Node", Server::node()?))
    } else {
        None
    };
    match other {
        Some((name, server)) => println!("{}", asking(extent, name, &server)?.print(markdown)),
        None => eprintln!("bench: SKIP: a server with a client call: needs Go or Node"),
    }
    https::run(extent, markdown)
}

/// nginx answers 200, wrk asks; both are observed.
fn nginx(extent: Extent) -> Result<Report> {
    let nginx = Server::nginx(1, None)?;
    let scene = Scene {
        url: nginx.url("/"),
        counter: Some(nginx.port),
        watched: vec![measure::children(nginx.process.pid())],
        entries: vec!["exe_path: \"*/nginx\"".to_owned(), "exe_path: \"*/wrk\"".to_owned()],
        spans_per_request: 1,
        own_questions_are_seen: true,
    };
    let mut report = Report::new("nginx `return 200` and wrk, both observed");
    for round in 1..=extent.rounds {
        eprintln!("bench: nginx, round {round} of {}", extent.rounds);
        let without = scene.without(extent.seconds)?;
        let all = scene.with(extent.seconds, Signals::All, false)?;
        let metrics = scene.with(extent.seconds, Signals::MetricsOnly, false)?;
        report.add(without, [("spans and metrics", all), ("metrics only", metrics)]);
    }
    eprintln!("bench: nginx, time of the BPF programs");
    report.bpf(scene.with(extent.seconds, Signals::All, true)?);
    Ok(report)
}

/// A server that asks nginx in its handler; the server alone is observed.
fn asking(extent: Extent, name: &str, server: &Server) -> Result<Report> {
    let nginx = Server::nginx(1, None)?;
    let executable = std::fs::read_link(format!("/proc/{}/exe", server.process.pid()))?;
    let scene = Scene {
        url: server.url(&format!("/call?port={}", nginx.port)),
        counter: Some(nginx.port),
        watched: vec![vec![server.process.pid()]],
        entries: vec![format!("exe_path: \"{}\"", executable.display())],
        spans_per_request: 1,
        own_questions_are_seen: false,
    };
    let mut report = Report::new(&format!("{name} server that asks nginx in its handler, the server observed"));
    for round in 1..=extent.rounds {
        eprintln!("bench: {name}, round {round} of {}", extent.rounds);
        let without = scene.without(extent.seconds)?;
        report.add(without, [("spans and metrics", scene.with(extent.seconds, Signals::All, false)?)]);
    }
    Ok(report)
}

/// Median of some numbers; 0 of none.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    let at = |index: usize| numbers.get(index).copied().unwrap_or_default();
    if numbers.len() % 2 == 1 { at(middle) } else { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn median_of_odd_even_and_none() {
        for (numbers, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 2.5), (vec![], 0.0)] {
            assert_eq!(super::median(numbers), expected);
        }
    }
}
