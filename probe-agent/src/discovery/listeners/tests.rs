#![allow(clippy::unwrap_used)]
use std::{fs, net::TcpListener, os::unix::fs::symlink, path::Path};

use proptest::prelude::*;
use spantap_config::PortRange;

use super::*;

const HEADER: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn line(port: u16, state: &str, inode: u64) -> String {
    format!(
        "   0: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
}

fn all() -> PortSet {
    let mut ports = PortSet::default();
    ports.insert(PortRange { first: 1, last: u16::MAX });
    ports
}

fn table(text: &str) -> Vec<(u64, u16)> {
    let mut ports = FxHashMap::default();
    read_table(text.as_bytes(), &all(), &mut ports);
    let mut ports: Vec<_> = ports.into_iter().collect();
    ports.sort_unstable();
    ports
}

fn process(root: &Path, pid: u32, namespace: u32, tcp: &str, inodes: &[u64]) {
    let path = root.join(pid.to_string());
    fs::create_dir_all(path.join("ns")).unwrap();
    fs::create_dir_all(path.join("net")).unwrap();
    fs::create_dir_all(path.join("fd")).unwrap();
    symlink(format!("net:[{namespace}]"), path.join("ns/net")).unwrap();
    fs::write(path.join("net/tcp"), tcp).unwrap();
    for (number, inode) in inodes.iter().enumerate() {
        symlink(format!("socket:[{inode}]"), path.join("fd").join(number.to_string())).unwrap();
    }
}

#[test]
fn finds_its_own_listeners_of_both_families() {
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let v6 = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    let client = std::net::TcpStream::connect(v4.local_addr().unwrap()).unwrap();
    let me = std::process::id();
    let procfs = ProcFs::default();
    let mut listeners = Listeners::default();
    let mut counts = Counts::default();
    assert!(listeners.refresh(&procfs, [me].into_iter(), &all(), true, &mut counts));
    let held = listeners.held_by(&procfs, me, &mut counts);
    for listener in [&v4, &v6] {
        assert!(held.contains(&listener.local_addr().unwrap().port()), "{held:?}");
    }
    assert!(!held.contains(&client.local_addr().unwrap().port()), "{held:?}");
}

#[test]
fn each_namespace_is_read_once_and_ports_may_be_the_same() {
    let root = tempfile::tempdir().unwrap();
    process(root.path(), 1, 100, &format!("{HEADER}{}{}", line(8080, "0A", 11), line(9999, "0A", 14)), &[11]);
    process(root.path(), 2, 200, &format!("{HEADER}{}", line(8080, "0A", 12)), &[12, 77]);
    // Same namespace as the first: its table is not looked at.
    process(root.path(), 3, 100, &line(7070, "0A", 13), &[13, 11]);
    let procfs = ProcFs::new(root.path());
    let mut interest = PortSet::default();
    interest.insert(PortRange { first: 7000, last: 8999 });
    let mut listeners = Listeners::default();
    let mut counts = Counts::default();
    assert!(listeners.refresh(&procfs, 1..=4, &interest, true, &mut counts));
    assert_eq!(counts, Counts { gone: 1, ..Counts::default() });
    for pid in 1..=3 {
        assert_eq!(listeners.held_by(&procfs, pid, &mut counts), [8080], "pid {pid}");
    }
    assert!(!listeners.refresh(&procfs, 1..=3, &interest, true, &mut counts), "nothing new");
    fs::write(root.path().join("2/net/tcp6"), line(8081, "0A", 77)).unwrap();
    assert!(listeners.refresh(&procfs, 1..=3, &interest, true, &mut counts));
    assert_eq!(listeners.held_by(&procfs, 2, &mut counts), [8080, 8081]);
}

#[test]
fn ordinary_refreshes_read_what_is_new_and_the_rest_now_and_then() {
    const NAMESPACES: u32 = 150;
    let root = tempfile::tempdir().unwrap();
    for pid in 1..=NAMESPACES {
        process(root.path(), pid, pid, &line(80, "0A", pid.into()), &[]);
    }
    let procfs = ProcFs::new(root.path());
    let mut listeners = Listeners::default();
    let mut counts = Counts::default();
    let mut refresh = |pids: u32| listeners.refresh(&procfs, 1..=pids, &all(), false, &mut counts);
    assert!(refresh(NAMESPACES - 1));
    assert!(refresh(NAMESPACES), "a namespace that is new is read at once");
    for pid in 1..=NAMESPACES {
        fs::write(root.path().join(format!("{pid}/net/tcp")), line(80, "0A", u64::from(pid) + 1000)).unwrap();
    }
    let rounds: Vec<bool> = (0..ROUND + 200).map(|_| refresh(NAMESPACES)).collect();
    assert_eq!(rounds.iter().position(|&new| new), Some(ROUND as usize - 2), "not before they are due");
    assert_eq!(rounds.iter().filter(|&&new| new).count(), 50, "3 at a time");
    assert!(listeners.ports.keys().all(|&inode| inode > 1000), "all in the end");
    listeners.refresh(&procfs, 1..=1, &all(), false, &mut counts);
    assert_eq!((listeners.ports.len(), listeners.namespaces.len()), (1, 1), "those that are gone are forgotten");
}

#[test]
fn a_process_that_ends_meanwhile_hides_no_namespace() {
    let root = tempfile::tempdir().unwrap();
    process(root.path(), 1, 100, "", &[]);
    fs::remove_file(root.path().join("1/net/tcp")).unwrap();
    process(root.path(), 2, 100, &line(80, "0A", 5), &[5]);
    let procfs = ProcFs::new(root.path());
    let mut listeners = Listeners::default();
    assert!(listeners.refresh(&procfs, 1..=2, &all(), true, &mut Counts::default()));
    assert_eq!(listeners.held_by(&procfs, 2, &mut Counts::default()), [80]);
}

#[test]
fn reads_listening_sockets_and_no_others() {
    let text = format!("{HEADER}{}{}{}", line(80, "0A", 1), line(81, "01", 2), line(82, "0A", 3));
    assert_eq!(table(&text), [(1, 80), (3, 82)]);
    let v6 = "   1: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n";
    assert_eq!(table(v6), [(4711, 443)]);
    assert_eq!(table(&line(80, "0A", 0)), []);
}

#[test]
fn a_hundred_thousand_connections_are_not_read() {
    struct Endless(usize);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += buffer.len();
            buffer.fill(b'\n');
            Ok(buffer.len())
        }
    }
    let mut table = BufReader::with_capacity(1024, Endless(0));
    read_table(&mut table, &all(), &mut FxHashMap::default());
    assert!(table.get_ref().0 <= 2048, "read {}", table.get_ref().0);
}

#[test]
fn descriptors_are_bounded_and_the_cut_is_counted() {
    let root = tempfile::tempdir().unwrap();
    let inodes: Vec<u64> = (1..=MAX_DESCRIPTORS as u64 + 1).collect();
    process(root.path(), 1, 1, &line(80, "0A", 1), &inodes);
    let procfs = ProcFs::new(root.path());
    let mut listeners = Listeners::default();
    let mut counts = Counts::default();
    listeners.refresh(&procfs, 1..=1, &all(), true, &mut counts);
    listeners.held_by(&procfs, 1, &mut counts);
    assert_eq!(counts.descriptors_capped, 1);
}

proptest! {
    #[test]
    fn arbitrary_tables_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read_table(bytes.as_slice(), &all(), &mut FxHashMap::default());
        let _ = socket_inode(&bytes);
    }

    #[test]
    fn near_misses_never_panic(text in "( *[0-9]{0,3}: [0-9A-F:]{0,14} [0-9A-F:]{0,14} (0A|01) [0-9A-F :]{0,40}\n){0,9}") {
        read_table(text.as_bytes(), &all(), &mut FxHashMap::default());
    }
}
