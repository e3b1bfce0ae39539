//! Interpreters of Python with packages from PyPI, kept in the user's cache.
//!
//! In: an interpreter, a list such as `tests/subjects/asyncio_requirements.txt`. Out: its packages, installed once for each version
//! and list, or what is missing.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    compiled,
    host::{self, Reason},
    https::succeeds,
};

/// An interpreter, and where its packages are.
#[derive(Debug, Clone)]
pub struct Python {
    /// The program itself.
    pub program: PathBuf,
    /// For `PYTHONPATH`.
    pub packages: PathBuf,
}

impl Python {
    /// With the packages for asyncio.
    ///
    /// # Errors
    /// When they cannot be installed.
    pub fn of(program: PathBuf) -> Result<Self> {
        Self::with(program, "asyncio_requirements.txt")
    }

    /// With the packages on a list in `tests/subjects`; one of the same version that was made before has the same.
    ///
    /// # Errors
    /// When they cannot be installed.
    pub fn with(program: PathBuf, list: &str) -> Result<Self> {
        let requirements = compiled::subjects().join(list);
        let mut hasher = DefaultHasher::new();
        std::fs::read(&requirements).with_context(|| requirements.display().to_string())?.hash(&mut hasher);
        let version = printed(&program, "import sys; print('%d.%d' % sys.version_info[:2])")?;
        let cache = host::cache()?;
        let name = format!("python/{version}-{:016x}", hasher.finish());
        let packages = cache.join(&name);
        if !packages.is_dir() {
            let unfinished = cache.join(format!("{name}.{}", std::process::id()));
            let mut pip = Command::new(&program);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]);
            // The list is whole; nothing is compiled.
            pip.args(["--no-deps", "--only-binary", ":all:", "--target"]).arg(&unfinished);
            let installed = succeeds(pip.arg("-r").arg(&requirements));
            if let Err(error) = installed {
                _ = std::fs::remove_dir_all(&unfinished);
                return Err(error);
            }
            if std::fs::rename(&unfinished, &packages).is_err() && !packages.is_dir() {
                bail!("{} cannot be made", packages.display());
            }
        }
        Ok(Self { program, packages })
    }

    /// What is missing where packages could not be installed.
    pub fn lacks(error: &anyhow::Error) -> Reason {
        let text = format!("{error:#}");
        let line = text.lines().find(|line| line.starts_with("ERROR")).or_else(|| text.lines().next());
        format!("packages of Python: {}", line.unwrap_or_default())
    }

    /// Whether its `_asyncio` has its symbols still.
    ///
    /// # Errors
    /// When it or `nm` cannot be run.
    pub fn has_symbols(&self) -> Result<bool> {
        let code = "import sys, _asyncio; print(getattr(_asyncio, '__file__', sys.executable))";
        let file = printed(&self.program, code)?;
        let output = Command::new("nm").arg(file).output().context("nm, of binutils")?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().any(|line| line.ends_with(" t call_soon")))
    }

    /// The interpreter of this version that pyenv has installed for this user, such as `3.12`.
    pub fn of_pyenv(version: &str) -> Option<PathBuf> {
        let versions = Path::new(&std::env::var_os("HOME")?).join(".pyenv/versions");
        let folders = versions.read_dir().ok()?.flatten().map(|folder| folder.path());
        let name =
            |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let found = folders.filter(|path| name(path).starts_with(&format!("{version}.")));
        found.map(|path| path.join("bin").join(format!("python{version}"))).find(|program| program.is_file())
    }
}

fn printed(program: &Path, code: &str) -> Result<String> {
    let output = Command::new(program).args(["-c", code]).output().with_context(|| program.display().to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
