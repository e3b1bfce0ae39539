#![allow(clippy::unwrap_used)]
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn knows_the_caller_and_its_namespace() {
    let procfs = ProcFs::default();
    assert_eq!(procfs.own_pid(), Some(std::process::id()));
    assert!(procfs.pids().unwrap().contains(&std::process::id()));
    assert_eq!(procfs.descriptors(std::process::id(), 1).unwrap().0.len(), 1);
}

#[test]
fn tells_the_initial_namespace_from_others() {
    let root = tempfile::tempdir().unwrap();
    let procfs = ProcFs::new(root.path());
    assert_eq!(procfs.is_initial_pid_namespace(), None);
    fs::create_dir_all(root.path().join("1/ns")).unwrap();
    symlink("pid:[4026531836]", root.path().join("1/ns/pid")).unwrap();
    assert_eq!(procfs.is_initial_pid_namespace(), Some(true));
    fs::remove_file(root.path().join("1/ns/pid")).unwrap();
    symlink("pid:[4026532000]", root.path().join("1/ns/pid")).unwrap();
    assert_eq!(procfs.is_initial_pid_namespace(), Some(false));
}

#[test]
fn lists_processes_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    for name in ["1", "4194304", "self", "net", "-1", "99999999999", "12x"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    let mut pids = ProcFs::new(root.path()).pids().unwrap();
    pids.sort_unstable();
    assert_eq!(pids, [1, 4_194_304]);
}

#[test]
fn reads_no_more_than_allowed_and_tells_why_not() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("1")).unwrap();
    fs::write(root.path().join("1/file"), "0123456789").unwrap();
    let procfs = ProcFs::new(root.path());
    assert_eq!(procfs.read(1, "file", 4).unwrap(), b"0123");
    assert!(matches!(procfs.read(1, "none", 4), Err(ReadError::Gone)));
    assert!(matches!(procfs.read(2, "file", 4), Err(ReadError::Gone)));
    assert!(matches!(procfs.read(1, "", 4), Err(ReadError::Io(_))), "a folder");
    let of = |errno: rustix::io::Errno| ReadError::from(io::Error::from_raw_os_error(errno.raw_os_error()));
    assert!(matches!(of(rustix::io::Errno::SRCH), ReadError::Gone));
    assert!(matches!(of(rustix::io::Errno::ACCESS), ReadError::Denied));
    assert!(matches!(of(rustix::io::Errno::PERM), ReadError::Denied));
}
