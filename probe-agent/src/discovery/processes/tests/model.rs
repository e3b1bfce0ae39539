//! Any sequence of events, true or not, leaves the table consistent.

use proptest::prelude::*;
use rustc_hash::FxHashSet;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Appear { pid: u32, parent: u32, start: u64, program: usize },
    Vanish(u32),
    Fork { parent: u32, child: u32, start: u64 },
    Exec { pid: u32, start: u64, name: Vec<u8>, arguments: Vec<u8> },
    Listen { pid: u32, start: u64, port: u16 },
    Exit { pid: u32, start: u64 },
    Ignore(u32),
    Scan(Walk),
    Reconfigure(Discovery),
    Reap,
}

const PROGRAMS: [&str; 3] = ["/srv/app", "/srv/secret", "/srv/other"];

fn step() -> impl Strategy<Value = Step> {
    let pid = || 1_u32..6;
    let start = || prop_oneof![Just(100_u64), Just(200), Just(u64::MAX / 20_000_000)];
    prop_oneof![
        (pid(), pid(), start(), 0..3_usize).prop_map(|(pid, parent, start, program)| Step::Appear {
            pid,
            parent,
            start,
            program
        }),
        pid().prop_map(Step::Vanish),
        (pid(), pid(), start()).prop_map(|(parent, child, start)| Step::Fork { parent, child, start }),
        (pid(), start(), proptest::collection::vec(any::<u8>(), 0..12), proptest::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(pid, start, name, arguments)| Step::Exec { pid, start, name, arguments }),
        (pid(), start(), 79..82_u16).prop_map(|(pid, start, port)| Step::Listen { pid, start, port }),
        (pid(), start()).prop_map(|(pid, start)| Step::Exit { pid, start }),
        pid().prop_map(Step::Ignore),
        prop_oneof![Just(Walk::Periodic), Just(Walk::Thorough)].prop_map(Step::Scan),
        Just(Step::Reap),
        rules().prop_map(Step::Reconfigure),
    ]
}

fn rules() -> impl Strategy<Value = Discovery> {
    prop_oneof![
        Just(everything()),
        Just(only([executable("/srv/app")])),
        Just(only([port(80), named("n", pid(3))])),
        Just(excluding(port(81), everything())),
    ]
    .prop_map(|discovery| Discovery {
        exclude: [discovery.exclude, vec![executable("/srv/secret")]].concat(),
        ..discovery
    })
}

fn apply(table: &mut Processes, tree: &Tree, step: Step) -> Vec<Change> {
    match step {
        Step::Appear { pid, parent, start, program } => {
            tree.exec(pid, parent, start, PROGRAMS[program]);
            Vec::new()
        }
        Step::Vanish(pid) => {
            let _ = std::fs::remove_dir_all(tree.path().join(pid.to_string()));
            Vec::new()
        }
        Step::Fork { parent, child, start } => table.forked(parent, child, exact(start)),
        Step::Exec { pid, start, name, arguments } => table.executed(pid, exact(start), &name, &arguments),
        Step::Listen { pid, start, port } => table.listening(pid, exact(start), port),
        Step::Exit { pid, start } => table.exited(pid, exact(start)),
        Step::Ignore(pid) => table.ignore(pid),
        Step::Scan(walk) => table.scan(walk).unwrap(),
        Step::Reconfigure(discovery) => table.reconfigure(&discovery).unwrap(),
        Step::Reap => table.reap(Instant::now()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn changes_and_table_agree(discovery in rules(), steps in proptest::collection::vec(step(), 0..60)) {
        let tree = Tree::new();
        let limits = Limits { selected: 4, unselected: 3, grace: Duration::ZERO, facts_bytes: 1 << 20 };
        let mut table = Processes::new(tree.procfs(), &discovery, limits);
        // What a caller knows who only follows the changes.
        let mut watched: FxHashSet<(u32, ProcessId)> = FxHashSet::default();
        let mut leaving: FxHashSet<ProcessId> = FxHashSet::default();
        let mut last = 0;
        for step in steps {
            for change in apply(&mut table, &tree, step) {
                match change {
                    Change::Selected(process) => {
                        prop_assert!(process.id.get() > last, "ids count up");
                        last = process.id.get();
                        prop_assert!(process.program.executable != "/srv/secret");
                        prop_assert!(watched.iter().all(|&(pid, _)| pid != process.pid), "one process for a pid");
                        watched.insert((process.pid, process.id));
                    }
                    Change::Updated(process) => {
                        prop_assert!(process.program.executable != "/srv/secret");
                        prop_assert!(watched.contains(&(process.pid, process.id)));
                    }
                    Change::Deselected { id, pid, .. } => {
                        prop_assert!(watched.remove(&(pid, id)));
                        leaving.insert(id);
                    }
                    Change::Ended { id, .. } => prop_assert!(leaving.remove(&id)),
                }
            }
            prop_assert_eq!(table.selected(), watched.len());
            prop_assert!(watched.len() <= 4 && leaving.len() <= 4);
            for &(pid, id) in &watched {
                let start = table.get(id).unwrap().start_boottime_ns;
                prop_assert_eq!(table.lookup(pid, start), Some(id));
            }
            prop_assert!(table.known.len() == watched.len() + leaving.len());
            prop_assert!(table.ids.len() <= table.known.len());
            prop_assert!(table.live.len() <= 4 + 3);
        }
    }
}
