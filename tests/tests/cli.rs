//! Commands, configuration mistakes and exit codes, as a user without privilege meets them.
#![allow(missing_docs)]

use std::{
    os::unix::{ffi::OsStringExt, process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use spantap_tests::{
    admin,
    host::{self, Reason},
    servers::Server,
    spantap::clear_environment,
    suite::Suite,
};

/// User and group `nobody` of Debian.
const NOBODY: u32 = 65534;
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    Suite::new("cli", [], || Ok(()))
        .case("help_and_version", |()| help_and_version())
        .case("bad_usage_is_64", |()| bad_usage())
        .case("configuration_file_by_flag_and_variable", |()| configuration_file())
        .case("mistakes_name_file_line_and_key", |()| mistakes())
        .case("certificate_that_is_not_there_is_64", |()| no_certificate())
        .case("a_key_that_is_not_served_yet_warns", |()| not_served_yet())
        .case("environment_aliases_and_precedence", |()| aliases())
        .case("variable_that_is_no_text_is_64", |()| variable_is_no_text())
        .case("check_redacts_secrets", |()| redacts())
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

/// What a finished program said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn command(program: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(host::built(program)?);
    command.args(arguments);
    clear_environment(&mut command);
    Ok(command)
}

/// Runs to its end; a program that does not end has failed the test, not hung it.
fn run(mut command: Command) -> Result<Said> {
    let folder = host::folder()?;
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::fs::File::create(&out)?)
        .stderr(std::fs::File::create(&err)?);
    let mut child = command.spawn()?;
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{command:?} did not end\n{}", std::fs::read_to_string(&err)?);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Ok(Said { code: status.code(), out: std::fs::read_to_string(out)?, err: std::fs::read_to_string(err)? })
}

fn spantap(arguments: &[&str]) -> Result<Said> {
    run(command("spantap", arguments)?)
}

fn expect_code(said: &Said, code: i32, mentions: &[&str]) -> Result<()> {
    ensure!(said.code == Some(code), "exit code {:?}, not {code}: {said:?}", said.code);
    for text in mentions {
        ensure!(said.err.contains(text), "the message does not name {text:?}: {}", said.err);
    }
    ensure!(!said.err.contains("panicked"), "panicked: {}", said.err);
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
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

fn with_port(port: u16) -> String {
    format!("discovery:\n  instrument:\n    - open_ports: {port}\n")
}

fn configuration_file() -> Result<()> {
    let folder = host::folder()?;
    let flag = write(folder.path(), "flag.yml", &with_port(4711))?;
    let variable = write(folder.path(), "variable.yml", &with_port(4712))?;
    let joined = format!("-config={flag}");
    for arguments in [&["check", "--config", &flag][..], &["check", "-config", &flag], &["check", &joined]] {
        let said = spantap(arguments)?;
        expect_code(&said, 0, &[])?;
        ensure!(said.out.contains("4711"), "{arguments:?}: the file was not read: {}", said.out);
    }
    // As in Beyla, the variable wins over the flag.
    for name in ["SPANTAP_CONFIG_PATH", "BEYLA_CONFIG_PATH", "OTEL_EBPF_CONFIG_PATH"] {
        let mut command = command("spantap", &["check", "--config", &flag])?;
        let said = run({
            command.env(name, &variable);
            command
        })?;
        expect_code(&said, 0, &[])?;
        ensure!(said.out.contains("4712") && !said.out.contains("4711"), "{name} did not win: {}", said.out);
    }
    // No file is fine.
    expect_code(&spantap(&["check"])?, 0, &[])
}

fn mistakes() -> Result<()> {
    let folder = host::folder()?;
    for (text, line, mentions) in [
        ("discovery:\n  instrument:\n    - open_ports: eighty\n", 3, &["open_ports", "eighty"][..]),
        ("discovery:\n  instrument:\n    - open_ports: 70000\n", 3, &["open_ports", "70000"]),
        ("discovery:\n  instrument:\n    - open_port: 80\n", 3, &["open_port"]),
        ("otel_traces_export:\n  endpoint: no url\n", 2, &["endpoint"]),
        ("otel_trace_export:\n  endpoint: http://h:4318\n", 1, &["otel_trace_export", "otel_traces_export"]),
        ("spantap:\n  ring_buffer_size: 1000\n", 2, &["ring_buffer_size"]),
        ("discovery:\n  - [\n", 2, &[]),
    ] {
        let path = write(folder.path(), "wrong.yml", text)?;
        let place = format!("wrong.yml:{line}");
        for said in [
            spantap(&["check", "--config", &path])?,
            spantap(&["forward", "--config", &path])?,
            run(command("spantap-agent", &["--config", &path])?)?,
        ] {
            // A syntax error may be noticed on the line after.
            let places = [place.as_str()];
            expect_code(&said, 64, if mentions.is_empty() { &["wrong.yml:"] } else { &places })?;
            expect_code(&said, 64, mentions)?;
        }
    }
    Ok(())
}

fn no_certificate() -> Result<()> {
    for arguments in [&["check"][..], &["forward"], &[]] {
        let mut command = command("spantap", arguments)?;
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1");
        command.env("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/ca.pem");
        let said = run(command)?;
        expect_code(&said, 64, &["otel_traces_export", "/no/such/ca.pem"])?;
        ensure!(said.err.lines().count() == 1, "{arguments:?}: something was started: {}", said.err);
    }
    Ok(())
}

fn not_served_yet() -> Result<()> {
    let folder = host::folder()?;
    let path = write(folder.path(), "beyla.yml", "network:\n  enable: true\n")?;
    let said = spantap(&["check", "--config", &path])?;
    expect_code(&said, 0, &[])?;
    let all = said.out + &said.err;
    ensure!(all.contains("network"), "no warning names the key: {all}");
    Ok(())
}

fn aliases() -> Result<()> {
    // SPANTAP wins over OTEL_EBPF, which wins over BEYLA.
    let ports =
        [("BEYLA_PROMETHEUS_PORT", "4801"), ("OTEL_EBPF_PROMETHEUS_PORT", "4802"), ("SPANTAP_PROMETHEUS_PORT", "4803")];
    for count in 1..=ports.len() {
        let mut command = command("spantap", &["check"])?;
        command.envs(ports.iter().take(count).copied());
        let said = run(command)?;
        expect_code(&said, 0, &[])?;
        let (name, port) = ports.get(count - 1).copied().unwrap_or_default();
        ensure!(said.out.contains(port), "{name} does not win: {}", said.out);
    }
    Ok(())
}

fn redacts() -> Result<()> {
    let mut command = command("spantap", &["check"])?;
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20c2VjcmV0LXdvcmQ,x-tenant=hidden-tenant");
    let said = run(command)?;
    expect_code(&said, 0, &[])?;
    let all = format!("{}{}", said.out, said.err);
    ensure!(!all.contains("c2VjcmV0LXdvcmQ") && !all.contains("hidden-tenant"), "a header's value is shown: {all}");
    ensure!(said.out.to_ascii_lowercase().contains("authorization"), "the header's name is not shown: {}", said.out);
    Ok(())
}

fn standard_output() -> Result<()> {
    let folder = host::folder()?;
    let wrong = write(folder.path(), "wrong.yml", "nonsense: 1\n")?;
    let said = spantap(&["forward", "--config", &wrong])?;
    expect_code(&said, 64, &[])?;
    ensure!(said.out.is_empty(), "standard output: {}", said.out);
    Ok(())
}

/// A variable that is no text must not count as unset: everything would be observed.
fn variable_is_no_text() -> Result<()> {
    let mut command = command("spantap", &["check"])?;
    command.env("BEYLA_OPEN_PORT", std::ffi::OsString::from_vec(vec![b'8', b'0', 0xff]));
    expect_code(&run(command)?, 64, &["BEYLA_OPEN_PORT"])
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
