//! What the forwarder is told about a program, and how much memory that may take.
//!
//! In: facts read from `/proc` or told by an exec event. Out: a [`Program`] that processes of one fork share.

use super::{
    Counts,
    budget::{Budget, Charge, Need},
    container::ContainerId,
    language::Language,
};

/// A program that is or was running, in one or (after fork) several processes.
#[derive(Debug)]
pub(crate) struct Program {
    /// Path of the executable as the process sees it; empty if this user may not know.
    pub executable: String,
    /// Arguments, the program's own name first: at most 32 of at most 256 bytes each.
    pub command_line: Vec<String>,
    /// Variables whose name begins with `OTEL_`, without those that hold credentials.
    pub environment: Vec<(String, String)>,
    /// The container, if it runs in one.
    pub container_id: Option<ContainerId>,
    /// The language, if known.
    pub language: Option<Language>,
    /// Given back when the last process of this program is forgotten.
    _charge: Charge,
}

/// The content of a [`Program`] before memory was granted for it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub executable: String,
    pub command_line: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub container_id: Option<ContainerId>,
    pub language: Option<Language>,
}

impl Facts {
    fn bytes(&self) -> usize {
        let arguments: usize = self.command_line.iter().map(|text| text.capacity() + size_of::<String>()).sum();
        let variables: usize = self
            .environment
            .iter()
            .map(|(name, value)| name.capacity() + value.capacity() + 2 * size_of::<String>())
            .sum();
        size_of::<Program>()
            + self.executable.capacity()
            + arguments
            + variables
            + self.container_id.as_ref().map_or(0, |id| id.as_str().len())
    }

    /// The program, if there is memory for it; without arguments and environment if there is little.
    pub(crate) fn granted(mut self, budget: &Budget, counts: &mut Counts) -> Option<Program> {
        let charge = match budget.charge(self.bytes(), Need::Full) {
            Some(charge) => charge,
            None => {
                self.command_line = Vec::new();
                self.environment = Vec::new();
                let charge = budget.charge(self.bytes(), Need::Least)?;
                counts.facts_trimmed += 1;
                charge
            }
        };
        let Self { executable, command_line, environment, container_id, language } = self;
        Some(Program { executable, command_line, environment, container_id, language, _charge: charge })
    }
}

impl Program {
    /// Whether the forwarder would see no difference.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.executable == other.executable
            && self.command_line == other.command_line
            && self.environment == other.environment
            && self.container_id == other.container_id
            && self.language == other.language
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(executable: &str, value: &str) -> Facts {
        Facts {
            executable: executable.to_owned(),
            command_line: vec!["server".to_owned()],
            environment: vec![("OTEL_SERVICE_NAME".to_owned(), value.to_owned())],
            ..Facts::default()
        }
    }

    #[test]
    fn gives_up_details_before_programs_and_says_so() {
        let budget = Budget::new(8 * 1024);
        let mut counts = Counts::default();
        let whole = facts("/bin/a", &"x".repeat(4000)).granted(&budget, &mut counts).unwrap();
        assert_eq!((whole.environment.len(), counts.facts_trimmed), (1, 0));
        let trimmed = facts("/bin/b", &"x".repeat(4000)).granted(&budget, &mut counts).unwrap();
        assert_eq!(trimmed.executable, "/bin/b");
        assert!(trimmed.environment.is_empty() && trimmed.command_line.is_empty());
        assert_eq!(counts.facts_trimmed, 1);
        assert!(facts(&"/".repeat(8 * 1024), "").granted(&budget, &mut counts).is_none());
        drop(whole);
        assert_eq!(facts("/bin/c", &"x".repeat(4000)).granted(&budget, &mut counts).unwrap().environment.len(), 1);
    }
}
