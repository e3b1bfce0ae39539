//! Collectors that run with a file of `collector-config/` as it stands.
//!
//! In: values of the variables that the file names, addresses of this host. Out: a [`Collector`] that has started, or what it says
//! against the file.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, anyhow, bail};

use super::{Collector, lines::Lines, program};
use crate::{host, namespaces::Host, process::Process};

impl Collector {
    /// Starts one with `collector-config/gateway.yaml` as it stands, on a host of its own, where that is port 4318.
    ///
    /// # Errors
    /// As [`Collector::start`].
    pub fn start_gateway(host: &Host) -> Result<Self> {
        let program = program().as_ref().map_err(|error| anyhow!("{error}"))?;
        let folder = host::folder()?;
        // Its files are made where it stands, and who enters a host stands at the root.
        let mut command = host.command("sh");
        command.args(["-c", "cd \"$0\" && exec \"$@\""]).arg(folder.path()).arg(program);
        command.arg("--config").arg(host::repository().join("collector-config/gateway.yaml"));
        let mut process = Process::start("gateway", folder.path(), command)?;
        process.wait_ready(Duration::from_secs(20), |process| process.log().contains("Everything is ready"))?;
        Ok(Self::of(process, folder, 4318, 0, false))
    }

    /// Starts one with `collector-config/authenticating.yaml` as it stands, on the ports that stand there and an address of
    /// this host's own that nobody else uses. `tls`: folder with its certificates. Its user is `spantap`, its password and
    /// its token are given.
    ///
    /// # Errors
    /// As [`Collector::start`].
    pub fn start_authenticating(address: &str, tls: &Path, password: &str, token: &str) -> Result<Self> {
        let tls = tls.display().to_string();
        let environment = [
            ("COLLECTOR_ADDRESS", address),
            ("COLLECTOR_TLS", &*tls),
            ("COLLECTOR_PASSWORD", password),
            ("COLLECTOR_TOKEN", token),
        ];
        Ok(Self { authenticated: true, ..Self::start_configured("authenticating.yaml", &environment)? })
    }

    /// Starts one with a file of `collector-config/` as it stands, with these variables; its port is 4318.
    ///
    /// # Errors
    /// As [`Collector::start`].
    pub fn start_configured(file: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let program = program().as_ref().map_err(|error| anyhow!("{error}"))?;
        let folder = host::folder()?;
        let mut command = Command::new(program);
        command.current_dir(folder.path());
        command.arg("--config").arg(host::repository().join("collector-config").join(file));
        command.envs(environment.iter().copied());
        let mut process = Process::start(file, folder.path(), command)?;
        process.wait_ready(Duration::from_secs(20), |process| process.log().contains("Everything is ready"))?;
        let mut collector = Self::of(process, folder, 4318, 0, false);
        if file == "collector.yaml" {
            // One file for both signals.
            let path = collector.folder().join("spantap-telemetry.jsonl");
            (collector.traces, collector.metrics) = (Lines::of(path.clone()), Lines::of(path));
        }
        Ok(collector)
    }

    /// Starts one with `collector-config/gateway-balancing.yaml` as it stands at `address`; to it, and to nobody else, the name of
    /// the second tier has `samplers` as its addresses. What it takes it sends on, so nothing can be read of this one.
    ///
    /// # Errors
    /// As [`Collector::start`]; also without root.
    pub fn start_balancing(address: &str, samplers: &[&str]) -> Result<Self> {
        const NAME: &str = "samplers.test";
        let program = program().as_ref().map_err(|error| anyhow!("{error}"))?;
        let folder = host::folder()?;
        let hosts = folder.path().join("hosts");
        let lines: String = samplers.iter().map(|address| format!("{address} {NAME}\n")).collect();
        std::fs::write(&hosts, lines)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(&hosts);
        command.arg(program).arg("--config");
        command.arg(host::repository().join("collector-config/gateway-balancing.yaml"));
        command.env("GATEWAY_ADDRESS", address).env("GATEWAY_SAMPLERS", NAME);
        let mut process = Process::start("balancing", folder.path(), command)?;
        process.wait_ready(Duration::from_secs(20), |process| process.log().contains("Everything is ready"))?;
        Ok(Self::of(process, folder, 4318, 0, false))
    }

    /// Lets the Collector read a file of `collector-config/`, with every variable set that one of them refers to.
    ///
    /// # Errors
    /// With what it says when it would not start with that.
    pub fn validate(file: &str, tls: &Path) -> Result<()> {
        let program = program().as_ref().map_err(|error| anyhow!("{error}"))?;
        let mut command = Command::new(program);
        command.arg("validate").arg("--config").arg(host::repository().join("collector-config").join(file));
        command.env("COLLECTOR_TLS", tls).env("COLLECTOR_PASSWORD", "p").env("COLLECTOR_TOKEN", "t");
        command.env("GATEWAY_SAMPLERS", "localhost");
        command.env("REMOTE_ENDPOINT", "https://localhost").env("REMOTE_USER", "u").env("REMOTE_PASSWORD", "p");
        let output = command.output().context("starting the Collector")?;
        if !output.status.success() {
            bail!("{file}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
