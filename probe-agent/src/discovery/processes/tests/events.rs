//! What the kernel's events lead to.

use super::*;

#[test]
fn a_new_program_is_judged_when_it_starts() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/bin/sh");
    let mut table = table(&tree, &only([executable("/srv/app")]));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), [""; 0]);
    tree.exec(10, 1, 100, "/srv/app");
    assert_eq!(told(&table.executed(10, exact(100), b"./app", b"./app\0")), ["+10"]);
    assert_eq!(process(&table, 10).program.executable, "/srv/app", "as /proc has it, not as it was called");
    assert_eq!(table.lookup(10, exact(100)), table.lookup(10, Ticks(100).nanoseconds()));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), [""; 0], "the walk finds what the event told");
}

#[test]
fn a_program_that_is_gone_already_is_known_by_its_event() {
    let tree = Tree::new();
    let mut table = table(&tree, &excluding(executable("/bin/secret"), everything()));
    assert_eq!(told(&table.executed(10, exact(100), b"/usr/bin/python3", b"python3\0job.py\0")), ["+10"]);
    let process = process(&table, 10).clone();
    assert_eq!(process.program.executable, "/usr/bin/python3");
    assert_eq!(process.program.command_line, ["python3", "job.py"]);
    assert_eq!(process.program.language.unwrap().as_str(), "python");
    assert!(process.program.environment.is_empty() && process.program.container_id.is_none());
    assert_eq!(told(&table.exited(10, exact(100))), ["-10"]);
    assert_eq!(table.lookup(10, exact(100)), Some(process.id), "its events may still be under way");
    assert_eq!(told(&table.executed(11, exact(110), b"/bin/secret", b"")), [""; 0]);
    assert_eq!(told(&table.executed(12, exact(120), b"", b"")), [""; 0], "it could be the excluded one");
}

#[test]
fn rules_on_arguments_hold_for_what_the_event_told() {
    let tree = Tree::new();
    let arguments = Selector { cmd_args: Some(Glob::new("serve --fast").unwrap()), ..Selector::default() };
    let mut table = table(&tree, &only([arguments]));
    assert_eq!(told(&table.executed(10, exact(100), b"/srv/app", b"app\0serve\0--fast\0")), ["+10"]);
    assert_eq!(told(&table.executed(11, exact(110), b"/srv/app", b"app\0serve\0")), [""; 0]);
    tree.run(12, 1, 120, "/srv/app");
    assert_eq!(
        told(&table.executed(12, exact(120), b"/srv/app", b"app\0serve\0--fast\0")),
        [""; 0],
        "/proc has others"
    );
}

#[test]
fn an_event_of_an_earlier_process_does_not_count_for_the_next_with_its_pid() {
    let tree = Tree::new();
    tree.run(10, 1, 200, "/srv/app");
    let mut table = table(&tree, &everything());
    table.executed(10, exact(100), b"/srv/early", b"");
    assert_eq!(process(&table, 10).program.executable, "/srv/early", "/proc shows another process");
    let early = table.lookup(10, exact(100)).unwrap();
    let changes = table.scan(Walk::Periodic).unwrap();
    assert_eq!(told(&changes), ["+10", "-10"]);
    assert!(matches!(changes[0], Change::Deselected { id, .. } if id == early), "first the old one");
    assert_eq!(told(&table.exited(10, exact(100))), [""; 0], "known already");
    assert!(table.lookup(10, exact(200)).is_some_and(|id| id != early));
}

#[test]
fn listening_selects_by_port() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 1, 110, "/srv/app");
    let mut table = table(&tree, &only([port(8080), named("admin", port(8081))]));
    table.scan(Walk::Periodic).unwrap();
    assert_eq!(told(&table.listening(10, exact(100), 9999)), [""; 0]);
    assert_eq!(told(&table.listening(10, exact(100), 8080)), ["+10"]);
    assert_eq!(told(&table.listening(10, exact(100), 8080)), [""; 0]);
    assert_eq!(told(&table.listening(10, exact(100), 8081)), ["~10"]);
    assert_eq!(process(&table, 10).entry.name.as_deref(), Some("admin"));
    tree.run(12, 1, 120, "/srv/app");
    assert_eq!(told(&table.listening(12, exact(120), 8080)), ["+12"], "also if nothing was known of it");
    assert_eq!(told(&table.listening(13, exact(130), 8080)), [""; 0], "gone");
    assert_eq!(table.counts().gone, 1);
}

#[test]
fn who_listened_and_went_into_the_background_is_found_by_its_children() {
    let tree = Tree::new();
    // 10 listened, forked 11 and ended; 11 forked 12 and ended: all before the first event is read.
    tree.run(12, 1, 120, "/srv/app");
    let mut table = table(&tree, &only([port(8080)]));
    assert_eq!(told(&table.listening(10, exact(100), 8080)), [""; 0]);
    assert_eq!(told(&table.forked(10, 11, exact(110))), [""; 0]);
    assert_eq!(told(&table.exited(10, exact(100))), [""; 0]);
    assert_eq!(told(&table.forked(11, 12, exact(120))), ["+12"]);
    assert_eq!(told(&table.exited(11, exact(110))), [""; 0]);
    assert_eq!(told(&table.forked(12, 13, exact(130))), ["+13"], "as of any selected process");
    assert_eq!(told(&table.forked(99, 14, exact(140))), [""; 0]);
    assert!(table.lost_sight() && !table.lost_sight(), "a walk finds those whose events were missed");
}

#[test]
fn a_program_that_is_started_with_a_listening_socket_has_its_port() {
    let tree = Tree::new();
    tree.run(1, 0, 1, "/sbin/init").socket(501, 8080).hold(1, 501);
    let mut table = table(&tree, &only([port(8080)]));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+1"]);
    tree.run(10, 1, 100, "/srv/app").hold(10, 501).run(11, 1, 110, "/srv/app");
    assert_eq!(told(&table.executed(10, exact(100), b"/srv/app", b"")), ["+10"]);
    assert_eq!(
        told(&table.executed(11, exact(110), b"/srv/app", b"")),
        [""; 0],
        "init's other children are not servers"
    );
}

#[test]
fn another_program_is_told_and_the_same_is_not() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app");
    let mut table = table(&tree, &excluding(executable("/srv/secret"), everything()));
    table.scan(Walk::Periodic).unwrap();
    let id = table.lookup(10, exact(100));
    assert_eq!(told(&table.executed(10, exact(100), b"/srv/app", b"")), [""; 0]);
    tree.exec(10, 1, 100, "/srv/new");
    assert_eq!(told(&table.executed(10, exact(100), b"/srv/new", b"")), ["~10"]);
    assert_eq!(table.lookup(10, exact(100)), id, "the same process");
    assert_eq!(process(&table, 10).program.executable, "/srv/new");
    tree.exec(10, 1, 100, "/srv/secret");
    assert_eq!(told(&table.executed(10, exact(100), b"/srv/secret", b"")), ["-10"]);
    assert_eq!(table.lookup(10, exact(100)), None);
    assert_eq!(told(&table.reap(Instant::now())), [".10"]);
    tree.exec(10, 1, 100, "/srv/app");
    assert_eq!(told(&table.executed(10, exact(100), b"/srv/app", b"")), ["+10"]);
    assert_ne!(table.lookup(10, exact(100)), id, "an id that is over does not come back");
}

#[test]
fn spantap_itself_is_never_selected_but_the_next_process_with_its_pid_is() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/usr/bin/spantap").run(11, 1, 110, "/srv/app");
    let mut table = table(&tree, &everything());
    table.scan(Walk::Periodic).unwrap();
    assert_eq!(told(&table.ignore(10)), ["-10"]);
    assert_eq!(told(&table.executed(10, exact(100), b"/usr/bin/spantap", b"")), [""; 0]);
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), [".10"]);
    tree.run(10, 1, 200, "/srv/app");
    assert_eq!(told(&table.executed(10, exact(200), b"/srv/app", b"")), ["+10"]);
    assert_eq!(table.own, []);
    // However its end becomes known, it is not remembered for ever.
    assert_eq!(told(&table.ignore(11)), ["-11"]);
    table.exited(11, exact(110));
    assert_eq!(table.own, []);
    tree.run(12, 1, 120, "/usr/bin/spantap");
    table.ignore(12);
    tree.end(12);
    table.scan(Walk::Periodic).unwrap();
    assert_eq!(table.own, []);
}

#[test]
fn a_fork_event_alone_tells_that_a_pid_was_reused() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 10, 110, "/srv/app");
    let mut table = table(&tree, &everything());
    table.scan(Walk::Periodic).unwrap();
    assert_eq!(told(&table.forked(10, 11, exact(110))), [""; 0], "known");
    assert_eq!(told(&table.forked(10, 11, exact(120))), ["+11", "-11"], "the end of the first was lost");
}

#[test]
fn sockets_that_exec_closed_count_no_more() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app");
    let mut table = table(&tree, &excluding(port(80), everything()));
    table.scan(Walk::Periodic).unwrap();
    assert_eq!(told(&table.listening(10, exact(100), 80)), ["-10"]);
    tree.exec(10, 1, 100, "/srv/new");
    assert_eq!(told(&table.executed(10, exact(100), b"/srv/new", b"")), ["+10"]);
}
