//! Whether requests can be given a `traceparent`, where that is asked for.
//!
//! In: the features that a start would have (`features`), after a trial as the agent makes it. Out: one check.

use spantap_doctor::{Check, Group};
use spantap_proto::v1::Feature;

use crate::probes::{PROPAGATION, ProbeError};

const ID: &str = "programs.context_propagation";

/// `tried`: features, `None` if they take more than this process has; `allowed`: whether the capability for it is held.
pub(super) fn judge(tried: Option<Result<&[Feature], &ProbeError>>, allowed: bool) -> Check {
    let found = tried.map(|tried| tried.map(|features| features.iter().find(|feature| feature.name == PROPAGATION)));
    let reason = match found {
        None => {
            return Check::unknown(
                Group::Programs,
                ID,
                "ebpf.context_propagation was not tried: that takes the probes",
                "see programs.hook_set",
            );
        }
        Some(Ok(Some(Feature { on: true, reason, .. }))) => {
            let reason = if reason.is_empty() { String::new() } else { format!("; {reason}") };
            return Check::ok(
                Group::Programs,
                ID,
                format!("requests of observed programs get a traceparent; tried here, as at a start{reason}"),
            );
        }
        Some(Ok(Some(feature))) => feature.reason.clone(),
        Some(Ok(None)) => "nothing was told of it".to_owned(),
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

    fn told(on: bool, reason: &str) -> Check {
        let feature = Feature { name: PROPAGATION.to_owned(), on, reason: reason.to_owned() };
        judge(Some(Ok(&[feature])), true)
    }

    #[test]
    fn what_stands_in_the_way_is_told_with_its_way_out() {
        let works = told(true, "");
        assert_eq!((works.state, works.fix), (State::Ok, None));
        assert!(told(true, "as was accepted").finding.ends_with("; as was accepted"));
        let kernel = told(false, "this kernel cannot");
        assert_eq!((kernel.state, kernel.exit_code), (State::Degraded, None));
        assert!(kernel.finding.contains("this kernel cannot"), "{kernel:?}");
        assert!(kernel.fix.is_some_and(|fix| !fix.contains("CAP_NET_ADMIN")));
        let refused = judge(Some(Err(&ProbeError::Other("refused".to_owned()))), false);
        assert!(refused.fix.is_some_and(|fix| fix.contains("CAP_NET_ADMIN")));
        assert_eq!(judge(Some(Ok(&[])), true).state, State::Degraded);
        assert_eq!(judge(None, false).state, State::Unknown);
    }
}
