//! Whether requests can be given a `traceparent`, where that is asked for.
//!
//! In: the configuration, held capabilities. Out: one check, after the probes were started and a trial was made as the agent does it.
//! When this returns all of it is gone from the kernel.

use caps::{Capability, CapsHashSet};
use spantap_config::{Agent, Propagation};
use spantap_doctor::{Check, Group};
use spantap_proto::v1::Feature;

use super::privileges::holds;
use crate::probes::{PROPAGATION, ProbeError, Probes, Setup};

const ID: &str = "programs.context_propagation";

/// Tries it; `None`: nobody asks for it. `ready`: the probes, without which there is none of it, run here.
pub(super) fn look(agent: &Agent, effective: &CapsHashSet, ready: bool) -> Option<Check> {
    let wanted = agent.propagation;
    if !wanted.headers {
        return None;
    }
    let tried = ready.then(|| attempt(agent, wanted));
    Some(judge(tried.as_ref(), holds(effective, Capability::CAP_NET_ADMIN)))
}

fn attempt(agent: &Agent, wanted: Propagation) -> Result<Feature, ProbeError> {
    let mut probes = Probes::start(Setup::of(agent))?;
    probes.propagate(wanted);
    let told = probes.features().iter().find(|feature| feature.name == PROPAGATION);
    told.cloned().ok_or_else(|| ProbeError::Other("nothing was told of it".to_owned()))
}

/// `tried`: what became of it, `None` if that takes more than this process has; `allowed`: whether the capability for it is held.
fn judge(tried: Option<&Result<Feature, ProbeError>>, allowed: bool) -> Check {
    let reason = match tried {
        None => {
            return Check::unknown(
                Group::Programs,
                ID,
                "ebpf.context_propagation was not tried: that takes the probes",
                "see programs.hook_set",
            );
        }
        Some(Ok(Feature { on: true, reason, .. })) => {
            let reason = if reason.is_empty() { String::new() } else { format!("; {reason}") };
            return Check::ok(
                Group::Programs,
                ID,
                format!("requests of observed programs get a traceparent; tried here, as at a start{reason}"),
            );
        }
        Some(Ok(feature)) => feature.reason.clone(),
        Some(Err(error)) => error.to_string(),
    };
    let fix = if allowed {
        "do as it says, or leave ebpf.context_propagation out (docs/decisions/propagation.md)"
    } else {
        "run it as root, or give the agent CAP_NET_ADMIN too (docs/install.md, docs/containers.md: by an option); or leave \
         ebpf.context_propagation out"
    };
    Check::degraded(Group::Programs, ID, format!("no request will get a traceparent: {reason}"), fix)
}

#[cfg(test)]
mod tests {
    use spantap_doctor::State;

    use super::*;

    fn told(on: bool, reason: &str) -> Result<Feature, ProbeError> {
        Ok(Feature { name: PROPAGATION.to_owned(), on, reason: reason.to_owned() })
    }

    #[test]
    fn what_stands_in_the_way_is_told_with_its_way_out() {
        let works = judge(Some(&told(true, "")), true);
        assert_eq!((works.state, works.fix), (State::Ok, None));
        assert!(judge(Some(&told(true, "as was accepted")), true).finding.ends_with("; as was accepted"));
        let kernel = judge(Some(&told(false, "this kernel cannot")), true);
        assert_eq!((kernel.state, kernel.exit_code), (State::Degraded, None));
        assert!(kernel.finding.contains("this kernel cannot"), "{kernel:?}");
        assert!(kernel.fix.is_some_and(|fix| !fix.contains("CAP_NET_ADMIN")));
        let refused = judge(Some(&Err(ProbeError::Other("refused".to_owned()))), false);
        assert!(refused.fix.is_some_and(|fix| fix.contains("CAP_NET_ADMIN")));
        assert_eq!(judge(None, false).state, State::Unknown);
    }
}
