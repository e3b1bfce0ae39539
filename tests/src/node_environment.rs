//! Versions of Node, and packages for it, kept in the user's cache.
//!
//! In: a version, or `packages`. Out: what `tools/node.sh` has fetched for it, or what is missing.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::host;

/// The program of Node of this version (`20`), or the folder of the packages that `tests/subjects/node_packages` lists (`packages`).
///
/// # Errors
/// With the reason why there is none.
pub fn fetched(what: &str) -> Result<PathBuf, host::Reason> {
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(PathBuf::new());
    }
    let tool = host::repository().join("tools/node.sh");
    match Command::new(&tool).arg(what).stderr(Stdio::inherit()).output() {
        Ok(output) if output.status.success() => {
            Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
        }
        Ok(output) => Err(format!("needs Node ({what}), which tools/node.sh could not fetch: {}", output.status)),
        Err(error) => Err(format!("{}: {error}", tool.display())),
    }
}
