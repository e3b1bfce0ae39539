//! Commands, configuration mistakes and exit codes, as a user without privilege meets them.
#![allow(missing_docs)]

#[path = "cli/configuration.rs"]
mod configuration;
#[path = "cli/said.rs"]
mod said;

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Result, ensure};
use said::{LIMIT, command, expect_code, run, spantap, with_port, write};
use spantap_tests::{
    admin,
    host::{self, Reason},
    servers::Server,
    spantap::clear_environment,
    suite::Suite,
};

/// User and group `nobody` of Debian.
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    Suite::new("cli", [], || Ok(()))
        .case("help_and_version", |()| help_and_version())
        .case("bad_usage_is_64", |()| bad_usage())
        .case("configuration_file_by_flag_and_variable", |()| configuration::configuration_file())
        .case("mistakes_name_file_line_and_key", |()| configuration::mistakes())
        .case("certificate_that_is_not_there_is_64", |()| configuration::no_certificate())
        .case("a_key_that_is_not_served_yet_warns", |()| configuration::not_served_yet())
        .case("environment_aliases_and_precedence", |()| configuration::aliases())
        .case("variable_that_is_no_text_is_64", |()| configuration::variable_is_no_text())
        .case("check_redacts_secrets", |()| configuration::redacts())
        .case("standard_output_carries_only_what_was_asked_for", |()| standard_output())
        .case_unless(needs_root(), "agent_without_privilege_is_77", |()| agent_without_privilege())
        .case_unless(needs_root(), "one_command_without_privilege_is_77", |()| one_command_without_privilege())
        .case_unless(needs_root(), "whole_job_without_a_place_for_its_socket_is_77", |()| whole_job_without_socket())
        .case("socket_that_cannot_be_made_is_69", |()| socket_not_possible())
        .case_unless(needs_root(), "address_that_is_taken_is_69_before_anything_starts", |()| address_taken())
        .case_unless(host::lacks_root_and_btf(), "agent_that_holds_nothing_stops_at_once", |()| agent_stops())
        .case_unless(host::lacks_root_and_btf(), "whole_job_stops_while_it_starts", |()| stops_early())
        .case_unless(
            host::lacks_root_and_btf().or_else(|| host::lacks("nginx")),
            "admin_address_tells_what_is_observed_now",
            |()| figures(),
        )
        .case("forward_stops_in_order", |()| forward_stops())
        .run()
}

/// Only root can become somebody without privilege for certain.
fn needs_root() -> Option<Reason> {
    (!rustix::process::geteuid().is_root()).then(|| "needs root, to give privilege up".to_owned())
}

fn help_and_version() -> Result<()> {
    for (program, command) in [
        ("spantap", vec![]),
        ("spantap", vec!["forward"]),
        ("spantap", vec!["check"]),
        ("spantap", vec!["doctor"]),
        ("spantap-agent", vec![]),
        ("spantap-agent", vec!["doctor"]),
    ] {
        let said = run(self::command(program, &[command.as_slice(), &["--help"]].concat())?)?;
        ensure!(said.code == Some(0) && said.out.contains("--config"), "{program} {command:?} --help: {said:?}");
        ensure!(
            said.out.contains("SPANTAP_CONFIG_PATH"),
            "{program} {command:?} --help names no variable: {}",
            said.out
        );
    }
    for program in ["spantap", "spantap-agent"] {
        let said = run(self::command(program, &["--version"])?)?;
        ensure!(said.code == Some(0) && said.out.contains(env!("CARGO_PKG_VERSION")), "{program} --version: {said:?}");
    }
    Ok(())
}

fn bad_usage() -> Result<()> {
    for arguments in [&["--no-such-option"][..], &["no-such-command"], &["check", "--config"]] {
        expect_code(&spantap(arguments)?, 64, &[])?;
    }
    expect_code(&run(command("spantap-agent", &["--no-such-option"])?)?, 64, &[])?;
    expect_code(&spantap(&["check", "--config", "/no/such/file.yml"])?, 64, &["/no/such/file.yml"])
}

fn standard_output() -> Result<()> {
    let folder = host::folder()?;
    let wrong = write(folder.path(), "wrong.yml", "nonsense: 1\n")?;
    let said = spantap(&["forward", "--config", &wrong])?;
    expect_code(&said, 64, &[])?;
    ensure!(said.out.is_empty(), "standard output: {}", said.out);
    Ok(())
}

/// The programs where nobody may run them.
fn as_nobody(program: &str, arguments: &[&str], folder: &Path) -> Result<Command> {
    for name in ["spantap", "spantap-agent"] {
        std::fs::copy(host::built(name)?, folder.join(name))?;
    }
    let mut command = Command::new(folder.join(program));
    command.args(arguments).uid(NOBODY).gid(NOBODY).current_dir("/");
    clear_environment(&mut command);
    command.env_remove("XDG_RUNTIME_DIR");
    Ok(command)
}

fn agent_without_privilege() -> Result<()> {
    let folder = host::folder()?;
    let socket = folder.path().join("ingest.sock").display().to_string();
    let mut command = as_nobody("spantap-agent", &[], folder.path())?;
    command.env("SPANTAP_SOCKET", socket);
    expect_code(&run(command)?, 77, &["CAP_"])
}

fn one_command_without_privilege() -> Result<()> {
    let folder = host::folder()?;
    let run_folder = folder.path().join("run");
    std::fs::create_dir(&run_folder)?;
    std::os::unix::fs::chown(&run_folder, Some(NOBODY), Some(NOBODY))?;
    let mut command = as_nobody("spantap", &[], folder.path())?;
    command
        .env("SPANTAP_SOCKET", run_folder.join("ingest.sock"))
        .env("SPANTAP_ADMIN", "off")
        .env("SPANTAP_CONSOLE", "text");
    expect_code(&run(command)?, 77, &["CAP_"])
}

fn whole_job_without_socket() -> Result<()> {
    let folder = host::folder()?;
    let mut command = as_nobody("spantap", &[], folder.path())?;
    command.env("SPANTAP_SOCKET", folder.path().join("closed/ingest.sock")).env("SPANTAP_ADMIN", "off");
    expect_code(&run(command)?, 77, &["closed/ingest.sock", "sudo spantap", "spantap forward"])
}

fn address_taken() -> Result<()> {
    let folder = host::folder()?;
    let taken = std::net::TcpListener::bind("0.0.0.0:0")?;
    let port = taken.local_addr()?.port();
    for (name, value) in [("SPANTAP_ADMIN", format!("127.0.0.1:{port}")), ("SPANTAP_PROMETHEUS_PORT", port.to_string())]
    {
        let mut command = command("spantap", &[])?;
        command.env("SPANTAP_ADMIN", "off").env("SPANTAP_SOCKET", folder.path().join("ingest.sock")).env(name, value);
        let said = run(command)?;
        expect_code(&said, 69, &[&port.to_string(), name])?;
        ensure!(said.err.lines().count() == 1, "something was started: {}", said.err);
    }
    Ok(())
}

/// Stopped before the agent has a stream, there is nobody to wait for.
fn stops_early() -> Result<()> {
    let folder = host::folder()?;
    let file = write(folder.path(), "quiet.yml", &with_port(host::free_port()?))?;
    let mut command = command("spantap", &["--config", &file])?;
    command.env("SPANTAP_SOCKET", folder.path().join("ingest.sock"));
    command.env("SPANTAP_ADMIN", "off").env("SPANTAP_CONSOLE", "counter");
    // Much longer than the test waits: nothing is held, so nothing is waited for.
    command.env("OTEL_EBPF_SHUTDOWN_TIMEOUT", "10m");
    let mut process = spantap_tests::process::Process::start("spantap", folder.path(), command)?;
    process.wait_ready(LIMIT, |process| process.log().contains("waiting for the agent"))?;
    let ended = process.stop(LIMIT)?;
    ensure!(ended.code() == Some(0), "ended with {ended}\n{}", process.tail());
    Ok(())
}

fn figures() -> Result<()> {
    let folder = host::folder()?;
    let mut server = Server::nginx(1, None)?;
    let file = write(folder.path(), "figures.yml", &with_port(server.port))?;
    let admin = host::free_port()?;
    let mut command = command("spantap", &["--config", &file])?;
    command.env("SPANTAP_SOCKET", folder.path().join("ingest.sock"));
    command.env("SPANTAP_ADMIN", format!("127.0.0.1:{admin}")).env("SPANTAP_CONSOLE", "counter");
    let mut process = spantap_tests::process::Process::start("spantap", folder.path(), command)?;
    let figure = |name: &str| {
        let page = spantap_tests::http::get(admin, "/metrics").ok()?.text();
        Some(admin::samples(&page).iter().find(|sample| sample.name == name)?.value)
    };
    let port = server.port;
    // Master and worker.
    process.wait_ready(LIMIT, |_| figure("spantap_agent_processes") == Some(2.0))?;
    // Told while traffic flows, without any loss or change of processes to tell.
    process.wait_ready(LIMIT, |_| {
        spantap_tests::http::get(port, "/").is_ok() && figure("spantap_agent_events_seen") > Some(0.0)
    })?;
    server.process.stop(LIMIT)?;
    process.wait_ready(LIMIT, |_| figure("spantap_agent_processes") == Some(0.0))?;
    let ended = process.stop(LIMIT)?;
    ensure!(ended.code() == Some(0), "ended with {ended}\n{}", process.tail());
    Ok(())
}

/// Nobody could take what it holds before the shutdown timeout, which is 10 s: so it must not wait for that.
fn agent_stops() -> Result<()> {
    let folder = host::folder()?;
    let file = write(folder.path(), "quiet.yml", &with_port(host::free_port()?))?;
    let mut command = command("spantap-agent", &["--config", &file])?;
    command.env("SPANTAP_SOCKET", folder.path().join("ingest.sock")).env("OTEL_EBPF_SHUTDOWN_TIMEOUT", "10m");
    let mut process = spantap_tests::process::Process::start("agent", folder.path(), command)?;
    process.wait_ready(LIMIT, |process| process.log().contains("no forwarder yet"))?;
    let ended = process.stop(LIMIT)?;
    ensure!(ended.code() == Some(0), "ended with {ended}\n{}", process.tail());
    Ok(())
}

fn socket_not_possible() -> Result<()> {
    let folder = host::folder()?;
    let file = write(folder.path(), "file", "")?;
    let mut command = command("spantap", &["forward"])?;
    command.env("SPANTAP_SOCKET", format!("{file}/ingest.sock")).env("SPANTAP_ADMIN", "off");
    expect_code(&run(command)?, 69, &["ingest.sock"])
}

fn forward_stops() -> Result<()> {
    let folder = host::folder()?;
    let admin = host::free_port()?;
    let mut command = command("spantap", &["forward"])?;
    command.env("SPANTAP_SOCKET", folder.path().join("ingest.sock"));
    command.env("SPANTAP_ADMIN", format!("127.0.0.1:{admin}")).env("SPANTAP_CONSOLE", "json");
    let mut process = spantap_tests::process::Process::start("forward", folder.path(), command)?;
    // Alive, and not ready while there is no agent.
    let status = |path: &str| spantap_tests::http::get(admin, path).map(|a| a.status).unwrap_or_default();
    process.wait_ready(LIMIT, |_| status("/healthz") == 200)?;
    ensure!(status("/readyz") != 200, "ready without an agent");
    ensure!(status("/metrics") == 200 && status("/no-such-page") == 404, "the admin address answers wrongly");
    let ended = process.stop(LIMIT)?;
    ensure!(ended.code() == Some(0), "ended with {ended}\n{}", process.tail());
    ensure!(process.output().is_empty(), "standard output without an exchange: {}", process.output());
    Ok(())
}
