//! Ids, grace periods and bounds.

use super::*;

fn limited(tree: &Tree, limits: Limits) -> Processes {
    Processes::new(tree.procfs(), &everything(), limits)
}

#[test]
fn an_id_outlives_its_process_for_the_grace_period() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app");
    let grace = Duration::from_secs(10);
    let mut table = limited(&tree, Limits { grace, ..Limits::default() });
    table.scan(Walk::Periodic).unwrap();
    let id = table.lookup(10, exact(100)).unwrap();
    let ended = Instant::now();
    assert_eq!(told(&table.exited(10, exact(100))), ["-10"]);
    assert_eq!(told(&table.reap(ended + Duration::from_secs(9))), [""; 0]);
    assert_eq!(table.lookup(10, exact(100)), Some(id));
    assert_eq!(table.get(id).unwrap().program.executable, "/srv/app");
    let changes = table.reap(Instant::now() + grace);
    assert!(matches!(changes.as_slice(), [Change::Ended { id: over, pid: 10 }] if *over == id));
    assert_eq!(table.lookup(10, exact(100)), None, "also not from the last answer");
    assert!(table.get(id).is_none());
    assert_eq!(table.iter().count(), 0);
}

#[test]
fn a_reused_pid_is_another_process_while_the_first_is_in_its_grace_period() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app");
    let mut table = limited(&tree, Limits::default());
    table.scan(Walk::Periodic).unwrap();
    let first = table.lookup(10, exact(100)).unwrap();
    table.exited(10, exact(100));
    tree.run(10, 1, 200, "/srv/new");
    table.executed(10, exact(200), b"/srv/new", b"");
    let second = table.lookup(10, exact(200)).unwrap();
    assert_ne!(first, second);
    assert_eq!(table.lookup(10, exact(100)), Some(first));
    assert_eq!(table.lookup(10, exact(300)), None);
    table.reap(Instant::now() + Duration::from_secs(60));
    assert_eq!((table.lookup(10, exact(100)), table.lookup(10, exact(200))), (None, Some(second)));
}

#[test]
fn a_full_table_takes_no_more_and_counts_it() {
    let tree = Tree::new();
    for pid in 10..20 {
        tree.run(pid, 1, 100, "/srv/app");
    }
    let mut table = limited(&tree, Limits { selected: 8, ..Limits::default() });
    assert_eq!(table.scan(Walk::Periodic).unwrap().len(), 8);
    assert_eq!((table.selected(), table.counts().table_full), (8, 2));
    let one = table.iter().next().unwrap().pid;
    tree.end(one);
    table.exited(one, exact(100));
    assert_eq!(table.selected(), 7);
    assert_eq!(table.scan(Walk::Periodic).unwrap().len(), 1, "the next walk takes who found no place");
}

#[test]
fn processes_that_come_and_go_quickly_cannot_fill_the_grace_period() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app");
    let mut table = limited(&tree, Limits { selected: 16, ..Limits::default() });
    table.scan(Walk::Periodic).unwrap();
    let mut ended = 0;
    for n in 0..1000 {
        table.forked(10, 1000 + n, exact(u64::from(n)));
        let changes = table.exited(1000 + n, exact(u64::from(n)));
        ended += changes.iter().filter(|change| matches!(change, Change::Ended { .. })).count();
        assert!(table.known.len() <= 33 && table.ids.len() <= 33 && table.leaving.len() <= 16);
    }
    assert_eq!(ended, 1000 - 16, "each is told to be over, early if need be");
    assert_eq!(table.live.len(), 1);
}

#[test]
fn the_unselected_are_bounded_too() {
    let tree = Tree::new();
    for pid in 10..20 {
        tree.run(pid, 1, 100, "/srv/app");
    }
    let limits = Limits { unselected: 4, ..Limits::default() };
    let mut table = Processes::new(tree.procfs(), &only([executable("/srv/other")]), limits);
    assert_eq!(table.scan(Walk::Periodic).unwrap().len(), 0);
    assert_eq!(table.live.len(), 4);
    table.forked(10, 100, exact(300));
    assert_eq!(table.live.len(), 4);
    tree.exec(19, 1, 100, "/srv/other");
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+19"], "who is not remembered is found nevertheless");
}

#[test]
fn memory_for_facts_is_bounded_and_given_back() {
    let tree = Tree::new();
    for pid in 10..40 {
        tree.run(pid, 1, 100, "/srv/app");
    }
    let limits = Limits { facts_bytes: 4096, grace: Duration::ZERO, ..Limits::default() };
    let mut table = limited(&tree, limits);
    table.scan(Walk::Periodic).unwrap();
    let counts = table.counts();
    assert!(counts.facts_trimmed > 0 && counts.table_full > 0, "{counts:?}");
    let selected = table.selected();
    assert!(selected > 0 && selected < 30);
    for pid in 10..40 {
        tree.end(pid);
    }
    table.scan(Walk::Periodic).unwrap();
    table.reap(Instant::now());
    assert_eq!(table.iter().count(), 0);
    tree.run(50, 1, 100, "/srv/app");
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+50"]);
    assert_eq!(process(&table, 50).program.environment.len(), 1, "there is room again");
}

#[test]
fn ids_are_never_given_twice() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 1, 100, "/srv/app");
    let mut table = limited(&tree, Limits::default());
    table.last_id = u32::MAX - 1;
    table.scan(Walk::Periodic).unwrap();
    let ids: Vec<u32> = table.iter().map(|process| process.id.get()).collect();
    assert_eq!(ids, [u32::MAX]);
    assert_eq!(table.counts().table_full, 1);
}
