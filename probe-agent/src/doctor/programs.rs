//! Each probe under the verifier of this kernel.
//!
//! In: the embedded object. Out: what became of each program: loaded, attached, detached, unloaded. No process is
//! selected meanwhile, so the programs find nothing to do; when this returns nothing of them is left in the kernel.

use aya::{
    Btf, EbpfLoader,
    programs::{BtfTracePoint, ProgramError},
};
use caps::{Capability, CapsHashSet};
use spantap_doctor::{Check, Group, Lack};

use super::privileges::holds;
use crate::probes::{HOOK_SET, Need, OBJECT, PROGRAMS, ProbeError, classify};

/// Lines of the verifier that are shown: the last ones tell the reason.
const MAX_WORDS: usize = 6;

/// A program that was tried.
#[derive(Debug)]
pub(super) struct Trial {
    name: &'static str,
    need: &'static Need,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    /// Attached and detached again; instructions that the verifier looked at, if the kernel tells.
    Ran { instructions: Option<u32> },
    /// Refused.
    Refused {
        /// What was being done.
        step: &'static str,
        /// A privilege is missing, as far as can be told.
        privilege: bool,
        /// What the kernel said.
        reason: String,
        /// The verifier's last lines.
        words: Vec<String>,
    },
}

/// Whether this process may try at all.
pub(super) fn tryable(effective: &CapsHashSet) -> bool {
    holds(effective, Capability::CAP_BPF) && holds(effective, Capability::CAP_PERFMON)
}

/// Whether every required program ran.
pub(super) fn complete(trials: &[Trial]) -> bool {
    trials
        .iter()
        .all(|trial| matches!(trial.outcome, Outcome::Ran { .. }) || matches!(trial.need, Need::Optional { .. }))
}

/// Tries all, one after the other.
pub(super) fn try_all(ring_buffer_bytes: u32) -> Result<Vec<Trial>, ProbeError> {
    let btf = Btf::from_sys_fs().map_err(|error| ProbeError::NoBtf(error.to_string()))?;
    let mut object = EbpfLoader::new()
        .btf(Some(&btf))
        // As the agent does, see probes.rs.
        .allow_unsupported_maps()
        .map_max_entries("socket_events", ring_buffer_bytes)
        .load(OBJECT)
        .map_err(|error| classify("maps", &error))?;
    let mut trials = Vec::new();
    for (name, need) in PROGRAMS {
        let program: &mut BtfTracePoint = object
            .program_mut(name)
            .ok_or_else(|| ProbeError::Other(format!("the object has no program {name}")))?
            .try_into()
            .map_err(|error: ProgramError| ProbeError::Other(error.to_string()))?;
        trials.push(Trial { name, need, outcome: try_one(name, program, &btf) });
    }
    Ok(trials)
}

fn try_one(name: &'static str, program: &mut BtfTracePoint, btf: &Btf) -> Outcome {
    if let Err(error) = program.load(name, btf) {
        return refused(name, "loaded", &error);
    }
    let instructions = program.info().ok().and_then(|info| info.verified_instruction_count());
    let attached = program.attach().map(drop);
    // Detaches as well.
    let unloaded = program.unload();
    match (attached, unloaded) {
        (Err(error), _) => refused(name, "attached", &error),
        (Ok(()), Err(error)) => refused(name, "detached", &error),
        (Ok(()), Ok(())) => Outcome::Ran { instructions },
    }
}

fn refused(name: &'static str, step: &'static str, error: &ProgramError) -> Outcome {
    let words = match error {
        ProgramError::LoadError { verifier_log, .. } => last_words(&verifier_log.to_string()),
        _ => Vec::new(),
    };
    let (privilege, reason) = match classify(name, error) {
        ProbeError::NoPermission { reason, .. } => (true, reason),
        ProbeError::Unsupported { reason, .. } => (false, reason),
        other => (false, other.to_string()),
    };
    Outcome::Refused { step, privilege, reason, words }
}

fn last_words(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(MAX_WORDS)).map(|line| (*line).to_owned()).collect()
}

/// One check for the hook set, and one for each program that was tried; `None`: this process may not try.
pub(super) fn judge(trials: Option<&Result<Vec<Trial>, ProbeError>>) -> Vec<Check> {
    let id = "programs.hook_set";
    match trials {
        None => vec![Check::unknown(
            Group::Programs,
            id,
            format!("{HOOK_SET}; not tried: that takes CAP_BPF and CAP_PERFMON"),
            "run doctor as root: sudo spantap doctor",
        )],
        Some(Err(error)) => vec![object_refused(id, error)],
        Some(Ok(trials)) => {
            let ran = trials.iter().filter(|trial| matches!(trial.outcome, Outcome::Ran { .. })).count();
            let finding = format!("{HOOK_SET}: {ran} of {} programs were loaded, attached and detached", trials.len());
            let first = Check::ok(Group::Programs, id, finding);
            [first].into_iter().chain(trials.iter().map(check)).collect()
        }
    }
}

fn object_refused(id: &str, error: &ProbeError) -> Check {
    let (lack, fix) = match error {
        ProbeError::NoBtf(_) => (Lack::Thing, "see kernel.btf"),
        ProbeError::NoPermission { .. } => (Lack::Privilege, PERMISSION),
        ProbeError::Unsupported { .. } | ProbeError::Other(_) => {
            (Lack::Thing, "use Linux 6.3 or later; if it is, see whether memory is limited too tightly")
        }
    };
    Check::failed(Group::Programs, id, lack, format!("{HOOK_SET}: {error}"), fix)
}

const PERMISSION: &str = "the capabilities are held and do not suffice: look at kernel.lockdown, at rules of SELinux or \
                          AppArmor, and whether the container engine's filter allows bpf (docker: --security-opt)";

fn check(trial: &Trial) -> Check {
    let id = format!("programs.{}", trial.name);
    let role = match trial.need {
        Need::Required => "required".to_owned(),
        Need::Optional { feature, .. } => format!("optional, for {feature}"),
    };
    match &trial.outcome {
        Outcome::Ran { instructions } => {
            let verified = instructions.map(|n| format!("; {n} instructions verified")).unwrap_or_default();
            Check::ok(Group::Programs, id, format!("{role}{verified}"))
        }
        Outcome::Refused { step, privilege, reason, words } => {
            let finding = format!("{role}; could not be {step}: {reason}");
            let check = match (trial.need, privilege) {
                (Need::Optional { without, .. }, _) => Check::degraded(
                    Group::Programs,
                    id,
                    format!("{finding}; {without}"),
                    "use a later kernel (Linux 6.16 has all)",
                ),
                (Need::Required, true) => Check::failed(Group::Programs, id, Lack::Privilege, finding, PERMISSION),
                (Need::Required, false) => Check::failed(
                    Group::Programs,
                    id,
                    Lack::Thing,
                    finding,
                    "use Linux 6.3 or later; if it is, report this with the lines above",
                ),
            };
            check.with_details(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use spantap_doctor::State;

    use super::*;

    fn trial(need: &'static Need, outcome: Outcome) -> Trial {
        Trial { name: "some_program", need, outcome }
    }

    fn refusal(privilege: bool) -> Outcome {
        let words = last_words("0: (85) call\n\nR0 invalid mem access 'scalar'\nprocessed 9 insns\n");
        Outcome::Refused { step: "loaded", privilege, reason: "Invalid argument (os error 22)".to_owned(), words }
    }

    static OPTIONAL: Need = Need::Optional { feature: "extra", without: "less is seen" };

    #[test]
    fn a_required_program_decides_and_shows_the_verifiers_words() {
        let failed = check(&trial(&Need::Required, refusal(false)));
        assert_eq!((failed.state, failed.exit_code), (State::Failed, Some(Lack::Thing)));
        assert_eq!(failed.details, ["0: (85) call", "R0 invalid mem access 'scalar'", "processed 9 insns"]);
        assert!(failed.finding.contains("could not be loaded: Invalid argument"), "{failed:?}");
        assert_eq!(check(&trial(&Need::Required, refusal(true))).exit_code, Some(Lack::Privilege));
        assert!(!complete(&[trial(&Need::Required, refusal(false))]));
    }

    #[test]
    fn an_optional_program_only_limits() {
        let missing = check(&trial(&OPTIONAL, refusal(false)));
        assert_eq!((missing.state, missing.exit_code), (State::Degraded, None));
        assert!(missing.finding.contains("less is seen"), "{missing:?}");
        let trials =
            Ok(vec![trial(&OPTIONAL, refusal(true)), trial(&OPTIONAL, Outcome::Ran { instructions: Some(7) })]);
        let checks = judge(Some(&trials));
        assert!(checks.iter().any(|check| check.finding.contains("1 of 2 programs")), "{checks:?}");
        assert!(checks.iter().any(|check| check.finding.contains("7 instructions")), "{checks:?}");
        assert!(trials.is_ok_and(|trials| complete(&trials)));
    }

    #[test]
    fn without_privilege_nothing_is_said_about_the_programs() {
        assert_eq!(judge(None).iter().map(|check| check.state).collect::<Vec<_>>(), [State::Unknown]);
        let no_types = judge(Some(&Err(ProbeError::NoBtf("none".to_owned()))));
        assert_eq!(no_types.first().and_then(|check| check.exit_code), Some(Lack::Thing));
    }

    #[test]
    fn a_long_log_is_cut_to_its_end() {
        let log: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        assert_eq!(last_words(&log).len(), MAX_WORDS);
        assert_eq!(last_words(&log).last().map(String::as_str), Some("line 999"));
        assert!(last_words("").is_empty());
    }
}
