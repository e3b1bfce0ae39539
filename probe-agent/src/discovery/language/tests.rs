#![allow(clippy::unwrap_used)]
use std::{fs, process::Command, time::Instant};

use proptest::prelude::*;

use super::*;

#[test]
fn interpreters_are_known_by_name() {
    for (path, language) in [
        ("/usr/bin/python3.11", Some(Language::Python)),
        ("/opt/venv/bin/python", Some(Language::Python)),
        ("/usr/bin/pypy3", Some(Language::Python)),
        ("/usr/local/bin/node", Some(Language::NodeJs)),
        ("/usr/bin/node-22", Some(Language::NodeJs)),
        ("/usr/lib/jvm/java-21-openjdk-amd64/bin/java", Some(Language::Java)),
        ("/usr/bin/ruby3.1", Some(Language::Ruby)),
        ("/usr/sbin/php-fpm8.2", Some(Language::Php)),
        ("/usr/bin/php8.2", Some(Language::Php)),
        ("/usr/share/dotnet/dotnet", Some(Language::DotNet)),
        ("/usr/bin/nodejs-helper", None),
        ("/usr/bin/javac", None),
        ("/srv/python/server", None),
        ("", None),
    ] {
        assert_eq!(Language::from_executable(path), language, "{path}");
    }
}

/// A tree in which process 7 runs the file `content` from `/srv/app`.
fn tree(identity: &str, content: &[u8]) -> (tempfile::TempDir, ProcFs) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("7")).unwrap();
    fs::write(root.path().join("7/exe"), content).unwrap();
    map(root.path(), identity);
    let procfs = ProcFs::new(root.path());
    (root, procfs)
}

fn map(root: &std::path::Path, identity: &str) {
    let maps = format!(
        "00400000-00401000 r--p 00000000 {identity}                  /srv/app\n\
         00401000-00402000 r-xp 00001000 {identity}                  /srv/app\n"
    );
    fs::write(root.join("7/maps"), maps).unwrap();
}

#[test]
fn content_is_read_once_per_file() {
    let go = elf::tests::elf_with(&[(".go.buildinfo", b"\xff Go buildinf:")]);
    let (root, procfs) = tree("fe:01 4711", &go);
    let mut languages = Languages::default();
    let mut counts = Counts::default();
    assert_eq!(languages.find(&procfs, 7, b"/srv/app", &mut counts), Some(Language::Go));
    fs::write(root.path().join("7/exe"), b"not the same").unwrap();
    assert_eq!(languages.find(&procfs, 7, b"/srv/app", &mut counts), Some(Language::Go), "not read again");
    map(root.path(), "fe:01 4712");
    assert_eq!(languages.find(&procfs, 7, b"/srv/app", &mut counts), None, "another inode is another program");
    assert_eq!(counts, Counts::default());
}

#[test]
fn a_file_that_never_answers_holds_nobody_for_long() {
    let (root, procfs) = tree("fe:01 4711", b"");
    let pipe = root.path().join("7/exe");
    fs::remove_file(&pipe).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut languages = Languages::default();
    let mut counts = Counts::default();
    let started = Instant::now();
    for _ in 0..50 {
        assert_eq!(languages.find(&procfs, 7, b"/srv/app", &mut counts), None);
    }
    assert_eq!(counts.executables_slow, 50);
    assert!(started.elapsed() >= PATIENCE * 4, "tried");
    assert_eq!(languages.hanging.load(Ordering::Acquire), MAX_HANGING, "no more than that hang");
    // Opening the other end lets all readers go; then content is read again.
    let writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    drop(writer);
    let deadline = Instant::now() + Duration::from_secs(10);
    while languages.hanging.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    fs::remove_file(&pipe).unwrap();
    fs::write(&pipe, elf::tests::elf_with(&[(".comment", b"rustc version 1.95")])).unwrap();
    assert_eq!(languages.find(&procfs, 7, b"/srv/app", &mut counts), Some(Language::Rust));
}

#[test]
fn what_is_remembered_is_bounded() {
    let (root, procfs) = tree("fe:01 0", b"");
    let mut languages = Languages::default();
    for inode in 0..=MAX_REMEMBERED {
        map(root.path(), &format!("fe:01 {inode}"));
        languages.find(&procfs, 7, b"/srv/app", &mut Counts::default());
        assert!(languages.remembered.len() <= MAX_REMEMBERED);
    }
    assert_eq!(languages.remembered.len(), 1);
}

proptest! {
    #[test]
    fn arbitrary_maps_never_panic(maps in proptest::collection::vec(any::<u8>(), 0..300), link in proptest::collection::vec(any::<u8>(), 0..20)) {
        let _ = executable_mapping(&maps, &link);
    }
}
