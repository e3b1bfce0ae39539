//! Each probe under the verifier of this kernel.
//!
//! In: the embedded object. Out: what became of each program: loaded, attached, detached, unloaded. No process is
//! selected meanwhile, so the programs find nothing to do; when this returns nothing of them is left in the kernel.

use aya::{Btf, Ebpf};
use caps::{Capability, CapsHashSet};
use spantap_config::Agent;
use spantap_doctor::{Check, Group, Lack};

use super::privileges::holds;
use crate::probes::{
    HookSet, KernelTypes, Need, Object, ProbeError, Program, attach, instructions, kernel_types, load, open, unload,
};

/// The hook sets that were tried.
#[derive(Debug)]
pub(super) struct Trials {
    /// The set that a start takes; if there is none, the last one of those that may be taken.
    set: HookSet,
    programs: Vec<Trial>,
    /// Better sets, each with the first program that was refused and why.
    passed_over: Vec<String>,
}

/// A program that was tried.
#[derive(Debug)]
struct Trial {
    program: Program,
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

impl Trial {
    fn ran(&self) -> bool {
        matches!(self.outcome, Outcome::Ran { .. })
    }

    /// A program that the set cannot do without was refused.
    fn forbids(&self) -> bool {
        !self.ran() && self.program.need == Need::Required
    }
}

/// Whether this process may try at all.
pub(super) fn tryable(effective: &CapsHashSet) -> bool {
    holds(effective, Capability::CAP_BPF) && holds(effective, Capability::CAP_PERFMON)
}

/// Whether every required program of a set ran.
pub(super) fn complete(trials: &Trials) -> bool {
    !trials.programs.iter().any(Trial::forbids)
}

/// Tries the sets that may be taken, best first, each with all its programs, until one can be had.
pub(super) fn try_all(agent: &Agent) -> Result<Trials, ProbeError> {
    let KernelTypes { btf, safe_returns, .. } = kernel_types(agent.btf.as_deref())?;
    let (hooks, ring_buffer_bytes) = (agent.hooks, agent.ring_buffer_bytes);
    let mut opened: Option<(Object, Ebpf)> = None;
    let mut passed_over = Vec::new();
    let mut last = None;
    for set in HookSet::wanted(hooks) {
        if let Some(why) = set.forbidden(safe_returns) {
            passed_over.push(format!("{}: {why}", set.name()));
            continue;
        }
        if opened.as_ref().is_none_or(|(object, _)| *object != set.object()) {
            opened = None;
            match open(set.object(), ring_buffer_bytes, None, &btf) {
                Ok(object) => opened = Some((set.object(), object)),
                Err(error) if last.is_none() && set.object() == Object::Table => return Err(error),
                Err(error) => {
                    passed_over.push(format!("{}: {error}", set.name()));
                    continue;
                }
            }
        }
        let Some((_, object)) = &mut opened else { continue };
        let programs: Vec<Trial> = set
            .programs()
            .into_iter()
            .map(|program| Trial { outcome: try_one(object, &program, &btf), program })
            .collect();
        let refused = programs.iter().find(|trial| trial.forbids()).map(|trial| match &trial.outcome {
            Outcome::Refused { step, reason, .. } => {
                format!("{}: {} could not be {step}: {reason}", set.name(), trial.program.name)
            }
            Outcome::Ran { .. } => String::new(),
        });
        match refused {
            None => return Ok(Trials { set: *set, programs, passed_over }),
            Some(why) => {
                passed_over.push(why);
                last = Some((*set, programs));
            }
        }
    }
    let (set, programs) = last.ok_or_else(|| ProbeError::NoHooks(passed_over.join("; ")))?;
    passed_over.retain(|why| !why.starts_with(&format!("{}:", set.name())));
    Ok(Trials { set, programs, passed_over })
}

fn try_one(object: &mut Ebpf, program: &Program, btf: &Btf) -> Outcome {
    if let Err(error) = load(object, program, btf) {
        return refused("loaded", error);
    }
    let instructions = object.program(program.name).and_then(instructions);
    let attached = attach(object, program);
    unload(object, program);
    match attached {
        Err(error) => refused("attached", error),
        Ok(()) => Outcome::Ran { instructions },
    }
}

fn refused(step: &'static str, error: ProbeError) -> Outcome {
    let words = error.last_words();
    let (privilege, reason) = match error {
        ProbeError::LockedDown => (false, LOCKED_DOWN.to_owned()),
        ProbeError::NoPermission { reason, .. } => (true, reason),
        ProbeError::Unsupported { reason, .. } => (false, reason),
        other => (false, other.to_string()),
    };
    Outcome::Refused { step, privilege, reason, words }
}

/// One check for the hook set, and one for each program that was tried; `None`: this process may not try.
pub(super) fn judge(trials: Option<&Result<Trials, ProbeError>>) -> Vec<Check> {
    let id = "programs.hook_set";
    match trials {
        None => vec![Check::unknown(
            Group::Programs,
            id,
            "not tried: that takes CAP_BPF and CAP_PERFMON",
            "run doctor as root: sudo spantap doctor",
        )],
        Some(Err(error)) => vec![object_refused(id, error)],
        Some(Ok(trials)) => {
            let ran = trials.programs.iter().filter(|trial| trial.ran()).count();
            let there =
                trials.programs.iter().filter(|trial| trial.ran() || trial.program.need != Need::IfThere).count();
            let finding = format!(
                "{}: {ran} of {there} programs were loaded, attached and detached{}",
                trials.set.name(),
                verified(&trials.programs)
            );
            let passed_over: Vec<String> = trials.passed_over.iter().map(|why| format!("not {why}")).collect();
            let first = Check::ok(Group::Programs, id, finding).with_details(passed_over);
            let shown = trials.programs.iter().filter(|trial| trial.ran() || trial.program.need != Need::IfThere);
            [first].into_iter().chain(shown.map(check)).chain(lacking(trials.set)).collect()
        }
    }
}

/// Instructions that the verifier looked at in all of them, a program that is attached in several places once.
fn verified(trials: &[Trial]) -> String {
    let mut known = Vec::new();
    let of = |trial: &Trial| match trial.outcome {
        Outcome::Ran { instructions: Some(count) } if !known.contains(&trial.program.name) => {
            known.push(trial.program.name);
            Some(u64::from(count))
        }
        _ => None,
    };
    match trials.iter().filter_map(of).sum::<u64>() {
        0 => String::new(),
        sum => format!("; the verifier looked at {sum} instructions in all"),
    }
}

/// What no program of the set does.
fn lacking(set: HookSet) -> impl Iterator<Item = Check> {
    set.lacks().iter().map(|(feature, without)| {
        let fix = "use a later kernel, or one with BPF trampolines";
        Check::degraded(Group::Programs, format!("programs.{feature}"), *without, fix)
    })
}

fn object_refused(id: &str, error: &ProbeError) -> Check {
    let (lack, fix) = match error {
        ProbeError::NoBtf(_) => (Lack::Thing, "see kernel.btf"),
        ProbeError::BadBtf { .. } => (Lack::Configuration, "see kernel.btf"),
        ProbeError::NoPermission { .. } => (Lack::Privilege, PERMISSION),
        ProbeError::LockedMemory { .. } => (Lack::Privilege, LOCKED_MEMORY),
        ProbeError::LockedDown => (Lack::Thing, UNLOCK),
        ProbeError::Unsupported { .. } | ProbeError::KernelError(_) | ProbeError::NoHooks(_) | ProbeError::Other(_) => {
            (Lack::Thing, "use a later kernel; if it is 5.10 or later, see whether memory is limited too tightly")
        }
    };
    Check::failed(Group::Programs, id, lack, error.to_string(), fix)
}

const LOCKED_DOWN: &str = "the kernel is locked down for confidentiality and lets no probe read its memory";
/// The way out of [`LOCKED_DOWN`].
pub(super) const UNLOCK: &str = "boot with lockdown=integrity or without lockdown";

const PERMISSION: &str = "the capabilities are held and do not suffice: look at kernel.lockdown, at rules of SELinux or \
                          AppArmor, and whether the container engine's filter allows bpf (docker: --security-opt)";

const LOCKED_MEMORY: &str = "raise the limit (systemd: LimitMEMLOCK=infinity, docker: --ulimit memlock=-1), or run with \
                             CAP_SYS_RESOURCE; Linux 5.11 and later do not count so";

fn check(trial: &Trial) -> Check {
    let id = format!("programs.{}", trial.program.name);
    let role = match trial.program.need {
        Need::Required => "required".to_owned(),
        Need::Optional { feature, .. } => format!("optional, for {feature}"),
        Need::IfThere => "for kernels before 6.5".to_owned(),
    };
    match &trial.outcome {
        Outcome::Ran { instructions } => {
            let verified = instructions.map(|n| format!("; {n} instructions verified")).unwrap_or_default();
            Check::ok(Group::Programs, id, format!("{role}{verified}"))
        }
        Outcome::Refused { step, privilege, reason, words } => {
            let finding = format!("{role}; could not be {step}: {reason}");
            let check = match (trial.program.need, privilege) {
                (Need::Optional { without, .. }, _) => Check::degraded(
                    Group::Programs,
                    id,
                    format!("{finding}; {without}"),
                    "use a later kernel (Linux 6.16 has all)",
                ),
                (Need::Required | Need::IfThere, true) => {
                    Check::failed(Group::Programs, id, Lack::Privilege, finding, PERMISSION)
                }
                (Need::Required | Need::IfThere, false) => Check::failed(
                    Group::Programs,
                    id,
                    Lack::Thing,
                    finding,
                    if reason == LOCKED_DOWN {
                        UNLOCK
                    } else {
                        "use Linux 5.10 or later, with BPF trampolines or kprobes; if it is, report this with the lines above"
                    },
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
    use crate::probes::Place;

    fn trial(need: Need, outcome: Outcome) -> Trial {
        let program = Program { name: "some_program", target: "some_function", place: Place::Entry, need };
        Trial { program, outcome }
    }

    fn trials(programs: Vec<Trial>) -> Trials {
        Trials { set: HookSet::Fentry, programs, passed_over: Vec::new() }
    }

    fn refusal(privilege: bool) -> Outcome {
        let words = "0: (85) call\n\nR0 invalid mem access 'scalar'\nprocessed 9 insns\n".to_owned();
        let (program, reason) = ("some_program", "Invalid argument (os error 22)".to_owned());
        refused(
            "loaded",
            match privilege {
                true => ProbeError::NoPermission { program, reason, words },
                false => ProbeError::Unsupported { program, reason, words },
            },
        )
    }

    const OPTIONAL: Need = Need::Optional { feature: "extra", without: "less is seen" };

    #[test]
    fn a_required_program_decides_and_shows_the_verifiers_words() {
        let failed = check(&trial(Need::Required, refusal(false)));
        assert_eq!((failed.state, failed.exit_code), (State::Failed, Some(Lack::Thing)));
        assert_eq!(failed.details, ["0: (85) call", "R0 invalid mem access 'scalar'", "processed 9 insns"]);
        assert!(failed.finding.contains("could not be loaded: Invalid argument"), "{failed:?}");
        assert_eq!(check(&trial(Need::Required, refusal(true))).exit_code, Some(Lack::Privilege));
        assert!(!complete(&trials(vec![trial(Need::Required, refusal(false))])));
    }

    #[test]
    fn an_optional_program_only_limits() {
        let missing = check(&trial(OPTIONAL, refusal(false)));
        assert_eq!((missing.state, missing.exit_code), (State::Degraded, None));
        assert!(missing.finding.contains("less is seen"), "{missing:?}");
        let trials =
            Ok(trials(vec![trial(OPTIONAL, refusal(true)), trial(OPTIONAL, Outcome::Ran { instructions: Some(7) })]));
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
}
