//! Programs whose requests are linked, and why not those of others, before a start.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Result, ensure};
use spantap_tests::{compiled, host, https::succeeds, relays::Relay};

use crate::asked::Doctor;

/// A program of Go that serves and asks; the same with the name of another version of Go than those that are known.
pub(crate) fn go() -> Result<()> {
    let folder = host::folder()?;
    let known = std::fs::read(compiled::go_program("gorelay")?)?;
    let mut unknown = known.clone();
    let version = b"go1.";
    let mut at = 0;
    while let Some(found) = unknown.get(at..).and_then(|rest| rest.windows(4).position(|bytes| bytes == version)) {
        at += found + version.len();
        if unknown.get(at).is_some_and(u8::is_ascii_digit) && unknown.get(at + 1).is_some_and(u8::is_ascii_digit) {
            unknown.get_mut(at..at + 2).into_iter().for_each(|minor| minor.copy_from_slice(b"99"));
        }
    }
    let mut running = Vec::new();
    let mut write = |name: &str, bytes: &[u8]| -> Result<()> {
        let program = folder.path().join(name);
        std::fs::write(&program, bytes)?;
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
        running.push(Relay::start(name, |port| {
            let mut command = Command::new(&program);
            command.args([&port.to_string(), "1"]);
            Ok(command)
        })?);
        Ok(())
    };
    let selected = format!("discovery:\n  instrument:\n    - exe_path: \"{}/*\"\n", folder.path().display());
    write("known", &known)?;
    let said = Doctor::new()?.yaml(&selected).json()?;
    said.check("processes.links", "ok", &["programs: 1"])?;
    ensure!(said.details("processes.links")?.join("\n") == "known: Go, linked", "{}", said.out);
    write("unknown", &unknown)?;
    let said = Doctor::new()?.yaml(&selected).json()?;
    said.check("processes.links", "degraded", &["1 of 2"])?;
    let named = said.details("processes.links")?.join("\n");
    ensure!(named.contains("unknown: Go, its version of Go is not known: go1.99"), "{named}");
    let off = format!("{selected}spantap:\n  links: 'off'\n");
    Doctor::new()?.yaml(&off).json()?.check("processes.links", "ok", &["links is off"])?;
    Ok(())
}

/// Only where links of tokio are asked for.
pub(crate) fn tokio() -> Result<()> {
    let folder = host::folder()?;
    let built = compiled::rust_program("tokiorelay")?;
    let (whole, stripped) = (folder.path().join("whole"), folder.path().join("stripped"));
    std::fs::copy(&built, &whole)?;
    succeeds(Command::new("strip").arg("-o").arg(&stripped).arg(&built))?;
    let start = |name: &str, program: &Path| {
        Relay::start(name, |port| {
            let mut command = Command::new(program);
            command.args([&port.to_string(), "1", "several"]);
            Ok(command)
        })
    };
    let selected = format!("discovery:\n  instrument:\n    - exe_path: \"{}/*\"\n", folder.path().display());
    let asked = format!("{selected}spantap:\n  links_experimental: [tokio]\n");
    let _whole = start("whole", &whole)?;
    let said = Doctor::new()?.yaml(&asked).json()?;
    said.check("processes.links", "ok", &["CPython's asyncio and tokio are linked; programs: 1"])?;
    ensure!(said.details("processes.links")? == ["whole: tokio, linked"], "{}", said.out);
    let said = Doctor::new()?.yaml(&selected).json()?;
    said.check("processes.links", "ok", &["no selected program is one of Go, Node or CPython's asyncio"])?;
    let _stripped = start("stripped", &stripped)?;
    let said = Doctor::new()?.yaml(&asked).json()?;
    said.check("processes.links", "degraded", &["1 of 2"])?;
    ensure!(
        said.details("processes.links")? == ["stripped: tokio, its file has no symbols: it is stripped"],
        "{}",
        said.out
    );
    Ok(())
}
