//! The store on a real folder: order, restarts, damage of every kind, limits, a disk that is full.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    fs,
    os::unix::fs::{FileExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use proptest::prelude::*;

use super::*;

const AGE: Duration = Duration::from_secs(3600);
const NOW: u64 = 1_700_000_000_000;
const WIDE: Limits = Limits { max_bytes: 64 << 20, max_age: AGE };

fn open_with(path: &Path, limits: Limits) -> io::Result<(Store, Given)> {
    Store::open(fs::File::open(path).unwrap().into(), limits, NOW)
}

fn open(path: &Path) -> (Store, Given) {
    open_with(path, WIDE).unwrap()
}

/// A body that tells its number.
fn body(n: u64, length: usize) -> Vec<u8> {
    let mut body = n.to_le_bytes().to_vec();
    body.resize(length.max(8), n as u8);
    body
}

fn append(store: &mut Store, numbers: impl IntoIterator<Item = u64>, length: usize) -> Given {
    let mut given = Given::default();
    for n in numbers {
        store.append(&body(n, length), 1, NOW, &mut given).unwrap();
    }
    given
}

/// Reads and passes everything: the numbers, and what was given up.
fn all(store: &mut Store) -> (Vec<u64>, Given) {
    let (mut numbers, mut given) = (Vec::new(), Given::default());
    while let Some(lent) = store.lend(NOW, &mut given) {
        numbers.push(u64::from_le_bytes(*lent.body.first_chunk().unwrap()));
        assert!(store.delivered(lent.ticket));
    }
    (numbers, given)
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "seg"));
    found.sort();
    found
}

#[test]
fn in_order_and_gone_once_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    append(&mut store, 0..50, 1 << 20);
    assert_eq!(store.items(), 50);
    assert!(segments(folder.path()).len() > 10, "segments are of 4 MiB with this limit");
    let (numbers, given) = all(&mut store);
    assert_eq!((numbers, given, store.items()), ((0..50).collect(), Given::default(), 0));
    assert!(store.is_empty() && segments(folder.path()).is_empty() && store.bytes() == 0);
    append(&mut store, 200..203, 10);
    assert_eq!(all(&mut store).0, [200, 201, 202]);
}

#[test]
fn a_restart_goes_on_where_the_reader_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected: Vec<u64> = (0..30).collect();
    let (mut store, _) = open(folder.path());
    append(&mut store, 0..30, 1 << 20);
    while !expected.is_empty() {
        let mut given = Given::default();
        let lent = store.lend(NOW, &mut given).unwrap();
        assert_eq!(u64::from_le_bytes(*lent.body.first_chunk().unwrap()), expected.remove(0));
        assert!(store.delivered(lent.ticket));
        // One more is on its way when the process ends: it comes again.
        let _ = store.lend(NOW, &mut given);
        drop(store);
        let given;
        (store, given) = open(folder.path());
        assert_eq!((store.items(), given), (expected.len() as u64, Given::default()));
    }
    assert!(segments(folder.path()).is_empty());
    // Without the position everything that is there is sent again.
    append(&mut store, 0..3, 10);
    let lent = store.lend(NOW, &mut Given::default()).unwrap();
    store.delivered(lent.ticket);
    drop(store);
    fs::write(folder.path().join("position"), [7; 20]).unwrap();
    assert_eq!(all(&mut open(folder.path()).0).0, [0, 1, 2]);
}

#[test]
fn one_record_is_lent_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    append(&mut store, 0..2, 10);
    let mut given = Given::default();
    let first = store.lend(NOW, &mut given).unwrap();
    assert!(store.lend(NOW, &mut given).is_none());
    store.back(first.ticket);
    let again = store.lend(NOW, &mut given).unwrap();
    assert_eq!(again.body, first.body);
    assert!(store.delivered(again.ticket) && !store.delivered(again.ticket), "nothing is passed twice");
    assert_eq!(store.items(), 1);
}

#[test]
fn a_file_cut_anywhere_gives_what_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    append(&mut store, 0..3, 20);
    drop(store);
    let path = segments(folder.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let record = (20 + 24) as usize;
    assert_eq!(whole.len(), 8 + 3 * record);
    for cut in 0..whole.len() {
        let _ = fs::remove_file(folder.path().join("position"));
        fs::write(&path, &whole[..cut]).unwrap();
        let (mut store, given) = open(folder.path());
        let good = cut.saturating_sub(8) / record;
        let rest = if cut < 8 { cut } else { cut - 8 - good * record };
        assert_eq!(given, Given { damaged_bytes: rest as u64, ..Given::default() }, "cut at {cut}");
        assert_eq!(all(&mut store).0, (0..good as u64).collect::<Vec<_>>(), "cut at {cut}");
        // It goes on, in another file.
        append(&mut store, 9..10, 20);
        drop(store);
        assert_eq!(all(&mut open(folder.path()).0).0, [9], "cut at {cut}");
    }
}

#[test]
fn a_wrong_byte_anywhere_is_never_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    append(&mut store, 0..3, 20);
    drop(store);
    let path = segments(folder.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let _ = fs::remove_file(folder.path().join("position"));
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&path, bytes).unwrap();
        let (mut store, at_start) = open(folder.path());
        let found = store.items();
        let (numbers, given) = all(&mut store);
        assert!(numbers.iter().all(|n| *n < 3) && numbers.is_sorted(), "byte {at}: {numbers:?}");
        assert_eq!(numbers.len() as u64 + given.unreadable, found, "byte {at}");
        assert!(found == 3 && given.unreadable == 1 || at_start.damaged_bytes > 0, "byte {at}: told nowhere");
    }
}

#[test]
fn what_is_no_file_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("target"), b"SPTSPL01").unwrap();
    let name = folder.path().join("0000000000000001.seg");
    symlink(folder.path().join("target"), &name).unwrap();
    assert!(open_with(folder.path(), WIDE).is_err(), "a link");
    fs::remove_file(&name).unwrap();
    fs::create_dir(&name).unwrap();
    assert!(open_with(folder.path(), WIDE).is_err(), "a folder");
    fs::remove_dir(&name).unwrap();
    assert!(Command::new("mkfifo").arg(&name).status().unwrap().success());
    assert!(open_with(folder.path(), WIDE).is_err(), "a pipe, without waiting for its other end");
    fs::remove_file(&name).unwrap();
    // Names that are none of ours are left alone.
    for name in ["1.seg", "000000000000000G.seg", "+00000000000001f.seg", "x"] {
        fs::write(folder.path().join(name), b"x").unwrap();
    }
    assert_eq!(open(folder.path()).0.items(), 0);
    // A file of any size, without anything in it.
    fs::File::create(&name).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(open(folder.path()).1.damaged_bytes, 1 << 40);
    assert!(!name.exists());
}

#[test]
fn the_oldest_go_when_the_room_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 4 << 20, ..WIDE };
    let (mut store, _) = open_with(folder.path(), limits).unwrap();
    let mut given = Given::default();
    for n in 0..1000 {
        store.append(&body(n, 10_000), 1, NOW, &mut given).unwrap();
        assert!(store.bytes() <= limits.max_bytes);
        assert_eq!(store.items() + given.full, n + 1);
        let on_disk: u64 = segments(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert_eq!(on_disk, store.bytes());
    }
    let (numbers, _) = all(&mut store);
    assert_eq!(numbers, (given.full..1000).collect::<Vec<_>>());
    assert!(numbers.len() > 300, "no more is given up than need be: {}", numbers.len());
    // What alone is too large is not taken; what is as large as the whole is.
    store.append(&body(1, 5 << 20), 7, NOW, &mut given).unwrap();
    assert_eq!(given.full - (1000 - numbers.len() as u64), 7);
    store.append(&body(1, 3 << 20), 1, NOW, &mut given).unwrap();
    assert_eq!(all(&mut store).0, [1]);
    // A lower limit holds for what is found.
    append(&mut store, 0..300, 10_000);
    drop(store);
    let (store, given) = open_with(folder.path(), Limits { max_bytes: 1 << 20, ..WIDE }).unwrap();
    assert!(store.bytes() <= 1 << 20 && given.full > 0);
    assert_eq!(store.items() + given.full, 300);
}

#[test]
fn a_record_on_its_way_is_counted_once_whatever_happens_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open_with(folder.path(), Limits { max_bytes: 1 << 20, ..WIDE }).unwrap();
    append(&mut store, 0..1, 10_000);
    let lent = store.lend(NOW, &mut Given::default()).unwrap();
    let given = append(&mut store, 1..300, 10_000);
    assert_eq!(store.items() + given.full, 300);
    let before = store.items();
    assert!(!store.delivered(lent.ticket), "it was given up, and counted");
    assert_eq!(store.items(), before);
    let next = store.lend(NOW, &mut Given::default()).unwrap();
    assert_eq!(u64::from_le_bytes(*next.body.first_chunk().unwrap()), given.full);
}

#[test]
fn what_is_too_old_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    let mut given = Given::default();
    let old = NOW - AGE.as_millis() as u64 - 1;
    for (n, sealed) in [(0, old), (1, old), (2, NOW), (3, old), (4, u64::MAX)] {
        store.append(&body(n, 100), 2, sealed, &mut given).unwrap();
    }
    let (numbers, given) = all(&mut store);
    assert_eq!((numbers, given.expired), (vec![2, 4], 6));
    // A segment of which everything is too old goes without being read, also at a start.
    append(&mut store, 0..3, 100);
    drop(store);
    let (mut store, given) =
        Store::open(fs::File::open(folder.path()).unwrap().into(), WIDE, NOW + AGE.as_millis() as u64 + 1).unwrap();
    assert_eq!((store.items(), given.expired), (0, 3));
    append(&mut store, 0..1, 100);
    let mut given = Given::default();
    store.expire(NOW * 2, &mut given);
    assert_eq!((store.items(), given.expired), (0, 1));
}

/// A file system of 1 MiB, taken away when it is dropped.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_takes_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=1m,mode=700", "spool"];
    let mounted = Command::new("mount").args(mount).arg(folder.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIP a_full_disk_takes_nothing_back: needs root, to mount a tmpfs");
        return;
    }
    let small = Small(folder.path().to_owned());
    let (mut store, _) = open(&small.0);
    let mut given = Given::default();
    let mut written = 0;
    let error = loop {
        match store.append(&body(written, 100_000), 1, NOW, &mut given) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100);
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert!(written >= 8 && store.items() == written);
    assert!(store.append(&body(99, 100_000), 1, NOW, &mut given).is_err());
    // A smaller one may fit still; and once the oldest are sent, all do.
    assert_eq!(all(&mut store), ((0..written).collect(), Given::default()));
    assert!(store.is_empty() && store.bytes() == 0);
    append(&mut store, 200..205, 100_000);
    drop(store);
    assert_eq!(all(&mut open(&small.0).0), ((200..205).collect(), Given::default()));
}

#[test]
fn what_changes_under_its_hands_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    append(&mut store, 0..5, 100);
    let path = segments(folder.path()).remove(0);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The body of the first; the head of the fourth.
    file.write_all_at(b"xx", 8 + 24 + 50).unwrap();
    file.write_all_at(b"xx", 8 + 3 * 124).unwrap();
    let (numbers, given) = all(&mut store);
    assert_eq!((numbers, given.unreadable, store.items()), (vec![1, 2], 3, 0));
    // Removed by somebody.
    append(&mut store, 0..5, 100);
    drop(store);
    let (mut store, _) = open(folder.path());
    segments(folder.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!((all(&mut store).1.unreadable, store.items()), (5, 0));
}

#[derive(Debug, Clone)]
enum Act {
    Append(u16),
    Deliver,
    Back,
    Restart,
    Cut(u16),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is done to it, what comes out is what went in, in order, each once or, after a cut, not at all.
    #[test]
    fn everything_once_and_in_order(acts in prop::collection::vec(prop_oneof![
        6 => (8_u16..2000).prop_map(Act::Append),
        4 => Just(Act::Deliver),
        1 => Just(Act::Back),
        1 => Just(Act::Restart),
        1 => (1_u16..3000).prop_map(Act::Cut),
    ], 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        // Segments of 1 KiB or one record.
        let limits = Limits { max_bytes: 1 << 20, max_age: AGE };
        let (mut store, _) = open_with(folder.path(), limits).unwrap();
        let (mut last, mut n, mut accounted, mut damaged) = (None, 0_u64, 0_u64, false);
        for act in acts {
            let mut given = Given::default();
            match act {
                Act::Append(length) => {
                    store.append(&body(n, length.into()), 1, NOW, &mut given).unwrap();
                    n += 1;
                }
                Act::Deliver => {
                    if let Some(lent) = store.lend(NOW, &mut given) {
                        let number = u64::from_le_bytes(*lent.body.first_chunk().unwrap());
                        prop_assert!(last.is_none_or(|last| last < number));
                        last = Some(number);
                        prop_assert!(store.delivered(lent.ticket));
                        accounted += 1;
                    }
                }
                Act::Back => {
                    if let Some(lent) = store.lend(NOW, &mut given) {
                        store.back(lent.ticket);
                    }
                }
                Act::Restart => {
                    drop(store);
                    let (again, found) = open_with(folder.path(), limits).unwrap();
                    prop_assert!(damaged || found == Given::default());
                    store = again;
                }
                Act::Cut(at) => {
                    drop(store);
                    if let Some(path) = segments(folder.path()).pop() {
                        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                        file.set_len(file.metadata().unwrap().len().min(at.into())).unwrap();
                        damaged = true;
                    }
                    store = open_with(folder.path(), limits).unwrap().0;
                }
            }
            accounted += given.unreadable;
            prop_assert!(damaged || accounted + store.items() == n);
        }
    }
}
