#![allow(clippy::unwrap_used)]
use std::{
    fs,
    os::unix::fs::symlink,
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

const ALL: Needs = Needs { arguments: true, container: true, language: true, ports: true };
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn variables(environment: &[u8]) -> Vec<(String, String)> {
    // A small buffer, so that variables lie across its ends.
    otel_variables(BufReader::with_capacity(7, environment))
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn reads_a_real_process() {
    let mut child = std::process::Command::new("sleep")
        .arg("600")
        .env("OTEL_SERVICE_NAME", "sleeper")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
        .env("HOME_TOWN", "x")
        .spawn()
        .unwrap();
    let mut reader = Reader::new(ProcFs::default());
    let mut counts = Counts::default();
    // spawn returns when exec can no longer fail, which is before the new arguments are in place.
    while reader.command_line(child.id(), &mut counts).unwrap().is_empty() {
        thread::yield_now();
    }
    let stat = reader.stat(child.id()).unwrap();
    assert_eq!(stat.parent, std::process::id());
    assert!(!stat.kernel_thread);
    let facts = reader.facts(child.id(), &mut counts).unwrap();
    let candidate = reader.candidate(child.id(), ALL, &mut counts).unwrap();
    child.kill().unwrap();
    // Nobody waits for it yet: it stays in /proc, and counts as ended.
    let deadline = Instant::now() + Duration::from_secs(10);
    while reader.stat(child.id()).is_ok() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(fs::exists(format!("/proc/{}", child.id())).unwrap());
    assert!(matches!(reader.stat(child.id()), Err(ReadError::Gone)), "a zombie has ended");
    child.wait().unwrap();
    assert!(matches!(reader.stat(child.id()), Err(ReadError::Gone)));
    assert_eq!(facts.executable, fs::canonicalize("/bin/sleep").unwrap().to_str().unwrap());
    assert_eq!(facts.command_line, ["sleep", "600"]);
    assert_eq!(facts.environment, [pair("OTEL_SERVICE_NAME", "sleeper")]);
    assert_eq!(candidate.arguments.as_deref(), Some("600"));
    assert_eq!(candidate.executable, Some(facts.executable));
    assert_eq!(counts, Counts::default());
}

#[test]
fn kernel_threads_are_told() {
    // kthreadd is there on every host; not in a PID namespace of its own.
    let reader = Reader::new(ProcFs::default());
    if reader.procfs.is_initial_pid_namespace() == Some(true) {
        assert!(reader.stat(2).unwrap().kernel_thread);
    }
}

#[test]
fn reads_from_a_tree_and_does_without_what_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let process = root.path().join("5");
    fs::create_dir_all(process.join("ns")).unwrap();
    symlink("/srv/app (deleted)", process.join("exe")).unwrap();
    let mut reader = Reader::new(ProcFs::new(root.path()));
    let mut counts = Counts::default();
    let facts = reader.facts(5, &mut counts).unwrap();
    assert_eq!(facts, Facts { executable: "/srv/app".to_owned(), ..Facts::default() });
    assert_eq!(counts.gone, 3, "cmdline, environ, cgroup");
    fs::write(process.join("cmdline"), b"app\0--port\0\0").unwrap();
    fs::write(process.join("cgroup"), b"0::/\n").unwrap();
    symlink("mnt:[1]", process.join("ns/mnt")).unwrap();
    fs::write(process.join("mountinfo"), format!("1 2 0:1 /containers/{ID}/hosts /etc/hosts rw\n")).unwrap();
    let candidate = reader.candidate(5, ALL, &mut counts).unwrap();
    assert_eq!(candidate.arguments.as_deref(), Some("--port "));
    assert_eq!(candidate.container.clone().flatten().unwrap().as_str(), ID);
    fs::remove_file(process.join("mountinfo")).unwrap();
    assert_eq!(reader.candidate(5, ALL, &mut counts).unwrap().container, candidate.container, "remembered");
    let frugal = reader.candidate(5, Needs::default(), &mut counts).unwrap();
    assert_eq!(frugal, Candidate { pid: 5, executable: Some("/srv/app".to_owned()), ..Candidate::default() });
    assert!(matches!(reader.facts(6, &mut counts), Err(ReadError::Gone)));
}

#[test]
fn arguments_are_bounded_and_split_as_given() {
    assert_eq!(split_arguments(b""), Vec::<String>::new());
    assert_eq!(split_arguments(b"a\0\0b\0"), ["a", "", "b"]);
    assert_eq!(split_arguments(b"title without end"), ["title without end"]);
    let many = b"x\0".repeat(100);
    assert_eq!(split_arguments(&many).len(), MAX_ARGUMENTS);
    let long = split_arguments(&"é".repeat(500).into_bytes());
    assert_eq!(long, ["é".repeat(128)]);
    assert_eq!(join_arguments(b"java\0-jar\0app.jar\0"), "-jar app.jar");
    assert_eq!(join_arguments(b"java\0"), "");
}

#[test]
fn only_harmless_otel_variables_are_taken() {
    let environment = b"PATH=/bin\0OTEL_SERVICE_NAME=a=b\0XOTEL_A=1\0OTEL_SERVICE_NAME=second\0OTEL_EMPTY=\0\
        OTEL_NO_EQUALS\0OTEL_EXPORTER_OTLP_TRACES_HEADERS=x-key=1\0OTEL_API_TOKEN=t\0OTEL_NOT_ENDED=1";
    assert_eq!(variables(environment), [pair("OTEL_SERVICE_NAME", "a=b"), pair("OTEL_EMPTY", "")]);
}

#[test]
fn variables_are_bounded_in_length_and_number() {
    let mut environment = format!("OTEL_FITS={}\0", "x".repeat(MAX_VARIABLE_BYTES - 10)).into_bytes();
    environment.extend(format!("OTEL_LONG={}\0", "x".repeat(MAX_VARIABLE_BYTES - 9)).into_bytes());
    environment.extend(b"OTEL_AFTER=1\0");
    let names: Vec<String> = variables(&environment).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["OTEL_FITS", "OTEL_AFTER"]);
    let many: Vec<u8> = (0..200).flat_map(|n| format!("OTEL_{n}=1\0").into_bytes()).collect();
    assert_eq!(variables(&many).len(), MAX_VARIABLES);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_stay_in_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        for argument in split_arguments(&bytes) {
            prop_assert!(argument.len() <= MAX_ARGUMENT_BYTES);
        }
        let _ = join_arguments(&bytes);
        let _ = variables(&bytes);
        let mut with_name = b"OTEL_A=".to_vec();
        with_name.extend(&bytes);
        for (name, value) in variables(&with_name) {
            prop_assert!(name.len() + value.len() < MAX_VARIABLE_BYTES);
        }
    }
}
