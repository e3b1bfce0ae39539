//! What is to be started: configuration, environment, one process or two.
//!
//! In: the test's wishes. Out: a [`Setup`] that starts.

use anyhow::Result;

use super::Spantap;
use crate::collector::Collector;

/// How the two processes are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `spantap` as root, which starts the agent itself.
    OneCommand,
    /// `spantap forward` as nobody, `spantap-agent` as root.
    Split,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Setup {
    pub(super) yaml: String,
    pub(super) own_keys: String,
    pub(super) environment: Vec<(String, String)>,
    pub(super) mode: Mode,
    pub(super) ready_page: &'static str,
}

impl Setup {
    /// A configuration of the user's, without the `spantap:` section: the harness adds that with free ports.
    pub fn new(yaml: impl Into<String>) -> Self {
        Self {
            yaml: yaml.into(),
            own_keys: String::new(),
            environment: Vec::new(),
            mode: Mode::OneCommand,
            ready_page: "/readyz",
        }
    }

    /// Observes the processes of these entries of `discovery.instrument` (YAML flow mappings) and exports both signals to
    /// `collector` in short intervals.
    pub fn observing(entries: &[&str], collector: &Collector) -> Self {
        let mut yaml = String::from("discovery:\n  instrument:\n");
        for entry in entries {
            yaml += &format!("    - {entry}\n");
        }
        let endpoint = collector.endpoint();
        yaml += &format!("otel_traces_export:\n  endpoint: {endpoint}\n  batch_timeout: 100ms\n");
        yaml += &format!("otel_metrics_export:\n  endpoint: {endpoint}\n  interval: 500ms\n");
        Self::new(yaml)
    }

    /// Adds a key under `spantap:`.
    #[must_use]
    pub fn own_key(mut self, key: &str, value: &str) -> Self {
        self.own_keys += &format!("  {key}: {value}\n");
        self
    }

    /// Adds an environment variable for both processes.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits only until it is alive: for destinations that refuse everything, with which it never gets ready.
    #[must_use]
    pub fn never_ready(mut self) -> Self {
        self.ready_page = "/healthz";
        self
    }

    /// Starts agent and forwarder apart.
    #[must_use]
    pub fn split(mut self) -> Self {
        self.mode = Mode::Split;
        self
    }

    /// Starts and waits until `/readyz` says 200.
    ///
    /// # Errors
    /// When a program is not built, ends, or is not ready within 20 s.
    pub fn start(self) -> Result<Spantap> {
        Spantap::start(self)
    }
}
