//! In: a tree and the environment. Out: the tree with `${VAR}`, `${env:VAR}`, `${VAR:-default}`, `${file:/path}` and `$$` replaced.
//!
//! As "Environment variable substitution" in the OpenTelemetry configuration data model: only in scalar values, never
//! in keys; what is put in is text, never YAML; a plain scalar gets its type after the replacement; no recursion.
//! `file:` is what Collectors have under the same name: the text of a file, without the line's end at its end.

use std::path::PathBuf;

use super::{Flaw, Node, Position, Value, scalar};
use crate::{environment::Environment, secret_file};

/// What was met on the way.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Variables that were referred to without a default and that are not set.
    pub(crate) unset: Vec<Unset>,
    /// Files that were referred to, each once.
    pub(crate) files: Vec<PathBuf>,
}

/// A variable that was referred to without a default and that is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unset {
    pub(crate) at: Position,
    pub(crate) name: String,
}

/// What a reference refers to.
enum Reference<'a> {
    Variable { name: &'a str, default: Option<&'a str> },
    File(&'a str),
}

/// Replaces references everywhere below `node`.
pub(crate) fn expand(node: &mut Node, env: &Environment, found: &mut Found) -> Result<(), Flaw> {
    match &mut node.value {
        Value::Null => Ok(()),
        Value::List(items) => items.iter_mut().try_for_each(|item| expand(item, env, found)),
        Value::Map(entries) => entries.iter_mut().try_for_each(|entry| expand(&mut entry.node, env, found)),
        Value::Scalar { text, quoted, .. } => {
            if text.contains('$') {
                let (replaced, from_file) = replace(text, env, node.at, found)?;
                node.value = scalar(replaced, *quoted);
                if let Value::Scalar { secret, .. } = &mut node.value {
                    *secret = from_file;
                }
            }
            Ok(())
        }
    }
}

/// The text with what it refers to, and whether a file is among that.
fn replace(text: &str, env: &Environment, at: Position, found: &mut Found) -> Result<(String, bool), Flaw> {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut from_file) = (text, false);
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let Some((inner, after)) = after.split_once('}') else {
                return Err(Flaw { at, message: "`${` without `}`; a literal `$` is written `$$`".to_owned() });
            };
            match reference(inner, at)? {
                Reference::File(path) => {
                    from_file = true;
                    out.push_str(&content(path, env, at, &mut found.files)?);
                }
                Reference::Variable { name, default } => match (env.get(name), default) {
                    (Some(value), _) => out.push_str(value),
                    (None, Some(default)) => out.push_str(default),
                    (None, None) => found.unset.push(Unset { at, name: name.to_owned() }),
                },
            }
            rest = after;
        } else {
            // A lone dollar is text, as in `^/api$`.
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok((out, from_file))
}

fn content(path: &str, env: &Environment, at: Position, files: &mut Vec<PathBuf>) -> Result<String, Flaw> {
    let path = PathBuf::from(path);
    if !env.reads_files() {
        return Ok(secret_file::UNREAD.to_owned());
    }
    let text = secret_file::read(&path).map_err(|message| Flaw { at, message })?;
    if !files.contains(&path) {
        files.push(path);
    }
    Ok(text)
}

/// What `VAR`, `env:VAR`, `VAR:-default` or `file:/path` refers to.
fn reference(inner: &str, at: Position) -> Result<Reference<'_>, Flaw> {
    if let Some(path) = inner.strip_prefix("file:") {
        return Ok(Reference::File(path));
    }
    let inner = inner.strip_prefix("env:").unwrap_or(inner);
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !valid {
        let message = format!(
            "{} is no reference to a variable; expected ${{NAME}}, ${{env:NAME}}, ${{NAME:-default}} or ${{file:/path}}; a literal `$` \
             is written `$$`",
            crate::error::shown(&format!("${{{inner}}}"))
        );
        return Err(Flaw { at, message });
    }
    Ok(Reference::Variable { name, default })
}
