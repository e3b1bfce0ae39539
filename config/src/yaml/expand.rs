//! In: a tree and the environment. Out: the tree with `${VAR}`, `${env:VAR}`, `${VAR:-default}` and `$$` replaced.
//!
//! As "Environment variable substitution" in the OpenTelemetry configuration data model: only in scalar values, never
//! in keys; what is put in is text, never YAML; a plain scalar gets its type after the replacement; no recursion.

use super::{Flaw, Node, Position, Value, scalar};
use crate::environment::Environment;

/// A variable that was referred to without a default and that is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unset {
    pub(crate) at: Position,
    pub(crate) name: String,
}

/// Replaces references everywhere below `node`.
pub(crate) fn expand(node: &mut Node, env: &Environment, unset: &mut Vec<Unset>) -> Result<(), Flaw> {
    match &mut node.value {
        Value::Null => Ok(()),
        Value::List(items) => items.iter_mut().try_for_each(|item| expand(item, env, unset)),
        Value::Map(entries) => entries.iter_mut().try_for_each(|entry| expand(&mut entry.node, env, unset)),
        Value::Scalar { text, quoted } => {
            if text.contains('$') {
                let replaced = replace(text, env, node.at, unset)?;
                node.value = scalar(replaced, *quoted);
            }
            Ok(())
        }
    }
}

fn replace(text: &str, env: &Environment, at: Position, unset: &mut Vec<Unset>) -> Result<String, Flaw> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let Some((inner, after)) = after.split_once('}') else {
                return Err(Flaw { at, message: "`${` without `}`; a literal `$` is written `$$`".to_owned() });
            };
            let (name, default) = reference(inner, at)?;
            match (env.get(name), default) {
                (Some(value), _) => out.push_str(value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => unset.push(Unset { at, name: name.to_owned() }),
            }
            rest = after;
        } else {
            // A lone dollar is text, as in `^/api$`.
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Name and default of `VAR`, `env:VAR`, `VAR:-default`.
fn reference(inner: &str, at: Position) -> Result<(&str, Option<&str>), Flaw> {
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
            "{} is no reference to a variable; expected ${{NAME}}, ${{env:NAME}} or ${{NAME:-default}}; a literal `$` is written `$$`",
            crate::error::shown(&format!("${{{inner}}}"))
        );
        return Err(Flaw { at, message });
    }
    Ok((name, default))
}
