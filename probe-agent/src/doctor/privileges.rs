//! Capabilities of this process against what the agent needs (docs/privileges.md).
//!
//! In: user and effective capabilities. Out: one check that names each that is missing, and what for.

use caps::{Capability, CapsHashSet};
use spantap_doctor::{Check, Group, Lack};

/// What the agent needs, what for, and whether it cannot do its work without.
const NEEDED: [(Capability, &str, bool); 4] = [
    (Capability::CAP_BPF, "loading the probes", true),
    (Capability::CAP_PERFMON, "loading the probes", true),
    (Capability::CAP_SYS_PTRACE, "finding processes of other users", true),
    (Capability::CAP_DAC_READ_SEARCH, "files and folders of other users' processes", false),
];

/// Whether a capability is held, or CAP_SYS_ADMIN where bpf(2) takes that for it (capabilities(7), `bpf_token_capable`).
pub(super) fn holds(effective: &CapsHashSet, capability: Capability) -> bool {
    let by_admin = matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON | Capability::CAP_NET_ADMIN);
    effective.contains(&capability) || by_admin && effective.contains(&Capability::CAP_SYS_ADMIN)
}

/// Judges the capabilities of user `uid`.
pub(super) fn judge(uid: u32, effective: &CapsHashSet) -> Check {
    let id = "privilege.capabilities";
    let missing: Vec<_> = NEEDED.into_iter().filter(|(capability, ..)| !holds(effective, *capability)).collect();
    let names = |list: &[(Capability, &str, bool)]| {
        list.iter().map(|(capability, ..)| capability.to_string()).collect::<Vec<_>>().join(", ")
    };
    if missing.is_empty() {
        return Check::ok(Group::Privilege, id, format!("user {uid} holds {}", names(&NEEDED)));
    }
    let fix = if uid == 0 {
        format!(
            "root was left without: docker: --cap-add, compose and Kubernetes: cap_add / capabilities.add, systemd: \
             CapabilityBoundingSet; add {}",
            names(&missing)
        )
    } else {
        format!(
            "run it as root (sudo), or give the agent {} (systemd: AmbientCapabilities, docker: --cap-add)",
            names(&missing)
        )
    };
    let finding = format!("user {uid} lacks {}", names(&missing));
    let check = if missing.iter().any(|(.., vital)| *vital) {
        Check::failed(Group::Privilege, id, Lack::Privilege, finding, fix)
    } else {
        Check::degraded(Group::Privilege, id, finding, fix)
    };
    check.with_details(missing.iter().map(|(capability, purpose, _)| format!("{capability}: {purpose}")))
}

#[cfg(test)]
mod tests {
    use spantap_doctor::State;

    use super::*;

    fn without(absent: &[Capability]) -> CapsHashSet {
        NEEDED.into_iter().map(|(capability, ..)| capability).filter(|held| !absent.contains(held)).collect()
    }

    #[test]
    fn each_that_is_missing_is_named() {
        assert_eq!(judge(0, &without(&[])).state, State::Ok);
        for (capability, _, vital) in NEEDED {
            let check = judge(0, &without(&[capability]));
            assert_eq!(check.exit_code, vital.then_some(Lack::Privilege), "{capability}");
            assert!(check.finding.contains(&capability.to_string()), "{check:?}");
            assert_eq!(check.details.len(), 1);
        }
        let nothing = judge(1000, &CapsHashSet::default());
        assert_eq!(nothing.details.len(), NEEDED.len());
        assert!(nothing.fix.is_some_and(|fix| fix.contains("sudo")));
    }

    #[test]
    fn the_old_capability_stands_for_two_new_ones() {
        let mut held = without(&[Capability::CAP_BPF, Capability::CAP_PERFMON]);
        held.insert(Capability::CAP_SYS_ADMIN);
        assert_eq!(judge(0, &held).state, State::Ok);
        held.remove(&Capability::CAP_SYS_PTRACE);
        assert_eq!(judge(0, &held).exit_code, Some(Lack::Privilege));
    }
}
