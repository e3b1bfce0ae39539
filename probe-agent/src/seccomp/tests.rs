//! The filter at work, each time in a process of its own: it cannot be taken off again.

use std::{
    env, fs, io,
    net::{TcpListener, UdpSocket},
    os::unix::{
        net::{UnixDatagram, UnixStream},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Command, Output, abort, exit},
    sync::mpsc,
    thread,
    time::{Instant, SystemTime},
};

use super::*;

const ROLE: &str = "SPANTAP_TEST_FILTERED";

/// Runs the test `child` of this program with the filter on, in `role`.
fn filtered(role: &str) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "seccomp::tests::child", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .output()
        .unwrap()
}

fn refused<T: std::fmt::Debug>(what: &str, result: io::Result<T>) {
    match result {
        Err(error) if error.raw_os_error() == Some(c::EPERM) => {}
        other => fail(&format!("{what}: {other:?}, expected EPERM")),
    }
}

fn fail(what: &str) -> ! {
    eprintln!("{what}");
    exit(1)
}

#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn child() {
    let Ok(role) = env::var(ROLE) else { return };
    if let Err(error) = install() {
        fail(&error.to_string());
    }
    match role.as_str() {
        "allowed" => allowed(),
        "refused" => forbidden(),
        "exec" => fail(&format!("exec returned: {}", Command::new("/bin/true").exec())),
        "abort" => abort(),
        "install" => fail(&format!("installed twice: {:?}", install())),
        other => fail(&format!("no role {other}")),
    }
    exit(0);
}

fn allowed() {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.lines().any(|line| line == "Seccomp:\t2"), "{status}");
    assert!(fs::read_dir("/proc").unwrap().count() > 0);
    fs::read_link("/proc/self/exe").unwrap();
    UnixDatagram::unbound().unwrap();
    let nobody = UnixStream::connect("/nonexistent/ingest.sock").unwrap_err();
    assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
    assert!(Instant::now().elapsed().as_secs() < 60 && SystemTime::now() > SystemTime::UNIX_EPOCH);
    // A thread that the C library starts and waits for: clone, futex and what belongs to it.
    let (give, take) = mpsc::sync_channel(0);
    let thread = thread::Builder::new().name("other".to_owned()).spawn(move || give.send(vec![1u8; 4 << 20])).unwrap();
    assert_eq!(take.recv().unwrap().len(), 4 << 20);
    thread.join().unwrap().unwrap();
}

fn forbidden() {
    refused("UDP socket", UdpSocket::bind("127.0.0.1:0"));
    refused("TCP socket", TcpListener::bind("127.0.0.1:0"));
    refused("TCP over IPv6", TcpListener::bind("[::1]:0"));
    refused("a process", Command::new("/bin/true").status());
    refused("a new file", fs::File::create("/tmp/spantap-seccomp-test"));
    refused("a file for writing", fs::OpenOptions::new().append(true).open("/dev/null"));
    refused("removing", fs::remove_file("/tmp/spantap-seccomp-test"));
    refused("a listener", std::os::unix::net::UnixListener::bind("/tmp/spantap-seccomp-test"));
    thread::spawn(|| refused("UDP socket of a thread", UdpSocket::bind("127.0.0.1:0"))).join().unwrap();
}

#[test]
fn what_the_agent_does_still_works() {
    let output = filtered("allowed");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn network_processes_and_writing_are_refused() {
    let output = filtered("refused");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn exec_kills() {
    let output = filtered("exec");
    assert_eq!(output.status.signal(), Some(c::SIGSYS), "{output:?}");
}

#[test]
fn a_panic_ends_as_ever() {
    let output = filtered("abort");
    // The test runs in a thread of its own: musl aborts there by a crash, see the list.
    let signal = if cfg!(target_env = "musl") { c::SIGSEGV } else { c::SIGABRT };
    assert_eq!(output.status.signal(), Some(signal), "{output:?}");
}

#[test]
fn filters_are_final() {
    let output = filtered("install");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Prctl"), "{output:?}");
}

#[test]
fn the_lists_are_short_and_each_call_stands_once() {
    assert_eq!(LISTS.flaw(), None, "a call stands in the lists twice, or nobody makes it");
    assert!(LISTS.len() <= 45, "{} calls are allowed", LISTS.len());
}
