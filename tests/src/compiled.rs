//! Subjects that have to be compiled first, kept by the content of their source.
//!
//! In: sources in `tests/subjects`. Out: paths of programs in the user's cache.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{host, https::succeeds};

/// The C program `tests/subjects/{name}.c`.
///
/// # Errors
/// When the C compiler refuses it.
pub fn c_program(name: &str) -> Result<PathBuf> {
    let source = subjects().join(format!("{name}.c"));
    build(name, &source, |to| {
        let mut command = Command::new("cc");
        command.args(["-O1", "-Wall", "-o"]).arg(to).arg(&source);
        command
    })
}

/// The C program `tests/subjects/tls/{name}.c` with OpenSSL as a shared library, as the file `to`.
///
/// # Errors
/// When the C compiler refuses it.
pub fn openssl_program(name: &str, to: &Path) -> Result<()> {
    let source = subjects().join(format!("tls/{name}.c"));
    let mut command = Command::new("cc");
    command.args(["-O1", "-Wall", "-o"]).arg(to).arg(&source).args(["-lssl", "-lcrypto", "-pthread"]);
    succeeds(&mut command)
}

/// The Go program in the folder `tests/subjects/{name}`.
///
/// # Errors
/// When the Go toolchain refuses it or is absent.
pub fn go_program(name: &str) -> Result<PathBuf> {
    let folder = subjects().join(name);
    build(name, &folder.join("main.go"), |to| {
        let mut command = Command::new(host::find("go").unwrap_or_else(|| "go".into()));
        command.current_dir(&folder).args(["build", "-buildvcs=false", "-o"]).arg(to).arg(".");
        command
    })
}

/// The Rust program in the folder `tests/subjects/{name}`, as people build theirs: `cargo build --release`.
///
/// # Errors
/// When cargo refuses it.
pub fn rust_program(name: &str) -> Result<PathBuf> {
    let folder = subjects().join(name);
    let target = host::cache()?.join(format!("subjects/{name}-target"));
    build(name, &folder.join("src/main.rs"), |to| {
        // Builds in folders of its own, so that what it depends on is compiled once.
        let mut command = Command::new("sh");
        let script = "cargo build --release --locked --target-dir \"$1\" && cp \"$1/release/$2\" \"$3\"";
        command.current_dir(&folder).args(["-c", script, "sh"]).arg(&target).arg(name).arg(to);
        // Of the build that runs this test.
        command.env_remove("CARGO_BUILD_TARGET").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        command
    })
}

/// Folder of the subjects' sources.
pub fn subjects() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("subjects")
}

fn build(name: &str, source: &Path, command: impl FnOnce(&Path) -> Command) -> Result<PathBuf> {
    let text = std::fs::read(source).with_context(|| source.display().to_string())?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let folder = host::cache()?.join(format!("subjects/{:016x}", hasher.finish()));
    let program = folder.join(name);
    if !program.is_file() {
        std::fs::create_dir_all(&folder)?;
        let unfinished = folder.join(format!("{name}.{}", std::process::id()));
        let output = command(&unfinished).output().with_context(|| format!("compiling {}", source.display()))?;
        if !output.status.success() {
            bail!("{} does not compile:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
        }
        std::fs::rename(&unfinished, &program)?;
    }
    Ok(program)
}
