//! What this machine offers: privilege, programs, ports, places; and waiting for conditions.
//!
//! In: the machine. Out: facts, or the reason why a test has to be skipped.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Why a test cannot run here; printed after `SKIP:`.
pub type Reason = String;

/// `None` if probes can be loaded here, else what is missing.
pub fn lacks_root_and_btf() -> Option<Reason> {
    let root = rustix::process::geteuid().is_root();
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    (!root || !btf).then(|| format!("needs root and BTF (root: {root}, BTF: {btf})"))
}

/// `None` if `program` is in the path, else what is missing.
pub fn lacks(program: &str) -> Option<Reason> {
    find(program).is_none().then(|| format!("needs {program}, which is not installed"))
}

/// Full path of `program`, looked for in `PATH` and where Debian keeps system programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/go/bin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// The interpreter itself where `program` in the path is a wrapper script, asked by running it with `args`.
///
/// # Errors
/// When it cannot be run or prints nothing.
pub fn real_program(program: &str, args: &[&str]) -> Result<PathBuf> {
    let output = Command::new(program).args(args).output().with_context(|| format!("running {program}"))?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if path.is_empty() {
        bail!("{program} did not tell where it is");
    }
    Ok(PathBuf::from(path))
}

/// Root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Folder for what is fetched or built once: `spantap` in the user's cache (XDG Base Directory Specification).
///
/// # Errors
/// If the user has none.
pub fn cache() -> Result<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("no HOME")?.join("spantap"))
}

/// Folder of the programs of this build: `SPANTAP_BIN_DIR`, else that of the running test.
///
/// # Errors
/// When the place of the running program is not known.
pub fn programs() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("SPANTAP_BIN_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let own = std::env::current_exe().context("finding the running program")?;
    let folder = own.parent().context("the running program has no folder")?;
    // target/debug/deps/<test> or target/debug/<bin>
    Ok(if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_path_buf())
}

/// Path of a program under test.
///
/// # Errors
/// When it has not been built; never a reason to skip.
pub fn built(program: &str) -> Result<PathBuf> {
    let path = programs()?.join(program);
    if !path.is_file() {
        bail!("{} is not there: run `cargo build --workspace --bins` first, or set SPANTAP_BIN_DIR", path.display());
    }
    Ok(path)
}

/// A program of this crate, such as `subject`; always that of the same build as the running test.
///
/// # Errors
/// When it has not been built.
pub fn own(program: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    let mut folders = own.ancestors().skip(1).take(2).map(|folder| folder.join(program));
    folders.find(|path| path.is_file()).with_context(|| format!("{program} of this crate has not been built"))
}

/// Ports below the range that the kernel gives to outgoing connections, of which the tests make thousands: between the look
/// and the use, none of those can take the port.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A TCP port that was free a moment ago on all addresses, and is not given twice by this process.
///
/// # Errors
/// When none can be bound.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let many = PORTS.end - PORTS.start;
    // Suites that run at the same time begin at different places.
    let place = std::process::id().wrapping_mul(7919);
    for _ in 0..many {
        let number = PORTS.start + place.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % many;
        let port = u16::try_from(number)?;
        // The wildcard address: free on 127.0.0.1 and ::1 alike.
        if TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {} to {}", PORTS.start, PORTS.end)
}

/// A folder that other users can enter, removed when dropped.
///
/// # Errors
/// When it cannot be made.
pub fn folder() -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("spantap-test.").tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// A limit of waiting as long as this machine needs: times `SPANTAP_PATIENCE` (1 to 100), for one that is emulated.
pub fn patient(limit: Duration) -> Duration {
    limit * patience()
}

/// Whether this machine is emulated, by `SPANTAP_PATIENCE`: many times slower than any other.
pub fn is_emulated() -> bool {
    patience() > 1
}

fn patience() -> u32 {
    let factor = std::env::var("SPANTAP_PATIENCE").ok().and_then(|factor| factor.parse::<u32>().ok());
    factor.map_or(1, |factor| factor.clamp(1, 100))
}

/// Calls `look` until it returns a value; looks again every 20 ms.
///
/// # Errors
/// After `limit`, naming `what` was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let limit = patient(limit);
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {limit:?} in vain for: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
