//! Which processes are observed.

use std::time::Duration;

use super::{Glob, Sampler, ServiceRoutes};

/// Which processes are observed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Discovery {
    /// Entries of `discovery.instrument`; any match selects, the last match decides about name, exports, sampler and routes. Empty: every process that serves or makes requests.
    pub instrument: Vec<Selector>,
    /// Entries of `discovery.exclude_instrument` and of the default exclusions; any match excludes.
    pub exclude: Vec<Selector>,
    /// How often `/proc` is looked through for what no event told (5 s).
    pub poll_interval: Duration,
}

/// One discovery entry: all criteria that are present must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selector {
    /// Listening ports, any of which selects; empty: no criterion.
    pub open_ports: Vec<PortRange>,
    /// Pattern on the full path of the executable.
    pub exe_path: Option<Glob>,
    /// Glob on the arguments joined by single spaces.
    pub cmd_args: Option<Glob>,
    /// Languages (`go`, `java`, `nodejs` …), any of which matches; empty: no criterion.
    pub languages: Vec<String>,
    /// Process ids, any of which matches; empty: no criterion.
    pub target_pids: Vec<PidRange>,
    /// Only processes in a container.
    pub containers_only: bool,
    /// `name` of the entry (deprecated in Beyla, still honoured).
    pub name: Option<String>,
    /// `namespace` of the entry (deprecated in Beyla, still honoured).
    pub namespace: Option<String>,
    /// Signals to export for what matches.
    pub exports: Exports,
    /// Sampler for what matches, in the place of the general one.
    pub sampler: Option<Sampler>,
    /// Path patterns for what matches, in the place of the general ones.
    pub routes: ServiceRoutes,
}

/// Signals of a discovery entry (`exports`): unset means all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exports {
    /// Spans.
    pub traces: bool,
    /// Metrics.
    pub metrics: bool,
}

impl Default for Exports {
    fn default() -> Self {
        Self { traces: true, metrics: true }
    }
}

/// Inclusive range of TCP ports, 1..=65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

/// Inclusive range of process ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidRange {
    /// First pid.
    pub first: u32,
    /// Last pid, not below `first`.
    pub last: u32,
}
