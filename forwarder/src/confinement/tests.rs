//! The confinement at work, each time in a process of its own: it cannot be taken off again.
#![allow(clippy::unwrap_used)]

use std::{
    env, fs, io,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket},
    os::fd::AsFd as _,
    os::unix::{
        fs::DirBuilderExt as _,
        net::{UnixListener, UnixStream},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Output, abort, exit},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::*;
use crate::{
    export::{
        queue::{Batch, Settlement},
        spool::{Directory, Limits, Spool},
    },
    telemetry::destination::Destination,
};

const ROLE: &str = "SPANTAP_TEST_CONFINED";
const FOLDER: &str = "SPANTAP_TEST_FOLDER";

/// Runs the test `child` of this program, confined, in `role`, with a folder that holds the file `kept`. It must stay as it is.
fn confined(role: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("kept"), "kept").unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "confinement::tests::child", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("kept")).unwrap(), "kept");
    output
}

fn refused<T: std::fmt::Debug>(what: &str, result: io::Result<T>) {
    match result {
        // EPERM of the filter, EACCES of Landlock.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        other => fail(&format!("{what}: {other:?}, expected to be refused")),
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
    // What is served stands before.
    let scrapes = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let agents = UnixListener::bind(folder.join("ingest.sock")).unwrap();
    spantap_confinement::seal().unwrap();
    let spool = folder.join("spool");
    fs::DirBuilder::new().mode(0o700).create(&spool).unwrap();
    let directory = (role == "spool").then(|| Directory::open(&spool, None).unwrap());
    let books = Arc::new(Destination::new("traces", Default::default()));
    let limits = Limits { max_bytes: 64 << 20, max_age: Duration::from_secs(60) };
    let opened = directory.as_ref().map(|directory| Spool::open(directory, limits, books.clone()).unwrap());
    if let Err(error) = enter(directory.as_ref().map(|directory| directory.as_fd())) {
        fail(&error.to_string());
    }
    match role.as_str() {
        "allowed" => allowed(&scrapes, &agents, &folder),
        "refused" => forbidden(&folder),
        "spool" => spools(opened.unwrap(), &books, &folder),
        "exec" => fail(&format!("exec returned: {}", Command::new("/bin/true").exec())),
        "abort" => abort(),
        "enter" => fail(&format!("confined twice: {:?}", system_calls::install(LISTS).err())),
        other => fail(&format!("no role {other}")),
    }
    exit(0);
}

fn allowed(scrapes: &TcpListener, agents: &UnixListener, folder: &Path) {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.lines().any(|line| line == "Seccomp:\t2"), "{status}");
    assert_eq!(fs::read_to_string(folder.join("kept")).unwrap(), "kept");
    assert!(fs::read_dir("/etc").unwrap().count() > 0);
    // A name is looked up, in another thread as tokio does it, and connected to.
    let port = scrapes.local_addr().unwrap().port();
    let addresses = thread::spawn(move || ("localhost", port).to_socket_addrs().map(Vec::from_iter));
    let addresses = addresses.join().unwrap().unwrap();
    let address = addresses.iter().find(|address| address.is_ipv4()).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    let (mut served, _) = scrapes.accept().unwrap();
    client.write_all(b"ask").unwrap();
    let mut asked = [0; 3];
    served.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"ask");
    let _agent = UnixStream::connect(agents.local_addr().unwrap().as_pathname().unwrap()).unwrap();
    agents.accept().unwrap();
    // As the resolver asks a server.
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"?", address).unwrap();
    assert!(Instant::now().elapsed().as_secs() < 60 && SystemTime::now() > SystemTime::UNIX_EPOCH);
    let (give, take) = mpsc::sync_channel(0);
    let thread = thread::Builder::new().name("other".to_owned()).spawn(move || give.send(vec![1u8; 4 << 20])).unwrap();
    assert_eq!(take.recv().unwrap().len(), 4 << 20);
    thread.join().unwrap().unwrap();
}

fn forbidden(folder: &Path) {
    let kept = folder.join("kept");
    refused("listening", TcpListener::bind("127.0.0.1:0"));
    refused("listening over IPv6", TcpListener::bind("[::1]:0"));
    refused("a socket in a folder", UnixListener::bind(folder.join("new.sock")));
    refused("a process", Command::new("/bin/true").status());
    refused("a new file", fs::File::create(folder.join("new")));
    refused("a file for writing", fs::OpenOptions::new().append(true).open(&kept));
    refused("removing", fs::remove_file(&kept));
    refused("renaming", fs::rename(&kept, folder.join("moved")));
    refused("a link", std::os::unix::fs::symlink(&kept, folder.join("link")));
    refused("a mode", fs::set_permissions(&kept, fs::metadata(&kept).unwrap().permissions()));
    refused("a new folder", fs::create_dir(folder.join("sub")));
    thread::spawn(|| refused("listening of a thread", TcpListener::bind("127.0.0.1:0"))).join().unwrap();
}

/// Everything that a spool does with files works, and nothing else may be written.
fn spools(spool: Spool, books: &Destination, folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let later = || tokio::time::Instant::now() + Duration::from_secs(10);
    runtime.block_on(async {
        for n in 0..20_u8 {
            let batch = Batch { body: vec![n; 1 << 20].into(), items: 1, sealed: tokio::time::Instant::now() };
            spool.offer(batch, true).unwrap();
        }
        spool.flush(later()).await;
        assert_eq!((books.spool_items.get(), books.spool_errors.get()), (20, 0));
        for _ in 0..20 {
            let loan = spool.lend().await.unwrap();
            spool.settle(loan, Settlement::Delivered { rejected: 0 });
        }
        spool.flush(later()).await;
        assert_eq!((books.exported.get(), books.spool_bytes.get()), (20, 0));
    });
    forbidden(folder);
    // Of the spool's folder the names are fixed by nobody, but it holds plain files only.
    let inside = folder.join("spool/traces");
    refused("a link", std::os::unix::fs::symlink("x", inside.join("link")));
    refused("a socket", UnixListener::bind(inside.join("socket")));
    refused("a new folder", fs::create_dir(inside.join("sub")));
    refused("a program", Command::new(inside.join("x")).status());
}

#[test]
fn a_spool_is_written_and_nothing_else() {
    let output = confined("spool");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_the_forwarder_does_still_works() {
    let output = confined("allowed");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn listening_writing_and_processes_are_refused() {
    let output = confined("refused");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn exec_kills() {
    let output = confined("exec");
    assert_eq!(output.status.signal(), Some(c::SIGSYS), "{output:?}");
}

#[test]
fn a_panic_ends_as_ever() {
    let output = confined("abort");
    // The test runs in a thread of its own: musl aborts there by a crash.
    let signal = if cfg!(target_env = "musl") { c::SIGSEGV } else { c::SIGABRT };
    assert_eq!(output.status.signal(), Some(signal), "{output:?}");
}

#[test]
fn the_confinement_is_final() {
    let output = confined("enter");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Prctl"), "{output:?}");
}

#[test]
fn each_call_stands_once_with_who_makes_it() {
    assert_eq!((LISTS.flaw(), SPOOLING.flaw()), (None, None));
}
