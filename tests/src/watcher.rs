//! An agent with one hook set and a forwarder of its own, which can stand beside others.
//!
//! In: a port, a hook set. Out: the exchanges of that port, without what differs from one agent to another, and what was lost.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
};

use anyhow::{Context, Result, ensure};

use crate::{
    admin, host, http,
    place::{LIMIT, Place, observed},
    process::Process,
};

const FORWARDER: [&str; 7] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
/// What differs from one agent to another: times, and numbers that are made up.
const OWN: [&str; 5] = ["time", "duration_seconds", "queue_seconds", "trace_id", "span_id"];

/// A line of the console.
type Fields = serde_json::Map<String, serde_json::Value>;

/// An agent and its forwarder.
#[derive(Debug)]
pub struct Watcher {
    set: &'static str,
    forwarder: Process,
    agent: Process,
    /// How many bytes of what was told were looked through by [`Self::catch_up`].
    heard: u64,
    _place: Place,
}

/// What a watcher told.
#[derive(Debug)]
pub struct Told {
    /// Its hook set.
    pub set: &'static str,
    /// Exchanges whose path begins with `/d/`, of either side.
    pub exchanges: BTreeMap<String, Exchange>,
    /// Those of them whose parent was not told.
    pub orphans: u64,
    /// What it lost, by reason.
    pub lost: admin::Losses,
}

/// An exchange that was told.
#[derive(Debug, Default)]
pub struct Exchange {
    /// How often.
    pub times: u64,
    /// Side and path of what it descends from.
    pub parent: Option<String>,
}

impl Watcher {
    /// Starts both, and waits until `port` is observed. The inner error: this hook set cannot be had here.
    ///
    /// # Errors
    /// When they do not start for any other reason.
    pub fn start(port: u16, set: &'static str) -> Result<Result<Self, String>> {
        let place = Place::new(port, &format!("  hooks: {set}\n  tls: \"off\"\n"))?;
        let forwarder = place.start_until(&FORWARDER, "spantap", &["forward"], "waiting for the agent")?;
        let mut agent = place.start(&[], "spantap-agent", &[])?;
        host::wait_for("the agent's start", LIMIT, || {
            (agent.log().contains("streaming to the forwarder") || !agent.is_running()).then_some(())
        })?;
        if !agent.is_running() {
            let log = agent.log();
            return Ok(Err(log.lines().last().unwrap_or("it ended").to_owned()));
        }
        let mut watcher = Self { set, forwarder, agent, heard: 0, _place: place };
        observed(&mut watcher.forwarder, port, "/ready").with_context(|| watcher.agent.tail())?;
        Ok(Ok(watcher))
    }

    /// The agent's process id.
    pub fn agent(&self) -> u32 {
        self.agent.pid()
    }

    /// Makes requests until one of them is told: then nothing that was done before is under way any more. A console that is not
    /// waited for leaves out what standard output is too slow for (`spantap.console.dropped`), and that is no loss of the agent.
    ///
    /// # Errors
    /// When none is told in time.
    pub fn catch_up(&mut self, port: u16) -> Result<()> {
        let path = format!("/caught-up/{}/{}", self.agent.pid(), self.heard);
        let told = format!("\"{path}\"");
        host::wait_for("what was done to be told", LIMIT, || {
            http::get(port, &path).ok()?;
            let mut output = File::open(self.forwarder.output_file()).ok()?;
            output.seek(SeekFrom::Start(self.heard)).ok()?;
            let mut text = Vec::new();
            output.read_to_end(&mut text).ok()?;
            // The last line may not be whole yet.
            let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.heard += end as u64;
            String::from_utf8_lossy(text.get(..end)?).contains(&told).then_some(())
        })
        .with_context(|| self.agent.tail())
    }

    /// Stops both.
    ///
    /// # Errors
    /// When one does not end as it should.
    pub fn stop(&mut self) -> Result<()> {
        for process in [&mut self.agent, &mut self.forwarder] {
            let ended = process.stop(LIMIT)?;
            ensure!(ended.code() == Some(0), "ended with {ended}\n{}", process.tail());
        }
        Ok(())
    }

    /// Stops both, and reads what was told.
    ///
    /// # Errors
    /// When one does not end as it should, or the books do not add up.
    pub fn told(mut self) -> Result<Told> {
        // What was observed last is printed within its tick.
        self.stop()?;
        let books = admin::summary(&self.forwarder.log()).context("no summary")?;
        ensure!(books.adds_up, "{}: the books do not add up: {books:?}", self.set);
        // A parent's number is made up as well: who it is counts. Line by line, since there may be a great many.
        let mut names = HashMap::new();
        self.each_line(|fields| {
            if let Some(id) = text(&fields, "span_id") {
                let of = |name| text(&fields, name).unwrap_or_default();
                names.insert(id.to_owned(), format!("{} {}", of("side"), of("path")));
            }
            Ok(())
        })?;
        let (mut exchanges, mut orphans) = (BTreeMap::new(), 0);
        self.each_line(|mut fields| {
            if !text(&fields, "path").is_some_and(|path| path.starts_with("/d/")) {
                return Ok(());
            }
            let parent = fields.remove("parent_span_id");
            let parent = parent.as_ref().and_then(serde_json::Value::as_str).map(|id| names.get(id));
            orphans += u64::from(parent == Some(None));
            OWN.iter().for_each(|own| drop(fields.remove(*own)));
            let exchange: &mut Exchange = exchanges.entry(serde_json::to_string(&fields)?).or_default();
            exchange.times += 1;
            exchange.parent = parent.flatten().cloned();
            Ok(())
        })?;
        Ok(Told { set: self.set, exchanges, orphans, lost: books.losses })
    }

    fn each_line(&self, mut hear: impl FnMut(Fields) -> Result<()>) -> Result<()> {
        let output = BufReader::new(File::open(self.forwarder.output_file())?);
        output.lines().try_for_each(|line| hear(serde_json::from_str(&line?)?))
    }
}

fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}
