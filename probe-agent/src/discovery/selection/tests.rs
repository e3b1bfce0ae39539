#![allow(clippy::unwrap_used)]
use spantap_config::{Glob, PidRange, PortRange, Sampler, ServiceRoutes};

use super::*;
use crate::discovery::{container, language::Language};

fn glob(text: &str) -> Option<Glob> {
    Some(Glob::new(text).unwrap())
}

fn port(port: u16) -> Vec<PortRange> {
    vec![PortRange { first: port, last: port }]
}

fn rules(instrument: Vec<Selector>, exclude: Vec<Selector>) -> Selection {
    Selection::new(&Discovery { instrument, exclude, ..Discovery::default() })
}

fn server() -> Candidate {
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    Candidate {
        pid: 42,
        executable: Some("/srv/app".to_owned()),
        arguments: Some("--fast".to_owned()),
        container: Some(container::from_cgroup(format!("0::/docker/{id}").as_bytes())),
        language: Some(Some(Language::Go)),
        ports: vec![8080, 9000],
    }
}

fn selects(selector: &Selector, candidate: &Candidate) -> bool {
    rules(vec![selector.clone()], vec![]).judge(candidate, None).is_some()
}

type Criterion = (Selector, Selector, fn(&mut Candidate));

/// Every criterion once so that it holds for [`server`], once so that it does not, and a way to hide the fact.
fn criteria() -> Vec<Criterion> {
    let none = Selector::default;
    vec![
        (Selector { open_ports: port(8080), ..none() }, Selector { open_ports: port(80), ..none() }, |c| {
            c.ports.clear()
        }),
        (Selector { exe_path: glob("/srv/app"), ..none() }, Selector { exe_path: glob("/srv/b"), ..none() }, |c| {
            c.executable = None
        }),
        (Selector { cmd_args: glob("--fast"), ..none() }, Selector { cmd_args: glob("--slow"), ..none() }, |c| {
            c.arguments = None
        }),
        (
            Selector { languages: vec!["java".into(), "Go".into()], ..none() },
            Selector { languages: vec!["java".into()], ..none() },
            |c| c.language = None,
        ),
        (
            Selector { target_pids: vec![PidRange { first: 40, last: 42 }], ..none() },
            Selector { target_pids: vec![PidRange { first: 43, last: 50 }], ..none() },
            |c| c.pid = 1,
        ),
    ]
}

fn both(a: &Selector, b: &Selector) -> Selector {
    Selector {
        open_ports: [a.open_ports.clone(), b.open_ports.clone()].concat(),
        exe_path: a.exe_path.clone().or(b.exe_path.clone()),
        cmd_args: a.cmd_args.clone().or(b.cmd_args.clone()),
        languages: [a.languages.clone(), b.languages.clone()].concat(),
        target_pids: [a.target_pids.clone(), b.target_pids.clone()].concat(),
        ..Selector::default()
    }
}

#[test]
fn each_criterion_selects_by_itself_and_only_if_it_holds() {
    for (holds, fails, hide) in criteria() {
        assert!(selects(&holds, &server()), "{holds:?}");
        assert!(!selects(&fails, &server()), "{fails:?}");
        let mut hidden = server();
        hide(&mut hidden);
        assert!(!selects(&holds, &hidden), "{holds:?} unknown");
    }
}

#[test]
fn criteria_of_an_entry_must_all_hold() {
    for (index, (holds, _, _)) in criteria().iter().enumerate() {
        for (other, (also, fails, _)) in criteria().iter().enumerate() {
            if index != other {
                assert!(selects(&both(holds, also), &server()));
                assert!(!selects(&both(holds, fails), &server()), "{holds:?} and {fails:?}");
            }
        }
    }
}

#[test]
fn any_port_of_an_entry_selects_the_process_as_a_whole() {
    let ports = vec![PortRange { first: 1, last: 80 }, PortRange { first: 8000, last: 8999 }];
    let selector = Selector { open_ports: ports, ..Selector::default() };
    assert!(selects(&selector, &server()));
    assert!(!selects(&selector, &Candidate { ports: vec![9000], ..server() }));
}

#[test]
fn containers_only_asks_for_a_container() {
    let selector = Selector { containers_only: true, ..Selector::default() };
    assert!(selects(&selector, &server()));
    assert!(!selects(&selector, &Candidate { container: Some(None), ..server() }));
    assert!(!selects(&selector, &Candidate { container: None, ..server() }));
}

#[test]
fn generic_is_every_other_language() {
    let selector = Selector { languages: vec!["generic".into()], ..Selector::default() };
    assert!(!selects(&selector, &server()));
    assert!(selects(&selector, &Candidate { language: Some(None), ..server() }));
}

#[test]
fn without_entries_everything_is_selected_that_is_not_excluded() {
    assert_eq!(rules(vec![], vec![]).judge(&Candidate::default(), None).unwrap().as_ref(), &Entry::default());
    let exclude = vec![Selector { exe_path: glob("/srv/app"), ..Selector::default() }];
    assert!(rules(vec![], exclude.clone()).judge(&server(), None).is_none());
    let other = Candidate { executable: Some("/srv/b".to_owned()), ..server() };
    assert!(rules(vec![], exclude).judge(&other, None).is_some());
}

#[test]
fn exclusions_win_over_entries_and_over_parents() {
    let parent = Arc::new(Entry::default());
    let entry = Selector { open_ports: port(8080), ..Selector::default() };
    for (holds, fails, _) in criteria() {
        assert!(rules(vec![entry.clone()], vec![holds.clone()]).judge(&server(), Some(&parent)).is_none(), "{holds:?}");
        assert!(rules(vec![entry.clone()], vec![fails.clone()]).judge(&server(), None).is_some(), "{fails:?}");
    }
    let exclude = Selector { exe_path: glob("/srv/secret"), ..Selector::default() };
    let unreadable = Candidate { executable: None, ..server() };
    assert!(rules(vec![entry], vec![exclude]).judge(&unreadable, None).is_none(), "it could be the excluded one");
}

#[test]
fn later_entries_override_what_they_say_and_nothing_else() {
    let traces = Exports { traces: true, metrics: false };
    let first = Selector {
        open_ports: port(8080),
        name: Some("a".into()),
        namespace: Some("n".into()),
        exports: traces,
        sampler: Some(Sampler::AlwaysOff),
        routes: ServiceRoutes { incoming: vec!["/a".into()], outgoing: vec!["/b".into()] },
        ..Selector::default()
    };
    let routes = ServiceRoutes { incoming: vec!["/c".into()], outgoing: vec![] };
    let second = Selector { exe_path: glob("/srv/app"), name: Some("b".into()), routes, ..Selector::default() };
    let no_match = Selector { open_ports: port(1), name: Some("c".into()), ..Selector::default() };
    let entry = rules(vec![first, second, no_match], vec![]).judge(&server(), None).unwrap();
    let routes = ServiceRoutes { incoming: vec!["/c".into()], outgoing: vec!["/b".into()] };
    let sampler = Some(Sampler::AlwaysOff);
    let expected = Entry { name: Some("b".into()), namespace: Some("n".into()), exports: traces, sampler, routes };
    assert_eq!(entry.as_ref(), &expected);
}

#[test]
fn a_child_that_matches_nothing_has_its_parents_data() {
    let parent = Arc::new(Entry { name: Some("parent".into()), ..Entry::default() });
    let own = Selector { open_ports: port(8080), ..Selector::default() };
    let rules = rules(vec![own], vec![]);
    let child = Candidate { ports: vec![], ..server() };
    assert_eq!(rules.judge(&child, Some(&parent)), Some(parent.clone()));
    assert_eq!(rules.judge(&server(), Some(&parent)).unwrap().name, None, "its own match stands by itself");
    assert_eq!(rules.judge(&child, None), None);
}

#[test]
fn the_kernel_is_told_what_the_rules_need() {
    let by_port = Selector { open_ports: port(443), exe_path: glob("/srv/app"), ..Selector::default() };
    let by_path = Selector { exe_path: glob("/srv/app"), ..Selector::default() };
    let of = |instrument: &[&Selector], exclude: &[&Selector]| Discovery {
        instrument: instrument.iter().map(|&s| s.clone()).collect(),
        exclude: exclude.iter().map(|&s| s.clone()).collect(),
        ..Discovery::default()
    };
    assert!(provisional_exec(&of(&[], &[])));
    assert!(provisional_exec(&of(&[&by_port, &by_path], &[])));
    assert!(!provisional_exec(&of(&[&by_port], &[&by_path])));
    assert!(interesting_ports(&of(&[&by_path], &[])).is_empty());
    assert!(interesting_ports(&of(&[&by_port], &[])).contains(443));
    assert!(interesting_ports(&of(&[], &[&by_port])).contains(443), "a listener may become excluded");
    let needs = Selection::new(&of(&[&by_path], &[])).needs();
    assert_eq!(needs, Needs::default());
    assert!(Selection::new(&of(&[], &[&by_port])).needs().ports);
}
