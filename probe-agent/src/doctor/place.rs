//! Where this process runs.
//!
//! In: `/proc/self`, the environment, marks of container engines. Out: container or host, PID namespace, cgroups,
//! mounts. All but the PID namespace is for information: the agent needs none of it.

use std::path::Path;

use spantap_doctor::{Check, Group, Lack};

use crate::discovery::{ProcFs, container_of};

/// Longest `mountinfo` that is read, bytes.
const MAX_MOUNTS: u64 = 1 << 20;

/// Looks.
pub(super) fn look(procfs: &ProcFs) -> Vec<Check> {
    let own = procfs.own_pid().unwrap_or_default();
    let cgroup = procfs.read(own, "cgroup", 64 << 10).unwrap_or_default();
    let mounts = procfs.read(own, "mountinfo", MAX_MOUNTS).unwrap_or_default();
    let namespace = procfs.is_initial_pid_namespace().or_else(|| procfs.is_own_pid_namespace_initial());
    let mounted = |kind: &str| mount_points(&mounts, kind);
    vec![
        container(&hints(container_of(&cgroup, &mounts))),
        pid_namespace(namespace),
        cgroups(!mounted("cgroup2").is_empty(), !mounted("cgroup").is_empty()),
        file_systems(&mounted("tracefs"), &mounted("bpf")),
        no_new_privs(&procfs.read(own, "status", 64 << 10).unwrap_or_default()),
    ]
}

/// Whether something is mounted at `path`; `None` if that cannot be told.
pub(super) fn mounted(path: &str) -> Option<bool> {
    let procfs = ProcFs::default();
    let mounts = procfs.read(procfs.own_pid()?, "mountinfo", MAX_MOUNTS).ok()?;
    Some(lines(&mounts).any(|(point, _)| point == path))
}

/// Mount point and kind of each line of a `mountinfo` (proc_pid_mountinfo(5)):
/// `id parent device root point options [optional…] - kind source options`.
fn lines(mounts: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    mounts.split(|&byte| byte == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let (before, after) = line.split_once(" - ")?;
        Some((before.split(' ').nth(4)?, after.split(' ').next()?))
    })
}

fn mount_points(mounts: &[u8], kind: &str) -> Vec<String> {
    lines(mounts).filter(|(_, found)| *found == kind).map(|(point, _)| point.to_owned()).take(4).collect()
}

/// Marks of containers, the strongest first.
fn hints(id: Option<String>) -> Vec<String> {
    let mut hints = Vec::new();
    hints.extend(id.map(|id| format!("id {}", id.get(..12).unwrap_or(&id))));
    hints.extend(
        ["/.dockerenv", "/run/.containerenv"].iter().filter(|path| Path::new(path).exists()).map(|p| p.to_string()),
    );
    // Set by systemd-nspawn, Podman, LXC for the first process, and inherited.
    hints.extend(std::env::var("container").ok().map(|engine| format!("container={engine}")));
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        hints.push("KUBERNETES_SERVICE_HOST".to_owned());
    }
    hints
}

fn container(hints: &[String]) -> Check {
    let finding = match hints {
        [] => "on the host, as it seems".to_owned(),
        hints => format!("in a container ({})", hints.join(", ")),
    };
    Check::ok(Group::Privilege, "privilege.container", finding)
}

fn pid_namespace(initial: Option<bool>) -> Check {
    let id = "privilege.pid_namespace";
    match initial {
        Some(true) => Check::ok(Group::Privilege, id, "that of the host"),
        Some(false) => Check::failed(
            Group::Privilege,
            id,
            Lack::Thing,
            "not that of the host: other processes cannot be found by the numbers that the kernel tells",
            "docker: --pid=host, compose: pid: host, Kubernetes: hostPID: true",
        ),
        None => Check::unknown(
            Group::Privilege,
            id,
            "/proc does not tell",
            "run doctor as root: sudo spantap doctor; see to it that /proc is mounted",
        ),
    }
}

fn cgroups(two: bool, one: bool) -> Check {
    let finding = match (two, one) {
        (true, false) => "version 2",
        (true, true) => "version 2 and 1 (hybrid)",
        (false, true) => "version 1",
        (false, false) => "not mounted",
    };
    Check::ok(Group::Kernel, "kernel.cgroup", format!("{finding}; the agent needs neither"))
}

fn file_systems(tracefs: &[String], bpf: &[String]) -> Check {
    let say = |name: &str, points: &[String]| match points {
        [] => format!("{name} is not mounted"),
        points => format!("{name} at {}", points.join(", ")),
    };
    let finding = format!("{}; {}; the agent needs neither", say("tracefs", tracefs), say("bpffs", bpf));
    Check::ok(Group::Kernel, "kernel.mounts", finding)
}

fn no_new_privs(status: &[u8]) -> Check {
    let text = String::from_utf8_lossy(status);
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let set = match value("NoNewPrivs:") {
        Some("1") => "no_new_privs is set: sudo and file capabilities have no effect below this process",
        Some(_) => "no_new_privs is not set",
        None => "the kernel does not tell no_new_privs",
    };
    let filtered = if value("Seccomp:") == Some("2") { "; its system calls are filtered already" } else { "" };
    Check::ok(Group::Privilege, "privilege.no_new_privs", format!("{set}{filtered}"))
}

#[cfg(test)]
mod tests {
    use spantap_doctor::State;

    use super::*;

    const MOUNTS: &[u8] = b"22 1 0:20 / /sys rw,nosuid - sysfs sysfs rw
23 22 0:7 / /sys/kernel/security rw shared:3 - securityfs securityfs rw
30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
31 22 0:27 / /sys/fs/bpf rw - bpf bpf rw
broken line
";

    #[test]
    fn mounts_are_read() {
        assert_eq!(mount_points(MOUNTS, "cgroup2"), ["/sys/fs/cgroup"]);
        assert!(mount_points(MOUNTS, "tracefs").is_empty());
        let check = file_systems(&[], &mount_points(MOUNTS, "bpf"));
        assert_eq!(check.finding, "tracefs is not mounted; bpffs at /sys/fs/bpf; the agent needs neither");
        assert!(lines(b"\xff\xfe - \n - - -\n").next().is_none());
    }

    #[test]
    fn only_the_pid_namespace_matters() {
        assert_eq!(pid_namespace(Some(false)).exit_code, Some(Lack::Thing));
        assert_eq!(pid_namespace(None).state, State::Unknown);
        assert_eq!(container(&["id 0123".to_owned()]).state, State::Ok);
        assert!(no_new_privs(b"NoNewPrivs:\t1\nSeccomp:\t2\n").finding.contains("filtered"));
    }

    #[test]
    fn this_machine_has_a_root_and_no_such_place() {
        assert_eq!(mounted("/"), Some(true));
        assert_eq!(mounted("/no/such/place"), Some(false));
    }
}
