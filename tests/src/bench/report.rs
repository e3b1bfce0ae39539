//! Rounds become a table: for people, or in Markdown for the documentation.
//!
//! In: rounds. Out: text.

use std::time::Duration;

use super::{median, round::Round};

/// Columns of one scene.
#[derive(Debug)]
pub(super) struct Report {
    title: String,
    without: Vec<Round>,
    columns: Vec<(&'static str, Vec<Round>)>,
    bpf: Option<Round>,
}

impl Report {
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), without: Vec::new(), columns: Vec::new(), bpf: None }
    }

    /// Adds a round without, and the ones with Spantap that belong to it.
    pub(super) fn add(&mut self, without: Round, with: impl IntoIterator<Item = (&'static str, Round)>) {
        self.without.push(without);
        for (name, round) in with {
            match self.columns.iter_mut().find(|(column, _)| *column == name) {
                Some((_, rounds)) => rounds.push(round),
                None => self.columns.push((name, vec![round])),
            }
        }
    }

    /// Adds the round in which the BPF programs were timed.
    pub(super) fn bpf(&mut self, round: Round) {
        self.bpf = Some(round);
    }

    /// The table.
    pub(super) fn print(&self, markdown: bool) -> String {
        let mut rows = vec![
            [vec![self.title.clone()], self.columns.iter().map(|(name, _)| (*name).to_owned()).collect()].concat(),
        ];
        let mut row = |name: &str, cell: &dyn Fn(&[Round]) -> String| {
            rows.push([vec![name.to_owned()], self.columns.iter().map(|(_, rounds)| cell(rounds)).collect()].concat());
        };
        let middle = |rounds: &[Round], of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        let without = middle(&self.without, &|r| r.rate);
        row("requests/s without", &|_| format!("{without:.0}"));
        row("requests/s with", &|rounds| format!("{:.0}", middle(rounds, &|r| r.rate)));
        row("ratio, median of the pairs", &|rounds| {
            format!(
                "{:.2}",
                median(rounds.iter().zip(&self.without).map(|(with, without)| with.rate / without.rate).collect())
            )
        });
        row("agent, µs CPU a request", &|rounds| format!("{:.2}", middle(rounds, &|r| r.agent_us)));
        row("forwarder, µs CPU a request", &|rounds| format!("{:.2}", middle(rounds, &|r| r.forwarder_us)));
        row("both, µs CPU a request", &|rounds| format!("{:.2}", middle(rounds, &|r| r.agent_us + r.forwarder_us)));
        row("added in the watched program and wrk, µs CPU a request", &|rounds| {
            let pairs = rounds.iter().zip(&self.without);
            format!("{:.2}", median(pairs.map(|(with, without)| with.load_us - without.load_us).collect()))
        });
        row("watched program, µs CPU a request without / with", &|rounds| {
            format!("{:.1} / {:.1}", middle(&self.without, &|r| r.watched_us), middle(rounds, &|r| r.watched_us))
        });
        row("receiver, µs CPU a request", &|rounds| format!("{:.2}", middle(rounds, &|r| r.sink_us)));
        let most = |rounds: &[Round], of: &dyn Fn(&Round) -> u64| {
            format!("{:.1}", rounds.iter().map(of).max().unwrap_or_default() as f64 / 1024.0)
        };
        row("agent, peak resident MiB without the ring buffer", &|rounds| {
            most(rounds, &|r| r.agent_memory.peak.saturating_sub(r.agent_memory.ring))
        });
        row("agent, the same while it starts", &|rounds| {
            most(rounds, &|r| r.agent_start_memory.peak.saturating_sub(r.agent_start_memory.ring))
        });
        row("ring buffer, resident MiB (mapped twice)", &|rounds| most(rounds, &|r| r.agent_memory.ring));
        row("forwarder, peak resident MiB", &|rounds| most(rounds, &|r| r.forwarder_memory.peak));
        let total = |rounds: &[Round], of: &dyn Fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
        row("requests made (nginx's own count, else wrk's)", &|rounds| total(rounds, &|r| r.requests).to_string());
        row("server exchanges due", &|rounds| total(rounds, &|r| r.due).to_string());
        row("server exchanges reported", &|rounds| total(rounds, &|r| r.reported).to_string());
        row("client spans received", &|rounds| total(rounds, &|r| r.client).to_string());
        row("counted as lost", &|rounds| lost(rounds));
        row("delay to the receiver, p50 / p99", &|rounds| {
            let of = |pick: &dyn Fn(&(Duration, Duration)) -> Duration| {
                let some: Vec<f64> =
                    rounds.iter().filter_map(|r| r.delays.as_ref()).map(|d| pick(d).as_secs_f64() * 1e3).collect();
                if some.is_empty() { "–".to_owned() } else { format!("{:.0} ms", median(some)) }
            };
            format!("{} / {}", of(&|d| d.0), of(&|d| d.1))
        });
        if let Some((ns, runs)) = self.bpf.as_ref().and_then(|round| round.bpf) {
            row("BPF programs, ns a request (runs), statistics on", &|_| format!("{ns:.0} ({runs:.1})"));
        }
        table(&rows, markdown)
    }
}

fn lost(rounds: &[Round]) -> String {
    let mut all = crate::admin::Losses::new();
    for (reason, count) in rounds.iter().flat_map(|round| &round.losses) {
        *all.entry(reason.clone()).or_default() += count;
    }
    if all.is_empty() {
        return "nothing".to_owned();
    }
    all.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
}

fn table(rows: &[Vec<String>], markdown: bool) -> String {
    let mut text = String::new();
    if markdown {
        for (at, row) in rows.iter().enumerate() {
            text += &format!("| {} |\n", row.join(" | "));
            if at == 0 {
                text += &format!("|{}\n", "---|".repeat(row.len()));
            }
        }
        return text;
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            text += &format!("{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// What was measured on: kernel, processor, memory.
pub(super) fn machine(rounds: u32, seconds: u32, markdown: bool) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find(|l| l.starts_with("model name"))
        .map(|l| l.split_once(':').map_or("", |(_, name)| name.trim()).to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: u64 = read("/proc/meminfo").split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default();
    let text = format!(
        "Linux {kernel}, {cores} cores ({}), {} GiB; wrk -t1 -c8, {rounds} rounds of {seconds} s in alternation on the same cores",
        processor.unwrap_or_else(|| "unknown processor".to_owned()),
        memory / 1024 / 1024
    );
    if markdown { format!("{text}\n") } else { text }
}
