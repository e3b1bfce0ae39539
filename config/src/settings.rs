//! In: the tree of the file and the environment. Out: for each key of the table the value that counts, with its place.
//! Environment beats file; whoever reads a key does not see which it was.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    environment::Environment,
    error::{Place, Warning},
    given::Given,
    keys,
    yaml::{Node, Value},
};

/// Everything that was given.
pub(crate) struct Settings<'a> {
    root: Option<&'a Node>,
    file: Arc<PathBuf>,
    pub(crate) env: &'a Environment,
    /// The file as it was read, before anything was replaced.
    pub(crate) text: Option<&'a str>,
    /// Files that it refers to.
    pub(crate) secret_files: Vec<PathBuf>,
    warnings: Vec<Warning>,
}

impl<'a> Settings<'a> {
    pub(crate) fn new(root: Option<&'a Node>, file: Arc<PathBuf>, env: &'a Environment) -> Self {
        Self { root, file, env, text: None, secret_files: Vec::new(), warnings: Vec::new() }
    }

    /// The value of a key: that of the environment, else that of the file.
    pub(crate) fn get(&self, key: &'static str) -> Option<Given<'a>> {
        self.variable(key).or_else(|| self.file(key))
    }

    /// The value of a key in the environment alone.
    pub(crate) fn variable(&self, key: &'static str) -> Option<Given<'a>> {
        let names = keys::find(key).map(|key| key.variables).unwrap_or_default();
        names.split_whitespace().find_map(|name| self.named(name, key))
    }

    /// The value of a key in the file alone.
    pub(crate) fn file(&self, key: &'static str) -> Option<Given<'a>> {
        let node = key.split('.').try_fold(self.root?, |node, name| node.get(name))?;
        (node.value != Value::Null).then(|| Given::node(node, key.to_owned(), &self.file))
    }

    /// Path of the file, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.file
    }

    /// The value of one variable (or of its family), for the key `key`.
    pub(crate) fn named(&self, name: &str, key: &str) -> Option<Given<'a>> {
        let (name, text) = self.env.find(name)?;
        Some(Given::variable(name, text, key))
    }

    /// Something its user should know.
    pub(crate) fn warn(&mut self, place: Place, message: impl Into<String>) {
        let warning = Warning { place, message: message.into() };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// All warnings, in the order in which they were given.
    pub(crate) fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }
}
