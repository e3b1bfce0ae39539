//! In: the text of a configuration file. Out: a tree of nodes that know their line and column.
//!
//! The file is trusted about as far as its author's typing: size, nesting and the growth by aliases are bounded, so that
//! no file takes the process down. Aliases and merge keys (`<<`) work; a key twice in a mapping is an error.

mod build;
mod expand;

pub(crate) use build::parse;
pub(crate) use expand::{Found, expand};

/// Line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value with its position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// What a node holds. Scalars stay text: the reader of a key knows which type it needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing, `null`, `~`.
    Null,
    /// Any other scalar. `quoted`: it is a string, whatever it looks like. `secret`: a file was put into it, so that it must not
    /// be shown.
    Scalar { text: String, quoted: bool, secret: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) node: Node,
}

impl Node {
    /// Value of a key of a mapping; `None` if there is none, if it is null, or if this is no mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node).filter(|node| node.value != Value::Null)
    }
}

/// A scalar as the core schema of YAML 1.2 sees it.
pub(crate) fn scalar(text: String, quoted: bool) -> Value {
    if !quoted && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar { text, quoted, secret: false }
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) at: Position,
    pub(crate) message: String,
}
