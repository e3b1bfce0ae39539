use aya::{Btf, maps::Map};

use super::*;

/// The verifier of the running kernel takes every program, with room to its limits.
#[test]
fn the_verifier_takes_every_program() {
    if crate::privilege::check().is_err() || Btf::from_sys_fs().is_err() {
        eprintln!("SKIP: loading the probes needs root and a kernel with BTF");
        return;
    }
    for hooks in [Hooks::Auto, Hooks::Fentry, Hooks::Tracepoint, Hooks::Kprobe] {
        verify(hooks);
    }
}

/// Each program on functions of user space has the tail call of `probes/tls_entries.h`: without it kernels from 6.13 on may crash.
fn keeps_its_stack(probes: &Probes) {
    let Some(Map::ProgramArray(none)) = probes.programs.map("no_programs") else { panic!("no map no_programs") };
    let none = none.info().unwrap().id();
    for name in tls::PROGRAMS.iter().copied() {
        let info = probes.programs.program(name).unwrap().info();
        if info.is_err() && is_off(probes, Part::of(name)) {
            continue;
        }
        let maps = info.unwrap().map_ids().unwrap();
        assert!(maps.is_none_or(|maps| maps.contains(&none)), "{name} has no STACK_OF_THE_THREAD");
    }
}

fn is_off(probes: &Probes, part: Part) -> bool {
    probes.features().iter().any(|feature| feature.name == part.feature() && !feature.on)
}

fn verify(hooks: Hooks) {
    let links = Some(tls::Links { tokio: true });
    let setup = Setup {
        hooks,
        btf: None,
        ring_buffer_bytes: 1 << 20,
        head_bytes: 4096,
        provisional_exec: false,
        ports: &[0; 1024],
        links,
    };
    let mut probes = match Probes::start(setup) {
        Ok(probes) => probes,
        Err(error) => {
            assert_ne!(hooks, Hooks::Auto, "{error}");
            eprintln!("SKIP: {hooks:?} cannot be had on this kernel: {error}");
            return;
        }
    };
    if probes.set.without_tls().is_none() {
        probes.load_tls(links).unwrap();
        // Where the kernel does not take those of one runtime, nothing else is lost.
        for part in Part::LINKS {
            match probes.features().iter().find(|feature| feature.name == part.feature()) {
                Some(v1::Feature { on: false, reason, name }) => eprintln!("SKIP: {name}: {reason}"),
                Some(_) => {}
                None => panic!("no feature {}", part.feature()),
            }
        }
        keeps_its_stack(&probes);
    }
    assert!(probes.verified_instructions().len() > 8);
    for (program, instructions) in probes.verified_instructions() {
        assert!(instructions < 20_000, "{program} takes {instructions} verified instructions");
    }
    assert_eq!(probes.losses(), [0; LOSSES]);
    assert_eq!(probes.skipped_runs(), 0);
}
