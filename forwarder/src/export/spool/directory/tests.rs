//! Folders as people leave them.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn refused(path: &Path, owner: Option<u32>) -> String {
    Directory::open(path, owner).unwrap_err().to_string()
}

#[test]
fn it_is_made_and_ours_alone() {
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("spool");
    let directory = Directory::open(&path, None).unwrap();
    directory.sub("traces").unwrap();
    assert_eq!((mode(&path), mode(&path.join("traces")), mode(&path.join(LOCK))), (0o700, 0o700, 0o600));
    let second = refused(&path, None);
    assert!(second.contains("another spantap") && second.contains("SPANTAP_SPOOL_PATH"), "{second}");
    let clone = directory.clone();
    drop(directory);
    assert!(matches!(Directory::open(&path, None), Err(SpoolError::InUse(_))), "a clone holds the lock");
    drop(clone);
    Directory::open(&path, None).unwrap();
}

#[test]
fn mistakes_name_the_way_out() {
    let around = tempfile::tempdir().unwrap();
    let missing = refused(&around.path().join("no/spool"), None);
    assert!(missing.contains("install -d -o"), "{missing}");
    let path = around.path().join("spool");
    fs::write(&path, "").unwrap();
    assert!(refused(&path, None).contains("no folder"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(around.path().join("real")).unwrap();
    symlink(around.path().join("real"), &path).unwrap();
    assert!(refused(&path, None).contains("symbolic link"));
    let path = around.path().join("real");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(refused(&path, None).ends_with(&format!("(mode 755): chmod 700 {}", path.display())));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let directory = Directory::open(&path, None).unwrap();
    fs::create_dir(path.join("metrics")).unwrap();
    fs::set_permissions(path.join("metrics"), fs::Permissions::from_mode(0o770)).unwrap();
    assert!(directory.sub("metrics").unwrap_err().to_string().contains("chmod 700"));
    symlink("metrics", path.join("traces")).unwrap();
    assert!(matches!(directory.sub("traces"), Err(SpoolError::NotAFolder(_))));
}

#[test]
fn root_gives_it_to_the_user_that_it_becomes() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP root_gives_it_to_the_user_that_it_becomes: needs root");
        return;
    }
    const NOBODY: u32 = 65534;
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("spool");
    drop(Directory::open(&path, Some(NOBODY)).unwrap());
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    assert_eq!((owner(&path), owner(&path.join(LOCK))), (NOBODY, NOBODY));
    drop(Directory::open(&path, Some(NOBODY)).unwrap());
    chown(&path, Some(65533), None).unwrap();
    let stranger = refused(&path, Some(NOBODY));
    assert!(stranger.contains("belongs to user 65533") && stranger.contains("chown -R 65534"), "{stranger}");
    chown(&path, Some(0), None).unwrap();
    fs::create_dir(path.join("traces")).unwrap();
    fs::set_permissions(path.join("traces"), fs::Permissions::from_mode(0o700)).unwrap();
    chown(path.join("traces"), Some(NOBODY), None).unwrap();
    let directory = Directory::open(&path, None).unwrap();
    assert!(matches!(directory.sub("traces"), Err(SpoolError::Stranger { uid: NOBODY, .. })));
}
