//! `spantap doctor` and `spantap-agent doctor`: what they find here, what they say of mistakes, and that they leave nothing.
#![allow(missing_docs)]

#[path = "doctor/as_a_start.rs"]
mod as_a_start;
#[path = "doctor/asked.rs"]
mod asked;
#[path = "doctor/linked.rs"]
mod linked;
#[path = "doctor/receiver.rs"]
mod receiver;

use std::{
    collections::HashSet,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use spantap_tests::{
    collector::{self, CREDENTIALS, Collector},
    host::{self, Reason},
    observed,
    pair::Pair,
    script::{read_head, serve},
    spantap::Setup,
    suite::Suite,
};

use asked::Doctor;
use receiver::Receiver;

/// A report may take this long at most, whatever does not answer.
const LIMIT: Duration = Duration::from_secs(10);
/// What the agent needs, each by itself; without the old capability that stands for the first two.
const NEEDED: [&str; 3] = ["bpf", "perfmon", "sys_ptrace"];

fn main() -> ExitCode {
    let probes = host::lacks_root_and_btf;
    Suite::new("doctor", [], || Ok(()))
        .case_unless(probes().or_else(collector::lacks_collector), "the_configured_job_can_run", |()| can_run())
        .case_unless(probes(), "json_and_text_say_the_same", |()| json_and_text())
        .case_unless(probes().or_else(|| host::lacks("bpftool")), "nothing_stays_in_the_kernel", |()| nothing_stays())
        .case_unless(probes().or_else(|| host::lacks("setpriv")), "each_capability_is_missed", |()| capabilities())
        .case_unless(probes().or_else(|| host::lacks("unshare")), "foreign_pid_namespace_is_69", |()| namespace())
        .case_unless(needs_root(), "user_without_privilege_is_77", |()| unprivileged())
        .case_unless(probes(), "selected_processes_and_listeners_are_named", |()| processes())
        .case_unless(probes().or_else(|| host::lacks("go")), "programs_that_are_linked_are_named", |()| linked::go())
        .case_unless(
            probes().or_else(|| host::lacks("cargo")).or_else(|| host::lacks("strip")),
            "tokio_is_named_if_asked_for",
            |()| linked::tokio(),
        )
        .case_unless(probes(), "spantap_that_runs_is_recognised", |()| running())
        .case("credentials_that_are_refused_stay_secret", |()| refused())
        .case("destination_that_is_away_is_69_in_time", |()| away())
        .case("wrong_path_and_wrong_scheme_are_told_apart", |()| mistakes())
        .case("address_that_is_taken_is_69", |()| taken())
        .case("socket_that_is_no_socket_is_69", |()| no_socket())
        .case_unless(needs_root(), "folder_that_a_start_refuses_is_69", |()| as_a_start::unsafe_folder())
        .case_unless(probes().or_else(|| host::lacks("setpriv")), "features_of_a_start_are_told", |()| {
            as_a_start::features()
        })
        .case_unless(probes().or_else(|| host::lacks("setpriv")), "what_changes_requests_is_tried", |()| {
            as_a_start::propagation()
        })
        .case("bad_configuration_is_64", |()| configuration())
        .case("agent_that_is_missing_is_a_line", |()| no_agent())
        .run()
}

fn needs_root() -> Option<Reason> {
    (!rustix::process::geteuid().is_root()).then(|| "needs root, to give privilege up".to_owned())
}

fn only_subjects() -> Result<String> {
    Ok(format!("discovery:\n  instrument:\n    - {}\n", observed::subjects()?))
}

/// As root, with a real Collector that asks for credentials.
fn can_run() -> Result<()> {
    let collector = Collector::start_authenticated()?;
    let said = Doctor::new()?
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .env("OTEL_EXPORTER_OTLP_HEADERS", authorization(CREDENTIALS))
        .json()?;
    said.code(0)?;
    for id in ["destinations.traces", "destinations.metrics"] {
        said.check(id, "ok", &["took an empty export", "authorization"])?;
    }
    let programs = said.ids().filter(|id| id.starts_with("programs.")).count();
    ensure!(programs == 11, "{programs} checks of programs: {}", said.out);
    for id in said.ids().filter(|id| id.starts_with("programs.") || id.starts_with("privilege.")) {
        said.check(id, "ok", &[])?;
    }
    said.check("programs.sock_recv_length", "ok", &["required", "instructions verified"])?;
    said.check("privilege.forwarder_user", "ok", &["becomes user"])?;
    ensure!(!said.all().contains(&secret(CREDENTIALS)), "the credentials are shown: {}", said.all());
    ensure!(said.summary()?.starts_with("The configured job can run"), "{}", said.summary()?);

    let wrong = ("alice", "not-the-password");
    let said = Doctor::new()?
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .env("OTEL_EXPORTER_OTLP_HEADERS", authorization(wrong))
        .json()?;
    said.code(69)?.check("destinations.traces", "failed", &["status 401", "authorization"])?;
    ensure!(!said.all().contains(&secret(wrong)), "the credentials are shown: {}", said.all());
    Ok(())
}

fn json_and_text() -> Result<()> {
    let doctor = Doctor::new()?;
    for program in ["spantap", "spantap-agent"] {
        let json = doctor.of(program).json()?;
        let text = doctor.of(program).text()?;
        ensure!(json.code == text.code, "{program}: exit codes {:?} and {:?}", json.code, text.code);
        ensure!(json.value("/exit_code")?.as_i64() == json.code.map(i64::from), "{program}: {}", json.out);
        ensure!(json.value("/schema")?.as_i64() == Some(1), "{program}: {}", json.out);
        let mut shown = 0;
        for line in text.out.lines() {
            let mut words = line.split_whitespace();
            let (Some(state), Some(id)) = (words.next(), words.next()) else { continue };
            if json.ids().any(|known| known == id) {
                json.check(id, &state.to_lowercase(), &[])?;
                shown += 1;
            }
        }
        ensure!(shown == json.ids().count(), "{program}: {shown} checks are shown: {}\n{}", text.out, json.out);
        ensure!(text.out.trim_end().ends_with(&json.summary()?), "{program}: {}", text.out);
        ensure!(!text.out.contains('\x1b'), "{program}: colours without a terminal");
        for check in json.value("/checks")?.as_array().into_iter().flatten() {
            let field = |name: &str| check.get(name).cloned().unwrap_or_default();
            ensure!(field("fix").is_string() == (field("state") != "ok"), "no fix, or one too many: {check}");
            ensure!(field("exit_code").is_u64() == (field("state") == "failed"), "exit code: {check}");
        }
    }
    Ok(())
}

/// Looks for programs of ours that no process holds: another Spantap may be at work on this machine.
fn nothing_stays() -> Result<()> {
    Doctor::new()?.of("spantap-agent").text()?.check_text("8 of 8 programs were loaded, attached and detached")?;
    // The kernel frees them a little after the last descriptor is closed.
    host::wait_for("no program of ours without a holder", Duration::from_secs(20), || {
        let ours = ours()?;
        let held = held();
        ours.iter().all(|program| held.contains(program)).then_some(())
    })
}

/// Ids of loaded programs with names of ours, which the kernel cuts to 15 characters.
fn ours() -> Option<Vec<u64>> {
    let output = Command::new(host::find("bpftool")?).args(["-j", "prog", "show"]).output().ok()?;
    let list: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).ok()?;
    let names = ["sock_recv_lengt", "sock_send_lengt", "inet_sock_set_s", "sched_process_", "tcp_sendmsg_loc"];
    let is_ours = |program: &&serde_json::Value| {
        let name = program.get("name").and_then(|name| name.as_str()).unwrap_or_default();
        names.iter().any(|known| name.starts_with(known))
    };
    Some(list.iter().filter(is_ours).filter_map(|program| program.get("id")?.as_u64()).collect())
}

/// Ids of programs that any process has open, itself or by a link.
fn held() -> HashSet<u64> {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let files = folders.filter_map(|process| std::fs::read_dir(process.path().join("fdinfo")).ok()).flatten().flatten();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let ids = texts.filter_map(|text| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()));
    ids.collect()
}

fn capabilities() -> Result<()> {
    let doctor = Doctor::new()?;
    for capability in NEEDED {
        let without = format!("-{capability},-sys_admin");
        let said = doctor.under(&["setpriv", "--bounding-set", &without]).json()?;
        let name = format!("CAP_{}", capability.to_uppercase());
        said.code(77)?.check("privilege.capabilities", "failed", &[&name])?;
        let fix = said.fix("privilege.capabilities")?;
        ensure!(fix.contains(&name), "the fix does not name {name}: {fix}");
        ensure!(said.details("privilege.capabilities")?.len() == 1, "more than {name} is missed: {}", said.out);
    }
    // Without it root still finds what is its own: less, not nothing.
    let said = doctor.under(&["setpriv", "--bounding-set", "-dac_read_search"]).json()?;
    said.code(0)?.check("privilege.capabilities", "degraded", &["CAP_DAC_READ_SEARCH"])?;
    for capability in ["setuid", "setgid"] {
        let said = doctor.under(&["setpriv", "--bounding-set", &format!("-{capability}")]).json()?;
        said.code(77)?.check("privilege.forwarder_user", "failed", &["cannot become"])?;
    }
    Ok(())
}

fn namespace() -> Result<()> {
    let said = Doctor::new()?.of("spantap-agent").under(&["unshare", "--pid", "--fork", "--mount-proc"]).json()?;
    said.code(69)?.check("privilege.pid_namespace", "failed", &["not that of the host"])?;
    ensure!(said.fix("privilege.pid_namespace")?.contains("--pid=host"), "{}", said.out);
    Ok(())
}

fn unprivileged() -> Result<()> {
    let doctor = Doctor::new()?.nobody()?;
    let said = doctor.json()?;
    said.code(77)?.check("privilege.capabilities", "failed", &["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"])?;
    said.check("programs.hook_set", "unknown", &["not tried"])?;
    said.check("kernel.release", "ok", &[]).or_else(|_| said.check("kernel.release", "degraded", &[]))?;
    for id in ["programs.hook_set", "privilege.capabilities"] {
        let fix = said.fix(id)?;
        ensure!(fix.contains("sudo"), "{id} does not say how: {fix}");
    }
    let notes = said.value("/notes")?.to_string();
    ensure!(notes.contains("`spantap forward` can run as this user"), "the split is not told: {notes}");
    Ok(())
}

fn processes() -> Result<()> {
    let pair = Pair::prepare("doctor")?;
    let folder = host::folder()?;
    // Waits for a connection that nobody makes.
    pair.server.begin(&serve([read_head()]), None, folder.path())?;
    pair.server.listening()?;
    let said = Doctor::new()?.yaml(&only_subjects()?).json()?;
    let named = said.details("processes.selected")?.join("\n");
    said.code(0)?.check("processes.selected", "ok", &["selected now"])?;
    ensure!(named.contains("subject") && named.contains("listens on"), "the subject is not named: {named}");
    said.check("processes.tls", "ok", &[]).or_else(|_| said.check("processes.tls", "degraded", &[]))?;

    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let quiet = format!("discovery:\n  instrument:\n    - open_ports: {}\n", host::free_port()?);
    let said = Doctor::new()?.yaml(&quiet).json()?;
    said.code(0)?.check("processes.selected", "degraded", &["none is selected"])?;
    let listens = said.details("processes.selected")?.join("\n");
    // This test itself holds it; a long list of its ports may be cut.
    ensure!(listens.contains("doctor") && listens.contains("listens on"), "{port} is not shown: {listens}");
    ensure!(said.fix("processes.selected")?.contains("SPANTAP_OPEN_PORT"), "{}", said.out);
    Ok(())
}

fn running() -> Result<()> {
    let mut spantap = Setup::new(only_subjects()?).own_key("console", "counter").start()?;
    let config = spantap.configuration();
    let said = Doctor::new()?.file(&config).json()?;
    let pid = spantap.forwarder_pid().to_string();
    said.code(0)?.check("socket.path", "ok", &[&pid, "listens there"])?;
    said.check("destinations.admin", "ok", &["held by the Spantap that runs", "ready"])?;
    let notes = said.value("/notes")?.to_string();
    ensure!(notes.contains("runs already") && notes.contains(&pid), "{notes}");
    ensure!(!notes.contains("user root"), "the forwarder is said to be root: {notes}");
    // It was connected to and goes on.
    ensure!(spantap.forwarder().is_running(), "{}", spantap.tail());
    spantap.stop().map(drop)
}

fn refused() -> Result<()> {
    for status in [401, 403] {
        let receiver = Receiver::answering(status)?;
        for form in ["--json", "--config=/dev/null"] {
            let said = Doctor::new()?
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
                .env("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20c2VjcmV0LXdvcmQ,x-tenant=hidden-tenant")
                .run(&[form])?;
            let all = said.all();
            ensure!(!all.contains("c2VjcmV0LXdvcmQ") && !all.contains("hidden-tenant"), "a value is shown: {all}");
            for text in ["x-tenant", "authorization", &status.to_string(), "credentials"] {
                ensure!(all.contains(text), "{text:?} is not told: {all}");
            }
        }
        let asked = receiver.asked();
        ensure!(asked.iter().any(|line| line.contains("POST /v1/traces")), "asked for {asked:?}");
        ensure!(asked.iter().any(|line| line.contains("POST /v1/metrics")), "asked for {asked:?}");
    }
    Ok(())
}

fn away() -> Result<()> {
    let said = Doctor::new()?.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", host::free_port()?));
    let said = said.json()?;
    said.failed("destinations.traces", &["refused"])?;
    ensure!(said.fix("destinations.traces")?.contains("is the Collector running"), "{}", said.out);
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", silent.local_addr()?);
    let begin = Instant::now();
    let said = Doctor::new()?.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).json()?;
    ensure!(begin.elapsed() < LIMIT, "it took {:?}", begin.elapsed());
    said.failed("destinations.traces", &["did not answer within 4000 ms"])?;
    let said = Doctor::new()?.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("OTEL_EXPORTER_OTLP_TIMEOUT", "300");
    said.json()?.failed("destinations.metrics", &["did not answer within 300 ms"])
}

fn mistakes() -> Result<()> {
    let receiver = Receiver::answering(404)?;
    let said = Doctor::new()?.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}/otlp", receiver.endpoint())).json()?;
    said.failed("destinations.traces", &["status 404", "/otlp/v1/traces"])?;
    ensure!(said.fix("destinations.traces")?.contains("path"), "{}", said.out);
    let https = receiver.endpoint().replace("http:", "https:");
    let said = Doctor::new()?.env("OTEL_EXPORTER_OTLP_ENDPOINT", https).json()?;
    said.failed("destinations.traces", &[])?;
    ensure!(said.fix("destinations.traces")?.contains("no TLS is spoken there"), "{}", said.out);
    Ok(())
}

fn taken() -> Result<()> {
    // Takes connections and says nothing.
    let other = std::net::TcpListener::bind("0.0.0.0:0")?;
    let port = other.local_addr()?.port();
    for (name, value, id) in [
        ("SPANTAP_ADMIN", format!("127.0.0.1:{port}"), "destinations.admin"),
        ("SPANTAP_PROMETHEUS_PORT", port.to_string(), "destinations.prometheus"),
    ] {
        let said = Doctor::new()?.env(name, &value).json()?;
        said.failed(id, &["taken by another program", &port.to_string()])?;
        let fix = said.fix(id)?;
        ensure!(fix.contains(name) && fix.contains("ss -ltnp"), "{fix}");
    }
    Ok(())
}

fn no_socket() -> Result<()> {
    let folder = host::folder()?;
    let file = folder.path().join("ingest.sock");
    std::fs::write(&file, "mine")?;
    let link = folder.path().join("link.sock");
    std::os::unix::fs::symlink("/run/elsewhere.sock", &link)?;
    for (path, what) in [(&file, "a file"), (&link, "a symbolic link")] {
        let said = Doctor::new()?.env("SPANTAP_SOCKET", path.display().to_string()).json()?;
        said.failed("socket.path", &[what])?;
    }
    ensure!(std::fs::read_to_string(&file)? == "mine" && link.is_symlink(), "something was changed");
    Ok(())
}

fn configuration() -> Result<()> {
    let said = Doctor::new()?.yaml("discovery:\n  instrument:\n    - open_port: 80\n");
    for program in ["spantap", "spantap-agent"] {
        let json = said.of(program).json()?;
        json.code(64)?.check("configuration.valid", "failed", &[".yml:3", "open_port"])?;
        said.of(program).text()?.code(64)?.check_text("open_port")?;
    }
    let said = Doctor::new()?
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/ca.pem");
    said.json()?.code(64)?.check("destinations.traces", "failed", &["/no/such/ca.pem"])?;
    let said = Doctor::new()?.yaml("network:\n  enable: true\n").json()?;
    said.check("configuration.valid", "degraded", &["warnings: 1"])?;
    ensure!(said.details("configuration.valid")?.join("").contains("network"), "{}", said.out);
    Doctor::new()?.run(&["--no-such-option"])?.code(64).map(drop)
}

fn no_agent() -> Result<()> {
    let said = Doctor::new()?.alone()?.json()?;
    said.code(69)?.check("programs.agent", "failed", &["neither beside"])?;
    // The rest is looked at all the same.
    said.check("destinations.choice", "ok", &[])
}

fn authorization(credentials: (&str, &str)) -> String {
    format!("Authorization=Basic%20{}", secret(credentials))
}

/// Of the two that the tests use; as `printf user:password | base64` prints them.
fn secret(credentials: (&str, &str)) -> String {
    let known = [
        (CREDENTIALS, "YWxpY2U6d29uZGVybGFuZA=="),
        (("alice", "not-the-password"), "YWxpY2U6bm90LXRoZS1wYXNzd29yZA=="),
    ];
    known.iter().find(|(known, _)| *known == credentials).map(|(_, text)| (*text).to_owned()).unwrap_or_default()
}
