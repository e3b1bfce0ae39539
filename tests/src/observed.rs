//! The usual world of a test file: a Collector, Spantap that sends to it, and subjects that it watches.
//!
//! In: entries of `discovery.instrument`. Out: [`Observed`], in which spans have been seen to arrive.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    collector::Collector,
    host,
    pair::Pair,
    script::{Step, connect, read_head, send, serve},
    spantap::{Setup, Spantap},
    suite::World,
    telemetry::Kind,
};

/// Longest time from the end of a request to its telemetry at the Collector, with the short intervals of the tests.
pub const ARRIVAL: Duration = Duration::from_secs(20);

/// Selects the `subject` program of this build: another checkout may be tested on this machine at the same time.
///
/// # Errors
/// When it has not been built.
pub fn subjects() -> Result<String> {
    let path = host::own("subject")?.canonicalize()?;
    Ok(format!("exe_path: \"{}\"", path.display()))
}

/// Collector and Spantap.
#[derive(Debug)]
pub struct Observed {
    /// Where everything arrives.
    pub collector: Collector,
    /// What is tested; `None` after it was stopped.
    pub spantap: Option<Spantap>,
    probes: u32,
}

impl Observed {
    /// Starts both. `setup` gets the Collector that it shall send to.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start(setup: impl FnOnce(&Collector) -> Result<Setup>) -> Result<Self> {
        let collector = Collector::start()?;
        let spantap = setup(&collector)?.start()?;
        Ok(Self::of(collector, spantap))
    }

    /// What has been started already.
    pub fn of(collector: Collector, spantap: Spantap) -> Self {
        Self { collector, spantap: Some(spantap), probes: 0 }
    }

    /// The running Spantap.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn spantap(&mut self) -> Result<&mut Spantap> {
        self.spantap.as_mut().context("Spantap was stopped by an earlier case")
    }

    /// Returns when processes started before this call are observed: a subject started now is, and they came first.
    /// Needs [`subjects`] among the entries.
    ///
    /// # Errors
    /// When no span of the new subject arrives.
    pub fn wait_observing(&mut self) -> Result<()> {
        self.probes += 1;
        let name = format!("probe-{}", self.probes);
        let mut pair = Pair::prepare(&name)?;
        let request = format!("GET /{name} HTTP/1.1\r\nHost: probe\r\n\r\n");
        let response = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        // It asks again until a request was seen: a subject that started a moment ago may not be found yet.
        let asks = vec![send(request), read_head(), Step::Pause(30)];
        let folder = self.collector.folder().to_path_buf();
        pair.begin(
            // As long as it is asked: only one of the two may decide when that ends.
            &serve(vec![Step::Repeat(u32::MAX, vec![read_head(), send(response)])]),
            &connect(vec![Step::Until("enough".to_owned(), asks)]),
            &folder,
        )?;
        let (server, client) = (format!("{name}-server"), format!("{name}-client"));
        let seen = self.collector.wait_until(Duration::from_secs(15), |telemetry| {
            let has = |service: &str, kind| telemetry.spans_of(service).iter().any(|s| s.kind == kind);
            anyhow::ensure!(
                has(&server, Kind::Server) && has(&client, Kind::Client),
                "no spans of the probe subjects yet"
            );
            Ok(())
        });
        seen.context("no span of a subject that was started as a probe")?;
        // It leaves between two requests, so that nothing of it is lost; its server waits for another one.
        pair.signal("enough")?;
        pair.client.finish(Duration::from_secs(10))?;
        self.collector.settle(Duration::from_millis(300), ARRIVAL)
    }
}

impl World for Observed {
    fn logs(&self) -> String {
        self.spantap.as_ref().map(Spantap::tail).unwrap_or_default()
    }
}
