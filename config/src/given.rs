//! In: a value as it was given, by the file or by a variable. Out: the type that its key needs, or an error with place,
//! key, what was found and what was expected.

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use crate::{
    error::{ConfigError, Place, shown},
    suggest::{nearest, one_of},
    values,
    yaml::{Entry, Node, Position, Value},
};

/// A value that is there (null is not).
#[derive(Debug, Clone)]
pub(crate) struct Given<'a> {
    pub(crate) key: String,
    place: Place,
    what: What<'a>,
    /// A file was put into it: it must not be shown.
    secret: bool,
}

#[derive(Debug, Clone, Copy)]
enum What<'a> {
    Node(&'a Node),
    /// Of a variable, or a part of a scalar.
    Text(&'a str),
}

impl<'a> Given<'a> {
    pub(crate) fn node(node: &'a Node, key: String, file: &Arc<PathBuf>) -> Self {
        let place = Place::File { path: Arc::clone(file), line: node.at.line, column: node.at.column };
        Self { key, place, what: What::Node(node), secret: is_secret(node) }
    }

    pub(crate) fn variable(name: String, text: &'a str, key: &str) -> Self {
        Self { key: key.to_owned(), place: Place::Variable(name), what: What::Text(text), secret: false }
    }

    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Whether a variable gave it.
    pub(crate) fn is_variable(&self) -> bool {
        matches!(self.place, Place::Variable(_))
    }

    /// The text of a scalar, whatever its type.
    pub(crate) fn text(&self) -> Result<&'a str, ConfigError> {
        match self.what {
            What::Text(text) => Ok(text),
            What::Node(Node { value: Value::Scalar { text, .. }, .. }) => Ok(text),
            What::Node(_) => Err(self.invalid("a single value")),
        }
    }

    /// The text of a scalar that says something.
    pub(crate) fn some_text(&self) -> Result<&'a str, ConfigError> {
        self.text()
            .and_then(|text| if text.is_empty() { Err(self.invalid("a text that is not empty")) } else { Ok(text) })
    }

    pub(crate) fn boolean(&self) -> Result<bool, ConfigError> {
        values::boolean(self.text()?).ok_or_else(|| self.invalid("true or false"))
    }

    pub(crate) fn duration(&self) -> Result<Duration, ConfigError> {
        values::duration(self.text()?).map_err(|expected| self.invalid(&expected))
    }

    /// A whole number within bounds.
    pub(crate) fn number<N: FromStr + PartialOrd + std::fmt::Display>(
        &self,
        least: N,
        most: N,
    ) -> Result<N, ConfigError> {
        match self.text()?.trim().parse::<N>() {
            Ok(number) if least <= number && number <= most => Ok(number),
            _ => Err(self.invalid(&format!("a whole number from {least} to {most}"))),
        }
    }

    /// One of some words, without regard to case, as what it stands for.
    pub(crate) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Result<T, ConfigError> {
        let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
        let name = self.name(&names)?;
        words
            .iter()
            .find(|(word, _)| *word == name)
            .map(|(_, value)| *value)
            .ok_or_else(|| self.invalid(&one_of(names)))
    }

    /// One of some words, without regard to case.
    pub(crate) fn name(&self, names: &[&'static str]) -> Result<&'static str, ConfigError> {
        let text = self.text()?.trim();
        names.iter().copied().find(|name| name.eq_ignore_ascii_case(text)).ok_or_else(|| {
            let hint = nearest(text, names.iter().copied()).map(|near| format!("; did you mean {near}?"));
            self.invalid(&format!("{}{}", one_of(names.iter().copied()), hint.unwrap_or_default()))
        })
    }

    /// The items of a list; a single scalar counts as its items separated by commas. Empty items are left out.
    pub(crate) fn items(&self) -> Result<Vec<Given<'a>>, ConfigError> {
        if let Some(nodes) = self.nodes() {
            return Ok(nodes);
        }
        // A part of a scalar has no position of its own: the place of the whole is where it can be corrected.
        let part =
            |text| Given { key: self.key.clone(), place: self.place(), what: What::Text(text), secret: self.secret };
        match self.text() {
            Ok(text) => Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(part).collect()),
            Err(_) => Err(self.invalid("a list")),
        }
    }

    /// The items of a list of the file, if it is one.
    pub(crate) fn nodes(&self) -> Option<Vec<Given<'a>>> {
        let What::Node(Node { value: Value::List(items), .. }) = self.what else { return None };
        let item = |(index, node)| self.child(node, format!("{}[{index}]", self.key));
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The entries of a mapping, with their names.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a Entry, Given<'a>)>, ConfigError> {
        let What::Node(Node { value: Value::Map(entries), .. }) = self.what else {
            return Err(self.invalid("a mapping of keys to values"));
        };
        Ok(entries
            .iter()
            .map(|entry| (entry, self.child(&entry.node, format!("{}.{}", self.key, entry.key))))
            .collect())
    }

    /// A node inside of this one.
    fn child(&self, node: &'a Node, key: String) -> Given<'a> {
        Given { key, place: self.at(node.at), what: What::Node(node), secret: is_secret(node) }
    }

    /// A position in the same file.
    pub(crate) fn at(&self, at: Position) -> Place {
        match &self.place {
            Place::File { path, .. } => Place::File { path: Arc::clone(path), line: at.line, column: at.column },
            other => other.clone(),
        }
    }

    /// Its text for a message.
    pub(crate) fn shown(&self) -> Result<String, ConfigError> {
        Ok(if self.secret { "the content of a file".to_owned() } else { shown(self.text()?) })
    }

    /// Whether it is an explicit nothing.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.what, What::Node(Node { value: Value::Null, .. }))
    }

    /// An error that says what was expected.
    pub(crate) fn invalid(&self, expected: &str) -> ConfigError {
        let found = match &self.what {
            _ if self.secret => "the content of a file".to_owned(),
            What::Text(text) => shown(text),
            What::Node(node) => match &node.value {
                Value::Null => "nothing".to_owned(),
                Value::Scalar { text, .. } => shown(text),
                Value::List(_) => "a list".to_owned(),
                Value::Map(_) => "a mapping".to_owned(),
            },
        };
        self.invalid_as(&found, expected)
    }

    /// The same for a value that must not be shown as it is.
    pub(crate) fn invalid_as(&self, found: &str, expected: &str) -> ConfigError {
        ConfigError::Invalid {
            place: self.place(),
            key: self.key.clone(),
            found: found.to_owned(),
            expected: expected.to_owned(),
        }
    }

    /// An error for a value that is understood and cannot be honoured.
    pub(crate) fn unsupported(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::Unsupported { place: self.place(), key: self.key.clone(), message: message.into() }
    }
}

fn is_secret(node: &Node) -> bool {
    matches!(node.value, Value::Scalar { secret: true, .. })
}
