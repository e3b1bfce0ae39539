//! What the doctor says is what a start does.

use std::{
    os::unix::fs::{PermissionsExt as _, chown},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};
use spantap_tests::{host, process::Process, spantap::clear_environment};

use super::asked::Doctor;

/// A start that refuses ends at once.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn unsafe_folder() -> Result<()> {
    for (owner, mode, fix) in [(0, 0o777, "chmod go-w"), (0, 0o1777, "chmod go-w"), (65533, 0o755, "chown ")] {
        let (folder, logs) = (host::folder()?, host::folder()?);
        chown(folder.path(), Some(owner), None)?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode))?;
        let socket = folder.path().join("ingest.sock");
        let said = Doctor::new()?.env("SPANTAP_SOCKET", socket.display().to_string()).json()?;
        said.failed("socket.path", &["could replace the socket"])?;
        ensure!(said.fix("socket.path")?.starts_with(fix), "{}", said.out);

        let mut command = Command::new(host::built("spantap")?);
        command.arg("forward");
        clear_environment(&mut command);
        command.env("SPANTAP_SOCKET", &socket).env("SPANTAP_ADMIN", "off");
        let mut start = Process::start("forward", logs.path(), command)?;
        ensure!(start.wait(LIMIT)?.code() == Some(69), "{}", start.tail());
        ensure!(start.log().contains("could replace the socket"), "{}", start.tail());
    }
    Ok(())
}

/// With each configuration, what a start logs of its features is what the doctor says of them.
pub(super) fn features() -> Result<()> {
    const ID: &str = "programs.features";
    let said = Doctor::new()?.json()?;
    said.check(ID, "ok", &["on: ", "tls", "go-links", "python-links", "node-links"])?;
    ensure!(said.check(ID, "ok", &["tokio-links"]).is_err(), "nobody asked for tokio: {}", said.out);
    let tokio = Doctor::new()?.yaml("spantap: {links_experimental: [tokio]}\n");
    tokio.json()?.check(ID, "ok", &["tokio-links"])?;
    let off = Doctor::new()?.yaml("spantap: {tls: 'off'}\n").json()?;
    off.check(ID, "ok", &["turned off: tls, go-links"])?;
    ensure!(!off.ids().any(|id| id == "programs.tls"), "{}", off.out);
    let said = tokio.under(&["setpriv", "--bounding-set", "-sys_admin"]).json()?;
    said.check(ID, "ok", &["off: tls, go-links, python-links, node-links, tokio-links"])?;
    said.check("programs.tls", "degraded", &["TLS is not read, and runtimes are not linked", "CAP_SYS_ADMIN"])?;
    ensure!(said.fix("programs.tls")?.contains("CAP_SYS_ADMIN"), "{}", said.out);
    ensure!(!said.ids().any(|id| id == "programs.go-links"), "one reason is said once: {}", said.out);
    Ok(())
}

/// Some kernels do it only if a flaw of theirs is accepted (docs/decisions/propagation.md); then the doctor names the key.
pub(super) fn propagation() -> Result<()> {
    const ID: &str = "programs.context_propagation";
    let asked = |own: &str| Doctor::new().map(|d| d.yaml(&format!("ebpf: {{context_propagation: headers}}\n{own}")));
    let accepting = asked("spantap: {accept_wrong_fionread: true}\n")?;
    accepting.json()?.code(0)?.check(ID, "ok", &["get a traceparent"])?;
    let said = asked("")?.json()?;
    said.code(0)?
        .check(ID, "ok", &[])
        .or_else(|_| said.check(ID, "degraded", &["FIONREAD", "accept_wrong_fionread"]))?;
    let said = accepting.under(&["setpriv", "--bounding-set", "-net_admin,-sys_admin"]).json()?;
    said.code(0)?.check(ID, "degraded", &["no request will get a traceparent", "CAP_NET_ADMIN"])?;
    ensure!(said.fix(ID)?.contains("CAP_NET_ADMIN"), "{}", said.out);
    ensure!(!Doctor::new()?.json()?.ids().any(|id| id == ID), "nobody asked for it");
    Ok(())
}
