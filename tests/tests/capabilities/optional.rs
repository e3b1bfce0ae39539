//! Capabilities that only one feature takes: without them that one is off and says so, and all else works.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin,
    certificate::Certificate,
    credentials::{Credentials, bit},
    host,
    https::{ask, lost, succeeds},
    place::{LIMIT, Place, observed},
    process::Process,
    servers::{Server, nginx_over_tls, nginx_over_tls_with},
};

use super::{NOBODY, apart, without};

/// The test does not ask how many bytes wait, which some kernels answer wrongly (docs/decisions/propagation.md).
const PROPAGATE: &str = "  accept_wrong_fionread: true\nebpf:\n  context_propagation: headers\n";

fn stop(mut forwarder: Process, mut agent: Process) -> Result<admin::Summary> {
    ensure!(agent.stop(LIMIT)?.code() == Some(0), "{}", agent.tail());
    ensure!(forwarder.stop(LIMIT)?.code() == Some(0), "{}", forwarder.tail());
    admin::summary(&forwarder.log()).context("no summary")
}

/// Either of two will do, and is given up; without both the feature is off. The rest works in all cases.
pub(super) fn net_admin() -> Result<()> {
    for (taken, state, says, kept) in [
        ("-sys_admin", " on ", "", bit::KEPT),
        ("-net_admin", " on ", "", bit::KEPT_WITH_TLS),
        ("-net_admin,-sys_admin", " off ", "it takes CAP_NET_ADMIN (or CAP_SYS_ADMIN)", bit::KEPT),
    ] {
        let server = Server::nginx(1, None)?;
        let place = Place::new(server.port, PROPAGATE)?;
        let mut forwarder = apart(&place, &NOBODY)?;
        let agent = place.start(&without(taken), "spantap-agent", &[])?;
        observed(&mut forwarder, server.port, "/seen").with_context(|| agent.tail())?;
        let log = agent.log();
        let line = log.lines().find(|line| line.contains("context-propagation")).context("nothing is said of it")?;
        ensure!(line.contains(state) && line.contains(says), "{state:?} or {says:?} is not in {line}");
        let found = Credentials::of(agent.pid())?;
        ensure!(found == Credentials::of_agent(0, kept), "{taken}: {found:?}");
        stop(forwarder, agent)?;
    }
    Ok(())
}

/// What is in plain text is reported, what is not is counted.
pub(super) fn tls_without_sys_admin() -> Result<()> {
    let certificate = Certificate::make()?;
    let (nginx, plain) = nginx_over_tls(&certificate)?;
    let place = Place::new(nginx.port, "")?;
    let yaml = std::fs::read_to_string(place.configuration())?;
    place.configure(&yaml.replace(&nginx.port.to_string(), &format!("\"{},{plain}\"", nginx.port)))?;
    let mut forwarder = apart(&place, &NOBODY)?;
    let agent = place.start(&without("-sys_admin"), "spantap-agent", &[])?;
    observed(&mut forwarder, plain, "/requests").with_context(|| agent.tail())?;
    ask(nginx.port, "/secret", [3, 2, 1], &[])?;
    let summary = stop(forwarder, agent)?;
    ensure!(lost(&summary.losses, "encrypted") == 3, "{:?}", summary.losses);
    Ok(())
}

/// A library that is another file by now is read with the capability only, and else named with its way out.
pub(super) fn replaced_library_without_checkpoint_restore() -> Result<()> {
    let certificate = Certificate::make()?;
    let (folder, original) = (host::folder()?, library(nginx_over_tls(&certificate)?.0.process.pid())?);
    let own = folder.path().join(original.file_name().context("no name")?);
    std::fs::copy(&original, &own)?;
    let (nginx, _) = nginx_over_tls_with(&certificate, &[("LD_LIBRARY_PATH", folder.path())])?;
    ensure!(library(nginx.process.pid())? == own, "nginx does not use the copy of its library");
    // As package managers do it.
    let next = folder.path().join("next");
    std::fs::copy(&original, &next)?;
    std::fs::rename(&next, &own)?;

    let place = Place::new(nginx.port, "")?;
    let forwarder = apart(&place, &NOBODY)?;
    let reason = "its file was deleted or replaced since the program started";
    let agent = place.start_until(&without("-checkpoint_restore"), "spantap-agent", &[], reason)?;
    let log = agent.log();
    let line = log.lines().find(|line| line.contains(reason)).unwrap_or_default();
    ensure!(line.contains("WARN") && line.contains("libssl") && line.contains("CAP_CHECKPOINT_RESTORE"), "{line}");
    let mut command = Command::new("curl");
    succeeds(
        command
            .args(["-s", "-S", "-k", "-f", "-o", "/dev/null", "--max-time", "20"])
            .arg(format!("https://127.0.0.1:{}/", nginx.port)),
    )?;
    stop(forwarder, agent).map(drop)
}

/// What a running process has mapped as libssl.
fn library(pid: u32) -> Result<PathBuf> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.contains("/libssl.so")).context("no libssl is mapped")?;
    line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from).context("no path")
}
