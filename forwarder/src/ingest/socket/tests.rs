//! The rules of the ingest socket, on a real file system. What needs two users is tried when the tests run as root.
#![allow(clippy::unwrap_used)]

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        net::{UnixDatagram, UnixStream},
        process::CommandExt as _,
    },
    process::Command,
};

use super::*;

const NOBODY: u32 = 65534;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let _ = writeln!(io::stderr(), "SKIP: {test}: needs root, to be two users");
    }
    root
}

#[test]
fn it_is_made_with_its_directory() {
    let folder = folder();
    let path = folder.path().join("a/b/ingest.sock");
    let _listener = bind(&path, None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777 & WRITABLE, 0);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn it_is_given_to_its_owner() {
    if !is_root("it_is_given_to_its_owner") {
        return;
    }
    let folder = folder();
    let path = folder.path().join("new/ingest.sock");
    drop(bind(&path, Some(NOBODY)).unwrap());
    let owners = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    assert_eq!((owners(&path), owners(path.parent().unwrap())), (NOBODY, NOBODY));
    assert_eq!(owners(&path.with_extension("sock.lock")), NOBODY, "who starts alone the next time");
    // A directory that was there is not given away.
    let path = folder.path().join("ingest.sock");
    drop(bind(&path, Some(NOBODY)).unwrap());
    assert_eq!((owners(&path), owners(folder.path())), (NOBODY, 0));
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let folder = folder();
    for mode in [0o777, 0o1777, 0o775, 0o757] {
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let error = bind(&folder.path().join("ingest.sock"), None).unwrap_err();
        assert!(matches!(error, BindError::Writable { mode: found, .. } if found == mode), "{mode:o}: {error:?}");
        assert!(error.to_string().contains("chmod go-w"), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_directory_of_a_stranger_is_refused() {
    if !is_root("a_directory_of_a_stranger_is_refused") {
        return;
    }
    let folder = folder();
    chown(folder.path(), Some(12345), None).unwrap();
    let path = folder.path().join("ingest.sock");
    let error = bind(&path, Some(NOBODY)).unwrap_err();
    assert!(matches!(error, BindError::Stranger { uid: 12345, wanted: NOBODY, .. }), "{error:?}");
    drop(bind(&path, Some(12345)).unwrap());
}

#[test]
fn links_are_refused() {
    let folder = folder();
    let real = folder.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::write(folder.path().join("target"), "").unwrap();
    symlink(folder.path().join("target"), real.join("ingest.sock")).unwrap();
    assert!(matches!(bind(&real.join("ingest.sock"), None), Err(BindError::Link(_))));
    symlink(folder.path().join("nowhere"), real.join("dangling.sock")).unwrap();
    assert!(matches!(bind(&real.join("dangling.sock"), None), Err(BindError::Link(_))));
    assert!(!folder.path().join("nowhere").exists());
    symlink(&real, folder.path().join("link")).unwrap();
    let error = bind(&folder.path().join("link/new.sock"), None).unwrap_err();
    assert!(matches!(&error, BindError::Link(path) if path.ends_with("link")), "{error:?}");
    // The lock is not created through a link either.
    symlink(folder.path().join("elsewhere"), real.join("new.sock.lock")).unwrap();
    assert!(matches!(bind(&real.join("new.sock"), None), Err(BindError::Io { .. })));
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn what_is_no_socket_stays() {
    let folder = folder();
    let path = folder.path().join("ingest.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&path, None), Err(BindError::NotASocket(_))));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_stale_one_is_replaced_and_a_live_one_is_not() {
    let folder = folder();
    let path = folder.path().join("ingest.sock");
    drop(bind(&path, None).unwrap());
    let stale = fs::symlink_metadata(&path).unwrap();
    let listener = bind(&path, None).unwrap();
    assert_ne!(fs::symlink_metadata(&path).unwrap().mtime_nsec(), stale.mtime_nsec());
    assert!(matches!(bind(&path, None), Err(BindError::InUse(_))));
    // Not accepting does not make it stale, however many wait.
    let address = SocketAddrUnix::new(&path).unwrap();
    let waiting: Vec<_> = (0..=BACKLOG).map(|_| unix_socket().unwrap()).collect();
    let refused = waiting.iter().filter(|socket| rustix::net::connect(socket, &address) == Err(Errno::AGAIN)).count();
    assert!(refused > 0, "no more room");
    assert!(matches!(bind(&path, None), Err(BindError::InUse(_))));
    drop(listener);
    bind(&path, None).unwrap();
}

#[test]
fn a_socket_of_another_kind_is_not_stale() {
    let folder = folder();
    let path = folder.path().join("ingest.sock");
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(bind(&path, None), Err(BindError::InUse(_))));
}

#[test]
fn of_many_starts_at_once_one_succeeds() {
    for stale in [false, true] {
        let folder = folder();
        let path = folder.path().join("ingest.sock");
        if stale {
            drop(bind(&path, None).unwrap());
        }
        let together = std::sync::Barrier::new(8);
        let results: Vec<_> = thread::scope(|scope| {
            let start = || {
                together.wait();
                bind(&path, None)
            };
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(BindError::InUse(_)))), "{results:?}");
        UnixStream::connect(&path).unwrap();
    }
}

#[test]
fn who_holds_the_lock_for_long_is_named() {
    let folder = folder();
    let path = folder.path().join("ingest.sock");
    let directory = Directory::open(&path, None).unwrap();
    let lock = directory.lock(&path, path.file_name().unwrap()).unwrap();
    assert!(matches!(bind(&path, None), Err(BindError::Starting(_))));
    drop(lock);
    bind(&path, None).unwrap();
}

/// Runs this test's own program once more, as nobody, to bind where root listens.
#[test]
fn a_socket_of_another_user_is_not_stale() {
    const PATH: &str = "TEST_SOCKET_OF_ANOTHER_USER";
    if let Some(path) = std::env::var_os(PATH) {
        let error = bind(Path::new(&path), None).unwrap_err();
        assert!(matches!(error, BindError::OfAnotherUser { uid: 0, .. }), "{error:?}");
        return;
    }
    if !is_root("a_socket_of_another_user_is_not_stale") {
        return;
    }
    let folder = folder();
    // A directory that this user may write, so that only the answer of the socket can keep the start from removing it.
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    let path = run.join("ingest.sock");
    let _listener = bind(&path, None).unwrap();
    chown(&run, Some(NOBODY), None).unwrap();
    // Where this program lies, nobody may not look.
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let mut again = Command::new(&program);
    again.args(["--exact", "ingest::socket::tests::a_socket_of_another_user_is_not_stale"]).env(PATH, &path);
    again.current_dir("/").uid(NOBODY).gid(NOBODY);
    let said = again.output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && text.contains("1 passed"), "{text}");
    UnixStream::connect(&path).unwrap();
}
