//! Settings of the kernel and of the place that the agent is started in: each works, or is answered with what is missing.
#![allow(missing_docs)]

use std::{fs, process::ExitCode};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    host,
    place::{Place, observed},
    process::Process,
    servers::Server,
    setting::{self, Setting},
    suite::Suite,
};

/// The forwarder, started apart.
const FORWARDER: [&str; 7] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
/// Where kernels tell their types.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Hides that, for what is started by it.
const NO_BTF: [&str; 6] =
    ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"", "sh"];
/// Takes away what tracing tools use to mount; what is not mounted cannot be taken away.
const NO_MOUNTS: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "umount -l /sys/kernel/tracing /sys/kernel/debug /sys/fs/bpf 2>/dev/null; umount -R -l /sys/fs/cgroup; exec \"$@\"",
    "sh",
];

fn main() -> ExitCode {
    let programs = [host::lacks("nginx"), host::lacks("setpriv"), host::lacks("unshare")];
    let lacks = [host::lacks_root_and_btf()].into_iter().chain(programs);
    Suite::new("conditions", lacks, || Ok(()))
        .case("kernel_that_lets_few_measure_and_shows_no_addresses", |()| strict_settings())
        .case("kernel_that_lets_only_the_privileged_use_bpf", |()| privileged_bpf())
        .case("nothing_mounted_that_tracing_tools_use", |()| works(&NO_MOUNTS, ""))
        .case("pid_namespace_of_its_own", |()| own_namespace())
        .case("types_from_a_file", |()| types_from_a_file())
        .case("types_from_a_folder", |()| types_from_a_folder())
        .case("no_types_and_no_file", |()| no_types())
        .case("file_of_types_that_will_not_do", |()| bad_types())
        .run()
}

/// An agent that is started so observes.
fn works(before: &[&str], own_keys: &str) -> Result<()> {
    let server = Server::nginx(1, None)?;
    let place = Place::new(server.port, own_keys)?;
    let (mut forwarder, agent) = start(&place, before)?;
    observed(&mut forwarder, server.port, "/seen").with_context(|| agent.tail())
}

fn start(place: &Place, before: &[&str]) -> Result<(Process, Process)> {
    let forwarder = place.start_until(&FORWARDER, "spantap", &["forward"], "waiting for the agent")?;
    let agent = place.start_until(before, "spantap-agent", &[], "probes are attached")?;
    Ok((forwarder, agent))
}

fn strict_settings() -> Result<()> {
    let _paranoid = Setting::set("kernel.perf_event_paranoid", "3")?;
    let _addresses = Setting::set("kernel.kptr_restrict", "2")?;
    works(&[], "")
}

/// 1 means the same as 2 for who has the privilege, but can be changed by nobody until the next start: here it is tried only where it is set.
fn privileged_bpf() -> Result<()> {
    const UNPRIVILEGED: &str = "kernel.unprivileged_bpf_disabled";
    let _disabled = if setting::read(UNPRIVILEGED)? == "1" { None } else { Some(Setting::set(UNPRIVILEGED, "2")?) };
    ensure!(setting::read(UNPRIVILEGED)? != "0", "bpf(2) is for everybody");
    works(&[], "")
}

fn own_namespace() -> Result<()> {
    let place = Place::new(host::free_port()?, "")?;
    let before = ["unshare", "--pid", "--fork", "--mount-proc"];
    place.run(&before, "spantap-agent", &[])?.expect(69, &["PID namespace of the host", "pid: host", "hostPID: true"])
}

fn types_from_a_file() -> Result<()> {
    let folder = host::folder()?;
    let file = folder.path().join("kernel.btf");
    fs::copy(BTF, &file)?;
    works(&NO_BTF, &format!("  btf: {}\n", file.display()))
}

fn types_from_a_folder() -> Result<()> {
    let folder = host::folder()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    fs::copy(BTF, folder.path().join(format!("{}.btf", release.trim())))?;
    works(&NO_BTF, &format!("  btf: {}\n", folder.path().display()))
}

fn no_types() -> Result<()> {
    let place = Place::new(host::free_port()?, "")?;
    let said = ["CONFIG_DEBUG_INFO_BTF=y", "/sys mounted", "spantap.btf"];
    place.run(&NO_BTF, "spantap-agent", &[])?.expect(69, &said)
}

fn bad_types() -> Result<()> {
    let folder = host::folder()?;
    let file = folder.path().join("kernel.btf");
    let place = Place::new(host::free_port()?, &format!("  btf: {}\n", file.display()))?;
    let refused = |says: &str| place.run(&NO_BTF, "spantap-agent", &[])?.expect(64, &["spantap.btf", says]);
    refused("No such file")?;
    fs::write(&file, "")?;
    refused("it is no BTF")?;
    fs::copy(host::built("spantap")?, &file)?;
    refused("objcopy --dump-section .BTF=")?;
    let whole = fs::read(BTF)?;
    fs::write(&file, whole.get(..whole.len() / 2).unwrap_or_default())?;
    refused("it is cut off")?;
    fs::remove_file(&file)?;
    fs::create_dir(&file)?;
    refused(".btf: No such file")
}
