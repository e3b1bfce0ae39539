//! Other rules while running.

use super::*;

#[test]
fn who_both_rules_select_keeps_its_number() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 1, 110, "/srv/old").run(12, 1, 120, "/srv/new");
    let mut table = table(&tree, &only([executable("/srv/app"), executable("/srv/old")]));
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), ["+10", "+11"]);
    let (stays, goes) = (table.lookup(10, exact(100)), table.lookup(11, exact(110)).unwrap());
    let changes = table.reconfigure(&only([executable("/srv/app"), executable("/srv/new")])).unwrap();
    assert_eq!(told(&changes), ["+12", "-11"]);
    let over = changes.iter().find_map(|change| match change {
        Change::Deselected { id, goes_on, .. } => Some((*id, *goes_on)),
        _ => None,
    });
    assert_eq!(over, Some((goes, true)), "it has not ended");
    assert_eq!(table.lookup(10, exact(100)), stays);
    assert_eq!(table.lookup(11, exact(110)), None);
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), [".11"]);
    assert_eq!(told(&table.executed(11, exact(110), b"/srv/old", b"")), [""; 0], "the new rules hold for events");
}

#[test]
fn what_an_entry_says_is_told_anew() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(20, 10, 200, "/srv/helper");
    let mut table = table(&tree, &only([named("first", executable("/srv/app"))]));
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), ["+10", "+20"], "20 by its parent");
    let id = table.lookup(20, exact(200));
    let changes = table.reconfigure(&only([named("second", executable("/srv/app"))])).unwrap();
    assert_eq!(told(&changes), ["~10", "~20"]);
    assert_eq!(table.lookup(20, exact(200)), id);
    assert_eq!(process(&table, 20).entry.name.as_deref(), Some("second"));
    assert_eq!(told(&table.reconfigure(&only([named("second", executable("/srv/app"))])).unwrap()), [""; 0]);
}

#[test]
fn neither_the_past_nor_a_parent_of_the_past_selects() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(20, 10, 200, "/srv/helper");
    let mut table = table(&tree, &only([executable("/srv/app")]));
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), ["+10", "+20"]);
    assert_eq!(told(&table.reconfigure(&only([executable("/srv/other")])).unwrap()), ["-10", "-20"]);
    assert_eq!(table.selected(), 0);
    // A parent that is listed after its child, by number: 9 forks nobody, 30 is the parent of 9.
    tree.run(30, 1, 300, "/srv/other").run(9, 30, 310, "/srv/helper");
    assert_eq!(told(&table.reconfigure(&only([executable("/srv/other")])).unwrap()), ["+30", "+9", ".10", ".20"]);
}

#[test]
fn ports_that_nobody_asked_for_before_are_found() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 1, 110, "/srv/app");
    tree.socket(501, 8080).socket(502, 9090).hold(10, 501).hold(11, 502);
    let mut table = table(&tree, &only([port(8080)]));
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), ["+10"]);
    assert_eq!(told(&table.reconfigure(&only([port(9090)])).unwrap()), ["+11", "-10"]);
    assert_eq!(told(&table.listening(10, exact(100), 8080)), [""; 0], "nobody asks for it any more");
    assert_eq!(told(&table.reconfigure(&everything()).unwrap()), ["+10", ".10"]);
    assert_eq!(told(&table.reconfigure(&excluding(port(8080), everything())).unwrap()), ["-10"]);
}

#[test]
fn what_cannot_be_judged_is_observed_no_more() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app").run(11, 1, 110, "/srv/app");
    let mut table = table(&tree, &everything());
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), ["+10", "+11"]);
    std::fs::write(tree.path().join("10/stat"), "no stat at all").unwrap();
    tree.end(11);
    assert_eq!(told(&table.reconfigure(&excluding(executable("/srv/no"), everything())).unwrap()), ["-10", "-11"]);
}

#[test]
fn without_proc_the_old_rules_go_on() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app");
    let mut table = table(&tree, &only([executable("/srv/app")]));
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), ["+10"]);
    let moved = tree.path().with_extension("moved");
    std::fs::rename(tree.path(), &moved).unwrap();
    assert!(table.reconfigure(&only([executable("/srv/other")])).is_err());
    std::fs::rename(&moved, tree.path()).unwrap();
    assert_eq!(told(&table.scan(Walk::Thorough).unwrap()), [""; 0]);
    assert_eq!(table.selected(), 1);
}
