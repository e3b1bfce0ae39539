//! "Hosts" on one machine: namespaces of network, host name and mounts, held by a process each, with links between them.
//!
//! In: names. Out: [`Host`]s, gone with all their links when dropped. Processes, users and the kernel itself are shared.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{host, process::Process};

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Its host name.
    pub name: String,
    holder: Process,
    folder: tempfile::TempDir,
}

impl Host {
    /// Starts one with this host name and, if given, this `/etc/machine-id`.
    ///
    /// # Errors
    /// When the namespaces cannot be made.
    pub fn start(name: &str, machine_id: Option<&str>) -> Result<Self> {
        let folder = host::folder()?;
        let id = folder.path().join("machine-id");
        let mut script = format!("set -e; ip link set lo up; hostname {name}; ");
        if let Some(machine_id) = machine_id {
            std::fs::write(&id, format!("{machine_id}\n"))?;
            script += &format!("mount --bind {} /etc/machine-id; ", id.display());
        }
        script += "echo held; exec sleep infinity";
        let mut command = Command::new("unshare");
        command.args(["--net", "--uts", "--mount", "--", "sh", "-c", &script]);
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        let mut holder = Process::start(name, folder.path(), command)?;
        holder.wait_ready(Duration::from_secs(10), |holder| holder.output().contains("held"))?;
        Ok(Self { name: name.to_owned(), holder, folder })
    }

    /// The words that let a program run on it.
    pub fn enter(&self) -> Vec<String> {
        ["nsenter", "--target", &self.holder.pid().to_string(), "--net", "--uts", "--mount", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// A program on it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let words = self.enter();
        let mut command = Command::new(words.first().map_or("nsenter", String::as_str));
        command.args(words.get(1..).unwrap_or_default()).arg(program);
        command
    }

    /// Runs a program to its end and returns what it printed.
    ///
    /// # Errors
    /// When its exit code is not 0, with what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{program} {arguments:?} on {}: {}\n{out}{err}", self.name, output.status);
        Ok(out.into_owned())
    }

    /// Folder that lives as long as the host.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Links it to another host by a cable of their own: `10.99.number.1` here, `10.99.number.2` there. The
    /// addresses exist within these two only.
    ///
    /// # Errors
    /// When the kernel or `ip` refuses.
    pub fn link(&self, other: &Self, number: u8) -> Result<()> {
        let (here, there) = (format!("h{number}"), format!("g{number}"));
        let (own, others) = (self.holder.pid().to_string(), other.holder.pid().to_string());
        let ip = host::find("ip").context("no ip")?;
        let made = Command::new(&ip)
            .args(["link", "add", &here, "netns", &own, "type", "veth", "peer", "name", &there, "netns", &others])
            .output()?;
        ensure!(made.status.success(), "a cable cannot be made: {}", String::from_utf8_lossy(&made.stderr));
        let ip = ip.display().to_string();
        for (host, device, last) in [(self, here, 1), (other, there, 2)] {
            host.run(&ip, &["address", "add", &format!("10.99.{number}.{last}/30"), "dev", &device])?;
            host.run(&ip, &["link", "set", &device, "up"])?;
        }
        Ok(())
    }
}
