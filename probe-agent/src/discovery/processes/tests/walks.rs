//! What walks through `/proc` find.

use super::*;

#[test]
fn without_entries_all_programs_are_selected_and_nothing_else() {
    let tree = Tree::new();
    tree.run(1, 0, 10, "/sbin/init").kernel_thread(2).run(30, 1, 20, "/srv/app").run(40, 1, 30, "/usr/bin/beyla");
    std::os::unix::fs::symlink("30", tree.path().join("self")).unwrap();
    let mut table = table(&tree, &excluding(executable("/usr/bin/beyla"), everything()));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+1"], "30 is this program itself, 40 is excluded");
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), [""; 0], "nothing new");
    assert_eq!(table.lookup(30, exact(20)), None);
    assert_eq!(table.selected(), 1);
}

#[test]
fn a_selected_process_is_described_in_full() {
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let tree = Tree::new();
    tree.run(7, 1, 500, "/usr/bin/python3.11").container(7, ID);
    let exports = Exports { traces: true, metrics: false };
    let selector = Selector { namespace: Some("shop".to_owned()), exports, ..executable("/usr/bin/python3.11") };
    let mut table = table(&tree, &only([named("front", selector)]));
    let changes = table.scan(Walk::Periodic).unwrap();
    let [Change::Selected(process)] = changes.as_slice() else { panic!("{changes:?}") };
    let wire = spantap_proto::v1::Process::from(process);
    assert_eq!((wire.id, wire.pid), (1, 7));
    assert_eq!(wire.start_boottime_ns, Ticks(500).nanoseconds());
    assert_eq!(wire.executable, "/usr/bin/python3.11");
    assert_eq!(process.program.command_line, ["/usr/bin/python3.11", "--of", "7"]);
    let sent = prost::Message::encode_to_vec(&wire);
    assert!(!sent.windows(4).any(|bytes| bytes == b"--of"), "arguments stay in the agent");
    assert!(!sent.windows(3).any(|bytes| bytes == b"A=1"), "so do variables that are not OTEL's");
    assert_eq!(wire.environment.into_iter().collect::<Vec<_>>(), [("OTEL_SERVICE_NAME".into(), "service-7".into())]);
    assert_eq!((wire.container_id.as_str(), wire.language.as_str()), (ID, "python"));
    assert_eq!((wire.service_name.as_str(), wire.service_namespace.as_str()), ("front", "shop"));
    assert_eq!((wire.export_traces, wire.export_metrics), (true, false));
    assert!(wire.start_realtime_ns > 0);
}

#[test]
fn what_no_event_told_is_found_later() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 1, 110, "/srv/other").run(12, 1, 120, "/srv/app");
    let mut table = table(&tree, &only([executable("/srv/app")]));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+10", "+12"]);
    // 10 ended, its pid is another process now; 11 became the program; 12 is as before; 13 is new.
    tree.run(10, 1, 200, "/srv/other").exec(11, 1, 110, "/srv/app").run(13, 1, 210, "/srv/app");
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+11", "+13", "-10"]);
    assert_eq!(table.lookup(10, exact(200)), None);
    tree.end(12);
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["-12", ".10"]);
    assert_eq!(table.selected(), 2);
}

#[test]
fn listeners_are_found_by_their_sockets() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 1, 110, "/srv/app").run(12, 1, 120, "/srv/app");
    tree.socket(501, 8080).socket(502, 9090).hold(10, 501).hold(11, 502);
    let mut table = table(&tree, &only([port(8080)]));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+10"]);
    tree.socket(503, 8080).hold(12, 503);
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), [""; 0], "an event tells of new listeners");
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), ["+12"], "unless events were lost");
}

#[test]
fn a_socket_that_was_handed_over_is_found_by_a_full_walk() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 1, 110, "/srv/app").socket(501, 8080).hold(10, 501);
    let mut table = table(&tree, &only([port(8080)]));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+10"]);
    tree.hold(11, 501);
    let later: Vec<String> = (0..12).flat_map(|_| told(&table.scan(Walk::Periodic).unwrap())).collect();
    assert_eq!(later, ["+11"]);
}

#[test]
fn a_later_port_can_bring_another_name_or_an_exclusion() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 1, 110, "/srv/app").socket(501, 80).hold(10, 501).hold(11, 501);
    let discovery = excluding(port(82), only([named("first", port(80)), named("second", port(81))]));
    let mut table = table(&tree, &discovery);
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+10", "+11"]);
    tree.socket(502, 81).hold(10, 502).socket(503, 82).hold(11, 503);
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), ["-11", "~10"]);
    assert_eq!(process(&table, 10).entry.name.as_deref(), Some("second"));
    assert_eq!(table.lookup(11, exact(110)), None, "what an excluded process does is nobody's");
}

#[test]
fn files_that_are_missing_do_not_stop_a_walk() {
    let tree = Tree::new();
    for (pid, file) in [(10, "stat"), (11, "exe"), (12, "environ"), (13, "cmdline"), (14, "cgroup"), (15, "ns/net")] {
        tree.run(pid, 1, 100, "/srv/app").remove(pid, file);
    }
    std::fs::write(tree.path().join("12/stat"), "no stat at all").unwrap();
    let mut table = table(&tree, &only([executable("/srv/app"), port(80)]));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+13", "+14", "+15"]);
    assert!(table.counts().gone > 0);
}

#[test]
fn an_unreadable_proc_changes_nothing() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app");
    let mut table = table(&tree, &everything());
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+10"]);
    let moved = tree.path().with_extension("moved");
    std::fs::rename(tree.path(), &moved).unwrap();
    assert!(matches!(table.scan(Walk::Periodic), Err(crate::discovery::ReadError::Gone)));
    assert!(table.lookup(10, exact(100)).is_some());
    std::fs::rename(&moved, tree.path()).unwrap();
}

#[test]
fn what_was_incomplete_is_read_again_and_lost_permission_takes_nothing_away() {
    let tree = Tree::new();
    // In the midst of exec: the executable is the new one, arguments and stack are not there yet.
    tree.run(10, 1, 100, "/srv/app").image(10, 100, 0).remove(10, "cmdline");
    let mut table = table(&tree, &everything());
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+10"]);
    assert!(process(&table, 10).program.command_line.is_empty());
    tree.run(10, 1, 100, "/srv/app");
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["~10"]);
    assert_eq!(process(&table, 10).program.command_line.len(), 3);
    tree.image(10, 100, 0).remove(10, "exe").remove(10, "environ");
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), [""; 0]);
    assert_eq!(process(&table, 10).program.executable, "/srv/app");
}
