//! One check.
//!
//! In: what was found. Out: a [`Check`]; its constructors see to it that everything that is not ok says the way out.

use serde::{Deserialize, Serialize};

use crate::text::plain;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be, or for information.
    Ok,
    /// The job can run, and something of it is missing.
    Degraded,
    /// The job cannot run like this.
    Failed,
    /// Could not be looked at.
    Unknown,
}

/// What a check is about; also the order in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// File and environment.
    Configuration,
    /// What the kernel offers.
    Kernel,
    /// What this process may do, and where it runs.
    Privilege,
    /// The probes.
    Programs,
    /// What would be observed.
    Processes,
    /// Between agent and forwarder.
    Socket,
    /// Where telemetry goes, and where it can be asked for.
    Destinations,
}

impl Group {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 7] = [
        Self::Configuration,
        Self::Kernel,
        Self::Privilege,
        Self::Programs,
        Self::Processes,
        Self::Socket,
        Self::Destinations,
    ];

    /// Name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Kernel => "kernel",
            Self::Privilege => "privilege",
            Self::Programs => "programs",
            Self::Processes => "processes",
            Self::Socket => "socket",
            Self::Destinations => "destinations",
        }
    }
}

/// What a failed check lacks; tells the exit code (sysexits.h, as for a start). In JSON it is that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Lack {
    /// A usable configuration.
    Configuration,
    /// Something that has to be there.
    Thing,
    /// A privilege.
    Privilege,
}

impl From<Lack> for u8 {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Configuration => 64,
            Lack::Thing => 69,
            Lack::Privilege => 77,
        }
    }
}

impl TryFrom<u8> for Lack {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        match code {
            64 => Ok(Self::Configuration),
            69 => Ok(Self::Thing),
            77 => Ok(Self::Privilege),
            _ => Err(format!("{code} is no exit code of a failed check")),
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name, such as `kernel.btf`; unique in a report.
    pub id: String,
    /// What it is about.
    pub group: Group,
    /// How it came out.
    pub state: State,
    /// One line: what was found.
    pub finding: String,
    /// What to do about it; there for every state but ok.
    pub fix: Option<String>,
    /// More lines, bounded by who made them: names, a verifier's last words.
    pub details: Vec<String>,
    /// What is lacking; there for failed checks alone.
    pub exit_code: Option<Lack>,
}

impl Check {
    fn new(group: Group, id: impl Into<String>, state: State, finding: impl AsRef<str>) -> Self {
        let finding = plain(finding.as_ref());
        Self { id: id.into(), group, state, finding, fix: None, details: Vec::new(), exit_code: None }
    }

    /// Nothing to do.
    pub fn ok(group: Group, id: impl Into<String>, finding: impl AsRef<str>) -> Self {
        Self::new(group, id, State::Ok, finding)
    }

    /// The job runs without something.
    pub fn degraded(group: Group, id: impl Into<String>, finding: impl AsRef<str>, fix: impl AsRef<str>) -> Self {
        Self { fix: Some(plain(fix.as_ref())), ..Self::new(group, id, State::Degraded, finding) }
    }

    /// The job does not run.
    pub fn failed(
        group: Group,
        id: impl Into<String>,
        lack: Lack,
        finding: impl AsRef<str>,
        fix: impl AsRef<str>,
    ) -> Self {
        Self { fix: Some(plain(fix.as_ref())), exit_code: Some(lack), ..Self::new(group, id, State::Failed, finding) }
    }

    /// It could not be looked at; the finding says why, the fix how.
    pub fn unknown(group: Group, id: impl Into<String>, finding: impl AsRef<str>, fix: impl AsRef<str>) -> Self {
        Self { fix: Some(plain(fix.as_ref())), ..Self::new(group, id, State::Unknown, finding) }
    }

    /// The same with more lines.
    #[must_use]
    pub fn with_details<T: AsRef<str>>(mut self, details: impl IntoIterator<Item = T>) -> Self {
        self.details.extend(details.into_iter().map(|line| plain(line.as_ref())));
        self
    }
}
