//! Children of selected processes.

use super::*;

#[test]
fn a_child_is_selected_with_its_parents_data_and_keeps_it_over_exec() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app");
    let mut table = table(&tree, &excluding(executable("/srv/secret"), only([named("front", executable("/srv/app"))])));
    table.scan(Walk::Periodic).unwrap();
    // Nothing of the children is in /proc: fork needs no more than the event.
    assert_eq!(told(&table.forked(10, 11, exact(110))), ["+11"]);
    assert_eq!(told(&table.forked(11, 12, exact(120))), ["+12"]);
    let (parent, child) = (process(&table, 10).clone(), process(&table, 12).clone());
    assert!(Arc::ptr_eq(&parent.program, &child.program), "a fork costs no copy of what is known");
    tree.run(12, 11, 120, "/bin/tool");
    assert_eq!(told(&table.executed(12, exact(120), b"/bin/tool", b"")), ["~12"]);
    let child = process(&table, 12);
    assert_eq!((child.entry.name.as_deref(), child.program.executable.as_str()), (Some("front"), "/bin/tool"));
    tree.run(11, 10, 110, "/srv/secret");
    assert_eq!(told(&table.executed(11, exact(110), b"/srv/secret", b"")), ["-11"]);
    tree.run(13, 11, 130, "/bin/tool");
    assert_eq!(told(&table.forked(11, 13, exact(130))), [""; 0], "an excluded parent selects nobody");
}

#[test]
fn a_child_that_matches_by_itself_has_its_own_data() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app");
    let mut table =
        table(&tree, &only([named("front", executable("/srv/app")), named("worker", executable("/srv/work"))]));
    table.scan(Walk::Periodic).unwrap();
    table.forked(10, 11, exact(110));
    tree.run(11, 10, 110, "/srv/work");
    assert_eq!(told(&table.executed(11, exact(110), b"/srv/work", b"")), ["~11"]);
    assert_eq!(process(&table, 11).entry.name.as_deref(), Some("worker"));
}

#[test]
fn the_order_of_a_walk_does_not_matter() {
    let tree = Tree::new();
    // Descendants whose pids and names come before, between and after; 20 is not a descendant.
    tree.run(50, 1, 100, "/srv/app").run(10, 50, 110, "/bin/a").run(90, 10, 120, "/bin/b").run(20, 1, 100, "/bin/c");
    tree.run(5, 90, 130, "/bin/d");
    let mut table = table(&tree, &only([executable("/srv/app")]));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+10", "+5", "+50", "+90"]);
}

#[test]
fn who_is_selected_late_brings_its_children_along() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/srv/app")
        .run(11, 10, 110, "/srv/app")
        .run(12, 11, 120, "/srv/app")
        .run(13, 1, 130, "/srv/app");
    let mut table = table(&tree, &only([port(80)]));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), [""; 0]);
    assert_eq!(told(&table.listening(10, exact(100), 80)), ["+10", "+11", "+12"]);
}

#[test]
fn orphans_and_services_do_not_descend_from_init() {
    let tree = Tree::new();
    tree.run(1, 0, 1, "/sbin/init").run(10, 1, 100, "/srv/app");
    let mut table = table(&tree, &only([executable("/sbin/init")]));
    assert_eq!(told(&table.scan(Walk::Periodic).unwrap()), ["+1"]);
    assert_eq!(told(&table.forked(1, 11, exact(110))), ["+11"], "a copy of init runs init's program");
    tree.run(12, 1, 120, "/srv/app");
    assert_eq!(told(&table.executed(12, exact(120), b"/srv/app", b"")), [""; 0]);
}

#[test]
fn a_parent_that_ended_before_it_was_selected_selects_nobody() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/bin/sh").run(11, 10, 110, "/bin/a");
    let mut table = table(&tree, &only([executable("/srv/app")]));
    table.scan(Walk::Periodic).unwrap();
    // The parent ended; its pid is the selected program now.
    tree.reparent(11, 1, 110).run(10, 1, 200, "/srv/app");
    assert_eq!(told(&table.executed(10, exact(200), b"/srv/app", b"")), ["+10"]);
}

#[test]
fn a_child_of_an_unknown_or_unselected_parent_is_judged_by_itself() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/bin/sh");
    let mut table = table(&tree, &only([executable("/srv/app"), pid(13)]));
    table.scan(Walk::Periodic).unwrap();
    tree.run(11, 9, 110, "/srv/app").run(13, 10, 130, "/bin/sh");
    assert_eq!(told(&table.forked(9, 11, exact(110))), ["+11"], "its parent was never seen");
    assert_eq!(told(&table.forked(10, 12, exact(120))), [""; 0]);
    assert_eq!(told(&table.forked(10, 13, exact(130))), ["+13"], "a rule names it");
}

#[test]
fn a_process_that_was_adopted_descends_from_who_adopted_it() {
    let tree = Tree::new();
    tree.run(10, 1, 100, "/bin/sh").run(11, 10, 110, "/bin/a").run(20, 1, 120, "/srv/app");
    let mut table = table(&tree, &only([port(80)]));
    table.scan(Walk::Periodic).unwrap();
    tree.end(10).reparent(11, 20, 110);
    table.scan(Walk::Periodic).unwrap();
    assert_eq!(told(&table.listening(20, exact(120), 80)), ["+11", "+20"]);
}
