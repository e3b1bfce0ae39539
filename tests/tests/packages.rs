//! The Debian package and the systemd units, of the programs of this build.
//!
//! In: `packaging/`, the built programs, a minimal Debian (tools/debian-base.sh). Out: what dpkg leaves behind after each
//! step of a package's life, and what systemd's own tools say of the units.
#![allow(missing_docs)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    host::{self, Reason},
    spantap::clear_environment,
    suite::Suite,
};

const UNITS: [&str; 2] = ["spantap-forwarder.service", "spantap-agent.service"];
/// The agent's options, each by itself.
const DROP_INS: [&str; 2] = ["tls.conf", "propagation.conf"];
/// Highest exposure that `systemd-analyze security` may give, in tenths; it was 1.2 and 1.5, with either option 1.9.
const EXPOSURE: &str = "20";
const CONFIGURATION: &str = "etc/spantap/spantap.yml";
const SECRETS: &str = "etc/default/spantap";

fn main() -> ExitCode {
    Suite::new("packages", [], || Ok(()))
        .case_unless(
            host::lacks("dpkg-deb").or_else(lacks_debian),
            "package_is_installed_upgraded_removed_and_purged",
            |()| life(),
        )
        .case_unless(host::lacks("dpkg-deb"), "same_programs_make_the_same_package", |()| same_package())
        .case_unless(host::lacks("dpkg-deb"), "package_without_programs_is_refused", |()| no_programs())
        .case("shipped_configuration_is_taken_and_so_are_its_examples", |()| configuration())
        .case_unless(host::lacks("systemd-analyze"), "units_are_valid_and_hardened", |()| units())
        .case_unless(lacks_for_units(), "units_run_as_they_are_shipped", |()| units_run())
        .run()
}

/// Makes the base if it can be made here; that it fails where it should work is no reason to skip.
fn lacks_debian() -> Option<Reason> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root, to install in a chroot".to_owned());
    }
    host::lacks("debootstrap").or_else(|| {
        let output = debian_base().ok()?;
        (output.status.code() == Some(3)).then(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
    })
}

fn debian_base() -> Result<Output> {
    Ok(Command::new(host::repository().join("tools/debian-base.sh")).output()?)
}

/// Runs to its end; its output, or everything it said if it failed.
fn succeed(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

fn build(programs: &Path, to: &Path, version: &str) -> Command {
    let mut command = Command::new(host::repository().join("packaging/debian/build.sh"));
    command.arg(programs).arg(to).arg(version).envs([("SOURCE_DATE_EPOCH", "1700000000"), ("LEVEL", "0")]);
    command
}

fn package(to: &Path, version: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(succeed(&mut build(&host::programs()?, to, version))?.trim()))
}

/// A Debian of its own, gone when dropped.
struct Debian(tempfile::TempDir);

impl Debian {
    fn new() -> Result<Self> {
        let base = debian_base()?;
        ensure!(base.status.success(), "tools/debian-base.sh: {}", String::from_utf8_lossy(&base.stderr));
        let folder = host::folder()?;
        let from = format!("{}/.", String::from_utf8(base.stdout)?.trim());
        succeed(Command::new("cp").args(["-a", "--reflink=auto", &from]).arg(folder.path()))?;
        Ok(Self(folder))
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.0.path()).args(words).env_clear().envs([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("LC_ALL", "C"),
        ]);
        command
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        succeed(&mut self.command(words))
    }

    fn fails(&self, words: &[&str]) -> Result<bool> {
        Ok(!self.command(words).output()?.status.success())
    }

    fn install(&self, package: &Path) -> Result<()> {
        let name = package.file_name().and_then(|name| name.to_str()).context("no name")?;
        fs::copy(package, self.path("tmp").join(name))?;
        self.run(&["dpkg", "--install", &format!("/tmp/{name}")])?;
        fs::remove_file(self.path("tmp").join(name))?;
        Ok(())
    }

    /// All files, but those in which dpkg and the user database keep their own books.
    fn files(&self) -> Result<BTreeSet<String>> {
        let all = self.run(&["find", "/", "-xdev"])?;
        let books = ["/var/lib/dpkg/", "/var/log/", "/var/cache/", "/etc/.pwd.lock"];
        let backups = ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-"];
        let own = |path: &&str| !books.iter().chain(&backups).any(|book| path.starts_with(book));
        Ok(all.lines().filter(own).map(str::to_owned).collect())
    }

    fn accounts(&self) -> Result<[String; 2]> {
        Ok([fs::read_to_string(self.path("etc/passwd"))?, fs::read_to_string(self.path("etc/group"))?])
    }

    fn wanted(&self, unit: &str) -> PathBuf {
        self.path("etc/systemd/system/multi-user.target.wants").join(unit)
    }

    fn enabled(&self, unit: &str) -> bool {
        self.wanted(unit).symlink_metadata().is_ok()
    }
}

fn life() -> Result<()> {
    let packages = host::folder()?;
    let first = package(packages.path(), "1.0.0")?;
    let second = package(packages.path(), "1.0.1")?;
    let debian = Debian::new()?;
    let (files, accounts) = (debian.files()?, debian.accounts()?);

    debian.install(&first)?;
    installed(&debian).context("after install")?;

    let configuration = debian.path(CONFIGURATION);
    let changed = fs::read_to_string(&configuration)? + "log_level: DEBUG\n";
    fs::write(&configuration, &changed)?;
    // What `systemctl disable` does.
    fs::remove_file(debian.wanted("spantap-agent.service"))?;
    debian.install(&second)?;
    ensure!(debian.run(&["dpkg-query", "--show", "--showformat=${Version}", "spantap"])? == "1.0.1");
    ensure!(fs::read_to_string(&configuration)? == changed, "the upgrade has lost a changed configuration");
    ensure!(!debian.enabled("spantap-agent.service"), "the upgrade has enabled what was disabled");
    ensure!(debian.enabled("spantap-forwarder.service"), "the upgrade has disabled what was enabled");

    debian.run(&["dpkg", "--remove", "spantap"])?;
    ensure!(!debian.path("usr/bin/spantap").exists() && !debian.path("usr/bin/spantap-agent").exists());
    ensure!(fs::read_to_string(&configuration)? == changed, "remove has taken the configuration away");
    debian.run(&["getent", "passwd", "spantap"])?;

    // What an administrator put beside the configuration is not the package's to delete.
    let beside = debian.path("etc/spantap/mine.yml");
    fs::write(&beside, "")?;
    debian.run(&["dpkg", "--purge", "spantap"])?;
    ensure!(beside.exists(), "purge has deleted somebody else's file");
    fs::remove_file(&beside)?;
    fs::remove_dir(debian.path("etc/spantap"))?;
    ensure!(debian.fails(&["getent", "passwd", "spantap"])?, "the user is still there");
    let left: Vec<_> = debian.files()?.difference(&files).cloned().collect();
    ensure!(left.is_empty(), "purge has left {left:?}");
    ensure!(debian.accounts()? == accounts, "purge has left an account: {:?}", debian.accounts()?);

    // And again, to see that nothing of the first life stands in the way; purge from installed this time.
    debian.install(&first)?;
    installed(&debian).context("after purge and install")?;
    debian.run(&["dpkg", "--purge", "spantap"])?;
    ensure!(debian.files()? == files, "the second purge has left something, or taken too much");
    Ok(())
}

fn installed(debian: &Debian) -> Result<()> {
    ensure!(debian.run(&["dpkg-query", "--show", "--showformat=${Status}", "spantap"])? == "install ok installed");
    for program in ["spantap", "spantap-agent"] {
        let said = debian.run(&[program, "--version"])?;
        ensure!(said.contains(env!("CARGO_PKG_VERSION")), "{program}: {said}");
    }
    let user = debian.run(&["getent", "passwd", "spantap"])?;
    ensure!(user.trim().ends_with(":/nonexistent:/usr/sbin/nologin"), "{user}");

    let as_user = ["setpriv", "--reuid=spantap", "--regid=spantap", "--clear-groups", "--no-new-privs"];
    let check = ["spantap", "check", "--config", "/etc/spantap/spantap.yml"];
    let said = debian.run(&[&as_user[..], &check[..]].concat())?;
    ensure!(said.contains("every process that serves") && !said.contains("# warning"), "{said}");
    let secrets = debian.path(SECRETS).metadata()?;
    ensure!(secrets.uid() == 0 && secrets.permissions().mode() & 0o777 == 0o600, "{SECRETS} can be read by others");
    ensure!(debian.fails(&[&as_user[..], &["cat", "/etc/default/spantap"]].concat())?, "{SECRETS} was read");

    for unit in UNITS {
        ensure!(debian.enabled(unit), "{unit} is not enabled");
        let text = fs::read_to_string(debian.path("usr/lib/systemd/system").join(unit))?;
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("no ExecStart")?;
        // What the unit starts is there, and takes these words.
        let words: Vec<_> = start.split_whitespace().chain(["--help"]).collect();
        debian.run(&words)?;
    }
    debian.run(&["dpkg", "--verify", "spantap"]).and_then(|said| {
        ensure!(said.is_empty(), "dpkg --verify: {said}");
        Ok(())
    })
}

fn same_package() -> Result<()> {
    let (one, other) = (host::folder()?, host::folder()?);
    let (first, second) = (package(one.path(), "1.0.0")?, package(other.path(), "1.0.0")?);
    ensure!(fs::read(first)? == fs::read(second)?, "the second package differs from the first");
    Ok(())
}

fn no_programs() -> Result<()> {
    let folder = host::folder()?;
    let output = build(folder.path(), folder.path(), "1.0.0").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(69) && said.contains("build it first"), "{}: {said}", output.status);
    Ok(())
}

fn configuration() -> Result<()> {
    let folder = host::folder()?;
    let shipped = fs::read_to_string(host::repository().join("packaging/etc/spantap.yml"))?;
    // Sentences begin with "# ", examples with "#" and the text itself.
    let example = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with("  ") || rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let examples: String = shipped.lines().map(|line| example(line) + "\n").collect();
    ensure!(examples != shipped, "there are no examples");
    for (name, text, holds) in [
        ("shipped.yml", &shipped, "every process that serves"),
        ("examples.yml", &examples, "open_ports: \"80,8000-8999\""),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        let mut command = Command::new(host::built("spantap")?);
        command.arg("check").arg("--config").arg(&path);
        clear_environment(&mut command);
        let said = succeed(&mut command)?;
        ensure!(said.contains(holds) && !said.contains("# warning"), "{name}: {said}");
    }
    Ok(())
}

/// As installed, but for the place of the programs: systemd looks whether they are there.
fn units() -> Result<()> {
    [None]
        .into_iter()
        .chain(DROP_INS.map(Some))
        .try_for_each(|option| units_with(option).with_context(|| format!("{option:?}")))
}

fn lacks_for_units() -> Option<Reason> {
    let systemd = (!Path::new("/lib/systemd/systemd").exists()).then(|| "no /lib/systemd/systemd".to_owned());
    host::lacks_root_and_btf().or_else(|| ["nginx", "curl", "unshare"].into_iter().find_map(host::lacks)).or(systemd)
}

/// By a service manager: that they are valid says nothing about whether the programs can do with what is left to them.
fn units_run() -> Result<()> {
    let programs = host::programs()?;
    ["", "tls", "propagation"].into_iter().try_for_each(|option| {
        succeed(Command::new(host::repository().join("tools/try-units.sh")).arg(&programs).arg(option)).map(drop)
    })
}

fn units_with(option: Option<&str>) -> Result<()> {
    let folder = host::folder()?;
    if let Some(option) = option {
        let (from, to) = ("packaging/systemd/spantap-agent.service.d", folder.path().join("spantap-agent.service.d"));
        fs::create_dir(&to)?;
        fs::copy(host::repository().join(from).join(option), to.join(option))?;
    }
    let programs = host::programs()?;
    for unit in UNITS {
        let text = fs::read_to_string(host::repository().join("packaging/systemd").join(unit))?;
        let here = text.replace("/usr/bin/", &format!("{}/", programs.display()));
        ensure!(here != text, "{unit} starts nothing in /usr/bin");
        fs::write(folder.path().join(unit), here)?;
    }
    let output =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args(UNITS).current_dir(folder.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // It says more than it fails for: unknown keys are only told.
    ensure!(output.status.success() && !said.contains("spantap"), "systemd-analyze verify: {said}");
    for unit in UNITS {
        let path = folder.path().join(unit);
        succeed(
            Command::new("systemd-analyze")
                .args(["security", "--no-pager", "--offline=true", "--threshold", EXPOSURE])
                .arg(&path),
        )?;
    }
    Ok(())
}
