//! All checks together.
//!
//! In: checks. Out: whether the configured job can run, in one sentence and as an exit code; JSON and back.

use serde::{Deserialize, Serialize};

use crate::check::{Check, Group, Lack, State};

/// Version of the JSON form. Fields may be added; one that changes its meaning or goes makes it another version.
pub const SCHEMA: u32 = 1;

/// Whether the job can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It can.
    Yes,
    /// It can, and something of it is missing.
    Limited,
    /// It cannot.
    No,
}

/// What doctor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who looked: `spantap` or `spantap-agent`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// What was found, in the order of the report.
    pub checks: Vec<Check>,
    /// Sentences for the end, such as that Spantap runs already.
    pub notes: Vec<String>,
}

/// The JSON form, as documented in docs/doctor.md.
#[derive(Serialize, Deserialize)]
struct Json {
    schema: u32,
    program: String,
    version: String,
    verdict: Verdict,
    exit_code: u8,
    summary: String,
    notes: Vec<String>,
    checks: Vec<Check>,
}

impl Report {
    /// A report of `checks`, which are put into the order of their groups.
    pub fn new(program: &str, version: &str, mut checks: Vec<Check>, notes: Vec<String>) -> Self {
        checks.sort_by_key(|check| check.group);
        Self { program: program.to_owned(), version: version.to_owned(), checks, notes }
    }

    /// Whether the job can run.
    pub fn verdict(&self) -> Verdict {
        let any = |state| self.checks.iter().any(|check| check.state == state);
        match (any(State::Failed), any(State::Degraded)) {
            (true, _) => Verdict::No,
            (false, true) => Verdict::Limited,
            (false, false) => Verdict::Yes,
        }
    }

    /// 0 if the job can run, else what no other help mends first: 64, 69, 77.
    pub fn exit_code(&self) -> u8 {
        self.checks.iter().filter_map(|check| check.exit_code).min().map_or(0, u8::from)
    }

    /// The judgement in one sentence.
    pub fn summary(&self) -> String {
        let those = |state| self.checks.iter().filter(move |check| check.state == state);
        let ids = |state| those(state).map(|check| check.id.as_str()).collect::<Vec<_>>().join(", ");
        let unseen = ids(State::Unknown);
        let unseen = if unseen.is_empty() { unseen } else { format!("; not looked at: {unseen}") };
        match self.verdict() {
            Verdict::Yes => format!("The configured job can run{unseen}."),
            Verdict::Limited => format!("The configured job can run with limits: {}{unseen}.", ids(State::Degraded)),
            Verdict::No => {
                let mut failed: Vec<&Check> = those(State::Failed).collect();
                failed.sort_by_key(|check| check.exit_code);
                // The first in full; the others stand above with their findings.
                let first = failed.first().map(|check| format!("{}: {}", check.id, check.finding)).unwrap_or_default();
                let others: Vec<&str> = failed.iter().skip(1).map(|check| check.id.as_str()).collect();
                let others = if others.is_empty() { String::new() } else { format!("; and of {}", others.join(", ")) };
                format!("The configured job cannot run, because of {first}{others}.")
            }
        }
    }

    /// Whether a check of one of `groups` has failed.
    pub fn fails_in(&self, groups: &[Group]) -> bool {
        self.checks.iter().any(|check| check.state == State::Failed && groups.contains(&check.group))
    }

    /// Whether a check lacks this.
    pub fn lacks(&self, lack: Lack) -> bool {
        self.checks.iter().any(|check| check.exit_code == Some(lack))
    }

    /// The JSON form: one object, indented, with a line end.
    pub fn json(&self) -> String {
        let json = Json {
            schema: SCHEMA,
            program: self.program.clone(),
            version: self.version.clone(),
            verdict: self.verdict(),
            exit_code: self.exit_code(),
            summary: self.summary(),
            notes: self.notes.clone(),
            checks: self.checks.clone(),
        };
        // Strings, numbers and lists of them: there is nothing that could fail.
        serde_json::to_string_pretty(&json).unwrap_or_default() + "\n"
    }

    /// Reads the JSON form of the same schema.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let json: Json = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if json.schema != SCHEMA {
            return Err(format!("schema {} is not schema {SCHEMA}", json.schema));
        }
        Ok(Self::new(&json.program, &json.version, json.checks, json.notes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(checks: Vec<Check>) -> Report {
        Report::new("spantap", "1.2.3", checks, vec!["A note.".to_owned()])
    }

    fn fine() -> Check {
        Check::ok(Group::Kernel, "kernel.btf", "it is there")
    }

    fn failed(lack: Lack, id: &str) -> Check {
        Check::failed(Group::Privilege, id, lack, "it is not", "make it so")
    }

    #[test]
    fn all_is_well() {
        let report = of(vec![fine()]);
        assert_eq!((report.verdict(), report.exit_code()), (Verdict::Yes, 0));
        assert_eq!(report.summary(), "The configured job can run.");
    }

    #[test]
    fn limits_are_named_and_do_not_fail() {
        let limit = Check::degraded(Group::Processes, "processes.tls", "nginx", "wait");
        let unseen = Check::unknown(Group::Kernel, "kernel.lockdown", "not mounted", "mount it");
        let report = of(vec![fine(), limit, unseen]);
        assert_eq!((report.verdict(), report.exit_code()), (Verdict::Limited, 0));
        let summary = report.summary();
        assert!(summary.ends_with("with limits: processes.tls; not looked at: kernel.lockdown."), "{summary}");
    }

    #[test]
    fn what_was_not_looked_at_is_told_and_decides_nothing() {
        let report = of(vec![fine(), Check::unknown(Group::Kernel, "kernel.lockdown", "not mounted", "mount it")]);
        assert_eq!((report.verdict(), report.exit_code()), (Verdict::Yes, 0));
        assert_eq!(report.summary(), "The configured job can run; not looked at: kernel.lockdown.");
    }

    #[test]
    fn what_no_privilege_mends_comes_first() {
        for (lacks, code) in [
            (vec![Lack::Privilege], 77),
            (vec![Lack::Privilege, Lack::Thing], 69),
            (vec![Lack::Thing, Lack::Privilege, Lack::Configuration], 64),
        ] {
            let checks = lacks.iter().zip(["a.a", "b.b", "c.c"]).map(|(lack, id)| failed(*lack, id)).collect();
            assert_eq!(of(checks).exit_code(), code, "{lacks:?}");
        }
        let summary = of(vec![failed(Lack::Privilege, "a.a"), failed(Lack::Thing, "b.b")]).summary();
        assert!(summary.ends_with("because of b.b: it is not; and of a.a."), "{summary}");
    }

    #[test]
    fn json_and_back() {
        let report = of(vec![failed(Lack::Privilege, "privilege.a"), fine().with_details(["one", "two"])]);
        let json = report.json();
        assert_eq!(Report::from_json(json.as_bytes()).unwrap(), report);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value.pointer("/exit_code").unwrap(), 77);
        assert_eq!(value.pointer("/verdict").unwrap(), "no");
        assert_eq!(value.pointer("/checks/0/id").unwrap(), "kernel.btf", "in the order of the groups");
        assert_eq!(value.pointer("/checks/0/exit_code").unwrap(), &serde_json::Value::Null);
        assert_eq!(value.pointer("/checks/1/exit_code").unwrap(), 77);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for bytes in [&b""[..], b"{}", b"usage: ...", b"[]", b"\xff"] {
            assert!(Report::from_json(bytes).is_err(), "{bytes:?}");
        }
        let other = of(vec![]).json().replace("\"schema\": 1", "\"schema\": 2");
        assert!(Report::from_json(other.as_bytes()).unwrap_err().contains("schema 2"));
        let code = of(vec![failed(Lack::Thing, "a")]).json().replace("\"exit_code\": 69", "\"exit_code\": 7");
        assert!(Report::from_json(code.as_bytes()).is_err());
    }
}
