//! The rules: which processes are observed, and under which name.
//!
//! In: the `discovery` section of the configuration, and one [`Candidate`]. Out: the [`Entry`] data that applies to it, or nothing.
//!
//! All criteria of an entry must hold; any entry selects; a later entry that matches overrides what earlier ones say; any
//! exclusion that matches wins. A process that matches no entry is selected with its parent's data if its parent was.

use std::sync::Arc;

use spantap_config::{Discovery, Exports, Sampler, Selector, ServiceRoutes};

use super::{facts::Candidate, ports::PortSet};

/// Beyla's word for a language that is none of those it tells apart.
const OTHER_LANGUAGE: &str = "generic";

/// What the discovery entries say about a selected process.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Entry {
    /// Service name, if an entry gives one.
    pub name: Option<String>,
    /// Service namespace, if an entry gives one.
    pub namespace: Option<String>,
    /// Signals to export.
    pub exports: Exports,
    /// Sampler of its own, if an entry gives one.
    pub sampler: Option<Sampler>,
    /// Path patterns of its own.
    pub routes: ServiceRoutes,
}

/// What has to be read of a process before it can be judged, beside its executable's path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub arguments: bool,
    pub container: bool,
    pub language: bool,
    pub ports: bool,
}

/// Whether a selector applies. A process can keep a fact from us (it may not be read, or the process has ended):
/// then it is not known, which neither selects nor saves from being excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    No,
    Unknown,
    Yes,
}

impl Match {
    fn of<T>(fact: Option<T>, holds: impl FnOnce(T) -> bool) -> Self {
        match fact.map(holds) {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Unknown,
        }
    }
}

/// The rules of one configuration.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    instrument: Vec<Selector>,
    exclude: Vec<Selector>,
    needs: Needs,
    ports: PortSet,
}

impl Selection {
    /// The rules of `discovery`.
    pub(crate) fn new(discovery: &Discovery) -> Self {
        let any = |asks: fn(&Selector) -> bool| selectors(discovery).any(asks);
        Self {
            needs: Needs {
                arguments: any(|selector| selector.cmd_args.is_some()),
                container: any(|selector| selector.containers_only),
                language: any(|selector| !selector.languages.is_empty()),
                ports: any(|selector| !selector.open_ports.is_empty()),
            },
            ports: interesting_ports(discovery),
            instrument: discovery.instrument.clone(),
            exclude: discovery.exclude.clone(),
        }
    }

    /// What has to be known of a process.
    pub(crate) fn needs(&self) -> Needs {
        self.needs
    }

    /// Ports that any rule asks for.
    pub(crate) fn ports(&self) -> &PortSet {
        &self.ports
    }

    /// Whether every process is selected that is not excluded.
    pub(crate) fn everything(&self) -> bool {
        self.instrument.is_empty()
    }

    /// Whether any rule names this pid, so that a process cannot be judged by what it shares with its parent.
    pub(crate) fn names_pid(&self, pid: u32) -> bool {
        self.instrument.iter().chain(&self.exclude).any(|selector| has_pid(selector, pid))
    }

    /// Data for `candidate` if it is selected, where `inherited` is that of the process it descends from or was before.
    pub(crate) fn judge(&self, candidate: &Candidate, inherited: Option<&Arc<Entry>>) -> Option<Arc<Entry>> {
        if self.exclude.iter().any(|selector| matches(selector, candidate) > Match::No) {
            return None;
        }
        let mut own = self.everything().then(Entry::default);
        for selector in self.instrument.iter().filter(|selector| matches(selector, candidate) == Match::Yes) {
            own.get_or_insert_default().override_by(selector);
        }
        own.map(Arc::new).or_else(|| inherited.cloned())
    }
}

impl Entry {
    fn override_by(&mut self, selector: &Selector) {
        if selector.name.is_some() {
            self.name.clone_from(&selector.name);
        }
        if selector.namespace.is_some() {
            self.namespace.clone_from(&selector.namespace);
        }
        // Unset means all, and what is unset does not override.
        if selector.exports != Exports::default() {
            self.exports = selector.exports;
        }
        self.sampler = selector.sampler.or(self.sampler);
        for (own, given) in [
            (&mut self.routes.incoming, &selector.routes.incoming),
            (&mut self.routes.outgoing, &selector.routes.outgoing),
        ] {
            if !given.is_empty() {
                own.clone_from(given);
            }
        }
    }
}

/// Ports whose listeners concern any rule: the kernel reports no others.
pub(crate) fn interesting_ports(discovery: &Discovery) -> PortSet {
    let mut ports = PortSet::default();
    for selector in selectors(discovery) {
        selector.open_ports.iter().for_each(|&range| ports.insert(range));
    }
    ports
}

/// Whether a program may be selected before it listens: then the kernel has to watch new programs until they are judged.
pub(crate) fn provisional_exec(discovery: &Discovery) -> bool {
    discovery.instrument.is_empty() || discovery.instrument.iter().any(|selector| selector.open_ports.is_empty())
}

fn selectors(discovery: &Discovery) -> impl Iterator<Item = &Selector> {
    discovery.instrument.iter().chain(&discovery.exclude)
}

fn has_pid(selector: &Selector, pid: u32) -> bool {
    selector.target_pids.iter().any(|range| (range.first..=range.last).contains(&pid))
}

fn matches(selector: &Selector, candidate: &Candidate) -> Match {
    let mut result = None;
    let mut require = |criterion: Match| result = Some(result.map_or(criterion, |so_far: Match| so_far.min(criterion)));
    if !selector.target_pids.is_empty() {
        require(Match::of(Some(selector), |selector| has_pid(selector, candidate.pid)));
    }
    if !selector.open_ports.is_empty() {
        let listens = |range: &spantap_config::PortRange| {
            candidate.ports.iter().any(|port| (range.first..=range.last).contains(port))
        };
        require(Match::of(Some(&selector.open_ports), |ranges| ranges.iter().any(listens)));
    }
    if let Some(glob) = &selector.exe_path {
        require(Match::of(candidate.executable.as_deref(), |path| glob.matches(path)));
    }
    if let Some(glob) = &selector.cmd_args {
        require(Match::of(candidate.arguments.as_deref(), |arguments| glob.matches(arguments)));
    }
    if selector.containers_only {
        require(Match::of(candidate.container.as_ref(), Option::is_some));
    }
    if !selector.languages.is_empty() {
        require(Match::of(candidate.language, |language| {
            let language = language.map_or(OTHER_LANGUAGE, |language| language.as_str());
            selector.languages.iter().any(|wanted| wanted.eq_ignore_ascii_case(language))
        }));
    }
    // An entry without criteria selects nothing; the reader of the configuration refuses it.
    result.unwrap_or(Match::No)
}

#[cfg(test)]
mod tests;
