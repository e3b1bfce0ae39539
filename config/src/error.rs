//! In: what a reader found wrong, and where. Out: errors that end a start and warnings that do not,
//! each with a place a person can go to: `file:line:column`, or the name of a variable.

use std::{fmt, io, path::PathBuf, sync::Arc};

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file, with line and column counted from one.
    File {
        /// As it was named.
        path: Arc<PathBuf>,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// Nowhere: it follows from other values or from their absence.
    Effective,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Effective => f.write_str("configuration"),
        }
    }
}

/// Why no configuration could be made. The display names place, key, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what a configuration file may be at all (size, encoding, YAML syntax, nesting).
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong with it.
        message: String,
    },
    /// Nobody knows this key.
    #[error("{place}: {key}: unknown key{}", hint.as_deref().map(|h| format!("; {h}")).unwrap_or_default())]
    UnknownKey {
        /// Where.
        place: Place,
        /// Full path of the key.
        key: String,
        /// The nearest known name, or the names known there.
        hint: Option<String>,
    },
    /// A known key with a value that it cannot have.
    #[error("{place}: {key}: found {found}, expected {expected}")]
    Invalid {
        /// Where.
        place: Place,
        /// Full path of the key.
        key: String,
        /// What stands there; never a secret.
        found: String,
        /// What may stand there.
        expected: String,
    },
    /// A value that is understood, but that Spantap cannot honour, where going on without it would observe
    /// or send something else than what was asked for.
    #[error("{place}: {key}: {message}")]
    Unsupported {
        /// Where.
        place: Place,
        /// Full path of the key.
        key: String,
        /// What cannot be done and what to do about it.
        message: String,
    },
}

/// Something that a start goes on with, but that its user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub place: Place,
    /// Key and what about it; never a secret.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// `text` for a message: quoted, control characters escaped, at most 80 characters.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let mut short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
