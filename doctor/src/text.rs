//! The report for people.
//!
//! In: a [`Report`]. Out: lines in groups, a state, an id and a finding each, the fix below; one sentence at the end.

use std::{fmt::Write as _, io::IsTerminal as _};

use crate::{
    check::{Check, Group, State},
    report::{Report, Verdict},
};

/// Whether states are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// With terminal colours.
    On,
    /// Without.
    Off,
}

impl Colour {
    /// For standard output: on a terminal, unless `NO_COLOR` is set to something (no-color.org) or the terminal is dumb.
    pub fn of_stdout() -> Self {
        let no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if !no && std::io::stdout().is_terminal() { Self::On } else { Self::Off }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Off => text.to_owned(),
        }
    }
}

/// Longest line that is taken from outside, bytes.
const MAX_LINE: usize = 600;

/// `text` on one line, without what a terminal would obey, and not endless: names of processes and answers of
/// servers are strangers' words.
pub fn plain(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_LINE);
    let mut line: String =
        text.get(..end).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if end < text.len() {
        line.push('…');
    }
    line
}

fn word(state: State) -> (&'static str, &'static str) {
    match state {
        State::Ok => ("ok", "32"),
        State::Degraded => ("degraded", "33"),
        State::Failed => ("FAILED", "31;1"),
        State::Unknown => ("unknown", "36"),
    }
}

impl Report {
    /// The report as text, the sentence that counts in its last line.
    pub fn text(&self, colour: Colour) -> String {
        let mut out = format!("{} {} doctor\n", self.program, self.version);
        let width = self.checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
        for group in Group::ALL {
            let checks: Vec<&Check> = self.checks.iter().filter(|check| check.group == group).collect();
            if checks.is_empty() {
                continue;
            }
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(out, "\n{}", colour.paint("1", group.name()));
            for check in checks {
                let (state, code) = word(check.state);
                let state = colour.paint(code, &format!("{state:<8}"));
                let _ = writeln!(out, "  {state}  {:<width$}  {}", check.id, check.finding);
                for line in &check.details {
                    let _ = writeln!(out, "  {:<8}  {:<width$}  | {line}", "", "");
                }
                if let Some(fix) = &check.fix {
                    let _ = writeln!(out, "  {:<8}  {:<width$}  -> {fix}", "", "");
                }
            }
        }
        out.push('\n');
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        let code = match self.verdict() {
            Verdict::Yes => "32",
            Verdict::Limited => "33",
            Verdict::No => "31;1",
        };
        let _ = writeln!(out, "{}", colour.paint(code, &self.summary()));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Lack;

    fn report() -> Report {
        let checks = vec![
            Check::failed(Group::Socket, "socket.path", Lack::Thing, "it is a file", "remove it"),
            Check::ok(Group::Kernel, "kernel.release", "Linux 6.18"),
            Check::degraded(Group::Processes, "processes.tls", "two", "none").with_details(["a\x1b[2J\nb"]),
        ];
        Report::new("spantap", "1.0", checks, vec!["It runs already.".to_owned()])
    }

    #[test]
    fn grouped_aligned_and_concluded() {
        assert_eq!(
            report().text(Colour::Off),
            "spantap 1.0 doctor

kernel
  ok        kernel.release  Linux 6.18

processes
  degraded  processes.tls   two
                            | a [2J b
                            -> none

socket
  FAILED    socket.path     it is a file
                            -> remove it

It runs already.
The configured job cannot run, because of socket.path: it is a file.
"
        );
    }

    #[test]
    fn colours_only_where_wanted() {
        assert!(report().text(Colour::On).contains("\x1b[31;1mFAILED  \x1b[0m  socket.path"));
        assert!(!report().text(Colour::Off).contains('\x1b'));
    }

    #[test]
    fn strangers_words_are_bounded() {
        let long = plain(&"é".repeat(1000));
        assert!(long.len() <= MAX_LINE + "…".len() && long.ends_with('…'));
    }
}
