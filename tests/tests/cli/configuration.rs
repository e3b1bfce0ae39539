//! Configuration as it is read: by flags and variables, with mistakes, without secrets.

use std::os::unix::ffi::OsStringExt;

use anyhow::{Result, ensure};
use spantap_tests::host;

use crate::said::{command, expect_code, run, spantap, with_port, write};

pub(crate) fn configuration_file() -> Result<()> {
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

pub(crate) fn mistakes() -> Result<()> {
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

pub(crate) fn no_certificate() -> Result<()> {
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

pub(crate) fn not_served_yet() -> Result<()> {
    let folder = host::folder()?;
    let path = write(folder.path(), "beyla.yml", "network:\n  enable: true\n")?;
    let said = spantap(&["check", "--config", &path])?;
    expect_code(&said, 0, &[])?;
    let all = said.out + &said.err;
    ensure!(all.contains("network"), "no warning names the key: {all}");
    Ok(())
}

pub(crate) fn aliases() -> Result<()> {
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

pub(crate) fn redacts() -> Result<()> {
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

/// A variable that is no text must not count as unset: everything would be observed.
pub(crate) fn variable_is_no_text() -> Result<()> {
    let mut command = command("spantap", &["check"])?;
    command.env("BEYLA_OPEN_PORT", std::ffi::OsString::from_vec(vec![b'8', b'0', 0xff]));
    expect_code(&run(command)?, 64, &["BEYLA_OPEN_PORT"])
}
