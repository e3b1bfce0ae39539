//! What the kernel offers.
//!
//! In: uname, files below `/sys`. Out: release, architecture, types (BTF), lockdown.

use std::{fs, io, path::Path};

use spantap_doctor::{Check, Group, Lack};

use super::{place::mounted, programs::UNLOCK};
use crate::probes::{OWN as BTF, ProbeError, kernel_types};

/// The README's least release.
const LEAST: (u32, u32) = (5, 10);
/// What the probes and the filter of system calls are compiled for.
const MACHINE: &str = std::env::consts::ARCH;
const SECURITY: &str = "/sys/kernel/security";

/// Looks. `given`: `spantap.btf`; `programs_run`: every required program was taken by the kernel.
pub(super) fn look(given: Option<&Path>, programs_run: bool) -> Vec<Check> {
    let system = rustix::system::uname();
    let btf = fs::File::open(BTF).and_then(|file| Ok(file.metadata()?.len()));
    vec![
        release(&system.release().to_string_lossy(), programs_run),
        machine(&system.machine().to_string_lossy()),
        types(btf, given),
        lockdown(fs::read_to_string(format!("{SECURITY}/lockdown")), mounted(SECURITY)),
    ]
}

fn release(release: &str, programs_run: bool) -> Check {
    let id = "kernel.release";
    match version(release) {
        Some(version) if version >= LEAST => {
            Check::ok(Group::Kernel, id, format!("Linux {release} is supported, with the hook set below"))
        }
        Some(_) if programs_run => {
            Check::ok(Group::Kernel, id, format!("Linux {release} is older than 5.10; all programs ran"))
        }
        Some(_) => Check::failed(
            Group::Kernel,
            id,
            Lack::Thing,
            format!("Linux {release} is older than 5.10"),
            "use Linux 5.10 or later",
        ),
        None => Check::unknown(
            Group::Kernel,
            id,
            format!("the release {release:?} has no version"),
            "compare it with 5.10 yourself; what counts is whether the programs below run",
        ),
    }
}

/// Major and minor number of `6.18.44-cloud`.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn machine(machine: &str) -> Check {
    if machine == MACHINE {
        return Check::ok(Group::Kernel, "kernel.architecture", machine);
    }
    Check::failed(
        Group::Kernel,
        "kernel.architecture",
        Lack::Thing,
        format!("{machine}; the agent is built for {MACHINE}"),
        format!("run it on {MACHINE}"),
    )
}

fn types(size: io::Result<u64>, given: Option<&Path>) -> Check {
    let id = "kernel.btf";
    match size {
        Ok(_) if given.is_some() => Check::ok(Group::Kernel, id, format!("{BTF} is there; spantap.btf is not needed")),
        Err(_) if given.is_some() => match kernel_types(given) {
            Ok(types) => {
                let file = types.file.unwrap_or_default();
                Check::ok(Group::Kernel, id, format!("{BTF} is not there; {} is read in its place", file.display()))
            }
            Err(error) => {
                let lack = if matches!(error, ProbeError::BadBtf { .. }) { Lack::Configuration } else { Lack::Thing };
                Check::failed(
                    Group::Kernel,
                    id,
                    lack,
                    format!("{BTF} is not there; {error}"),
                    "name the BTF of exactly this kernel by spantap.btf (docs/kernels.md), or use one built with CONFIG_DEBUG_INFO_BTF=y",
                )
            }
        },
        Ok(_) => Check::ok(Group::Kernel, id, format!("{BTF} is there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::failed(
            Group::Kernel,
            id,
            Lack::Thing,
            format!("{BTF} is not there: this kernel does not tell its types, or /sys is not mounted"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (those of Debian, Ubuntu, Fedora, RHEL are); in a container, \
             mount /sys; or name a file with its types by spantap.btf",
        ),
        Err(error) => Check::failed(
            Group::Kernel,
            id,
            Lack::Privilege,
            format!("{BTF} cannot be read: {error}"),
            "run doctor as root: sudo spantap doctor",
        ),
    }
}

fn lockdown(file: io::Result<String>, securityfs: Option<bool>) -> Check {
    let id = "kernel.lockdown";
    let unknown = |finding: &str, fix: &str| Check::unknown(Group::Kernel, id, finding, fix);
    match file {
        // The mode in force stands in brackets: "none [integrity] confidentiality".
        Ok(modes) => match modes.split(['[', ']']).nth(1) {
            Some("confidentiality") => Check::failed(
                Group::Kernel,
                id,
                Lack::Thing,
                "confidentiality: the kernel lets no probe read its memory",
                UNLOCK,
            ),
            Some(mode) => Check::ok(Group::Kernel, id, format!("{mode}: does not hinder")),
            None => unknown(&format!("{modes:?} is not understood"), "look at /sys/kernel/security/lockdown"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match securityfs {
            Some(true) => Check::ok(Group::Kernel, id, "this kernel knows no lockdown"),
            _ => unknown(
                "securityfs is not mounted; whether the programs below run tells as much",
                "mount -t securityfs securityfs /sys/kernel/security",
            ),
        },
        Err(error) => unknown(&format!("cannot be read: {error}"), "run doctor as root: sudo spantap doctor"),
    }
}

#[cfg(test)]
mod tests {
    use spantap_doctor::State;

    use super::*;

    #[test]
    fn releases() {
        for (text, programs_run, state) in [
            ("6.18.44-fc-v595", false, State::Ok),
            ("7.0", false, State::Ok),
            ("6.1.0-50-cloud-amd64", false, State::Ok),
            ("5.10.0-46-cloud-amd64", false, State::Ok),
            ("5.4.0-200-generic", false, State::Failed),
            ("4.18.0-553.el8_10.x86_64", false, State::Failed),
            // Back-ported: what runs, runs.
            ("4.18.0-553.el8_10.x86_64", true, State::Ok),
            ("strange", true, State::Unknown),
        ] {
            assert_eq!(release(text, programs_run).state, state, "{text} {programs_run}");
        }
    }

    #[test]
    fn lockdown_modes() {
        let of = |text: &str| lockdown(Ok(text.to_owned()), Some(true)).state;
        assert_eq!(of("[none] integrity confidentiality\n"), State::Ok);
        assert_eq!(of("none [integrity] confidentiality\n"), State::Ok);
        assert_eq!(of("none integrity [confidentiality]\n"), State::Failed);
        assert_eq!(of("odd"), State::Unknown);
        let absent = || Err(io::ErrorKind::NotFound.into());
        assert_eq!(lockdown(absent(), Some(true)).state, State::Ok);
        let not_mounted = lockdown(absent(), Some(false));
        assert_eq!(not_mounted.state, State::Unknown);
        assert!(not_mounted.fix.is_some_and(|fix| fix.starts_with("mount -t securityfs")));
        assert_eq!(lockdown(absent(), None).state, State::Unknown);
        assert_eq!(lockdown(Err(io::ErrorKind::PermissionDenied.into()), None).state, State::Unknown);
    }

    #[test]
    fn a_kernel_without_types_or_of_another_machine_does_not_do() {
        assert_eq!(types(Ok(1), None).state, State::Ok);
        assert_eq!(types(Err(io::ErrorKind::NotFound.into()), None).exit_code, Some(Lack::Thing));
        assert_eq!(types(Err(io::ErrorKind::PermissionDenied.into()), None).exit_code, Some(Lack::Privilege));
        assert_eq!(machine(std::env::consts::ARCH).state, State::Ok);
        assert_eq!(machine("riscv64").exit_code, Some(Lack::Thing));
    }
}
