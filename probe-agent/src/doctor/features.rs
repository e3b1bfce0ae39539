//! Which features a start would have beside the hooks: reading TLS, links inside of programs, propagation.
//!
//! In: the configuration, held capabilities. Out: a check that names them, one for each that is off though it is wanted, one of
//! propagation where that is asked for; after all of it was loaded and tried as a start does. When this returns all of it is gone from the kernel,
//! or goes with the process that would attach it, which ends by itself.

use caps::{Capability, CapsHashSet};
use spantap_config::Config;
use spantap_doctor::{Check, Group};
use spantap_proto::v1::Feature;

use super::{privileges::holds, propagation};
use crate::{
    privilege,
    probes::{ProbeError, Probes, Setup},
    run::{TURNED_OFF, attach_tls, links_with_room},
    tls::Part,
};

const ID: &str = "programs.features";

/// What was tried.
struct Tried {
    features: Vec<Feature>,
    /// The verifier's last words about what it refused of a feature.
    words: Vec<(String, Vec<String>)>,
}

/// Tries them. `ready`: the probes, without which there are none of them, run here.
pub(super) fn look(config: &Config, effective: &CapsHashSet, ready: bool) -> Vec<Check> {
    let tried = ready.then(|| attempt(config));
    let mut checks = match &tried {
        None => vec![Check::unknown(
            Group::Programs,
            ID,
            "what reads TLS and links requests was not tried: that takes the probes",
            "see programs.hook_set",
        )],
        Some(Err(error)) => vec![Check::unknown(
            Group::Programs,
            ID,
            format!("what reads TLS and links requests was not tried: {error}"),
            "see whether memory is limited too tightly",
        )],
        Some(Ok(tried)) => judge(tried, privilege::may_attach_to_functions()),
    };
    if config.agent.propagation.headers {
        let tried = tried.as_ref().map(|tried| tried.as_ref().map(|tried| tried.features.as_slice()));
        checks.push(propagation::judge(tried, holds(effective, Capability::CAP_NET_ADMIN)));
    }
    checks
}

/// In the order of a start.
fn attempt(config: &Config) -> Result<Tried, ProbeError> {
    let mut probes = Probes::start(Setup { links: links_with_room(config), ..Setup::of(&config.agent) })?;
    if config.agent.propagation.headers {
        probes.propagate(config.agent.propagation);
    }
    drop(attach_tls(config, &mut probes));
    let features = probes.features().to_vec();
    let words = |feature: &Feature| (feature.name.clone(), probes.words_of(&feature.name).to_vec());
    Ok(Tried { words: features.iter().map(words).collect(), features })
}

/// `allowed`: to attach to functions of programs.
fn judge(tried: &Tried, allowed: bool) -> Vec<Check> {
    let is_off = |feature: &&Feature| !feature.on && feature.reason != TURNED_OFF;
    let kinds = [
        ("on", tried.features.iter().filter(|feature| feature.on).collect::<Vec<_>>()),
        ("off", tried.features.iter().filter(is_off).collect()),
        ("turned off", tried.features.iter().filter(|feature| feature.reason == TURNED_OFF).collect()),
    ];
    let named = kinds.iter().filter(|(_, features)| !features.is_empty()).map(|(kind, features)| {
        let names: Vec<&str> = features.iter().map(|feature| feature.name.as_str()).collect();
        format!("{kind}: {}", names.join(", "))
    });
    let finding = named.collect::<Vec<_>>().join("; ");
    let first = Check::ok(Group::Programs, ID, if finding.is_empty() { "on: none".to_owned() } else { finding });
    let of_hooks = |feature: &&Feature| ![Part::Tls].iter().chain(&Part::LINKS).any(|it| it.feature() == feature.name);
    let tls = Part::Tls.feature();
    let without_tls = tried.features.iter().find(|feature| feature.name == tls).filter(is_off);
    // What the hooks lack was said with them, and one reason once.
    let own = tried
        .features
        .iter()
        .filter(is_off)
        .filter(|feature| !of_hooks(feature))
        .filter(|feature| feature.name == tls || without_tls.is_none_or(|tls| tls.reason != feature.reason));
    let own = own.map(|feature| {
        let what = match feature.name == tls {
            true => "TLS is not read, and runtimes are not linked",
            false => "requests of this runtime are not linked",
        };
        let fix = match allowed {
            true => "see docs/kernels.md for what takes it; if it says that this kernel does, report this with all lines of it",
            false => "give the agent CAP_SYS_ADMIN, which only a small process keeps (docs/privileges.md)",
        };
        let words = tried.words.iter().find(|(name, _)| *name == feature.name).map(|(_, words)| words.clone());
        Check::degraded(Group::Programs, format!("programs.{}", feature.name), format!("{what}: {}", feature.reason), fix)
            .with_details(words.unwrap_or_default())
    });
    [first].into_iter().chain(own).collect()
}

#[cfg(test)]
mod tests {
    use spantap_doctor::State;

    use super::*;

    fn tried(features: &[(&str, &str)]) -> Tried {
        let feature = |(name, reason): &(&str, &str)| Feature {
            name: (*name).to_owned(),
            on: reason.is_empty(),
            reason: (*reason).to_owned(),
        };
        let words = vec![("node-links".to_owned(), vec!["R0 invalid".to_owned()])];
        Tried { features: features.iter().map(feature).collect(), words }
    }

    #[test]
    fn what_is_off_is_told_with_reason_and_way_out() {
        let all = judge(&tried(&[("ipv6", ""), ("tls", ""), ("node-links", "refused")]), true);
        let findings: Vec<_> = all.iter().map(|check| (check.id.as_str(), check.finding.as_str())).collect();
        let node = "requests of this runtime are not linked: refused";
        assert_eq!(findings, [(ID, "on: ipv6, tls; off: node-links"), ("programs.node-links", node)]);
        let states: Vec<_> = all.iter().map(|check| (check.state, check.fix.is_some(), check.details.len())).collect();
        assert_eq!(states, [(State::Ok, false, 0), (State::Degraded, true, 1)]);
    }

    #[test]
    fn one_reason_is_said_once_and_what_nobody_wants_not_at_all() {
        let ids = |features: &[_], allowed| -> Vec<String> {
            judge(&tried(features), allowed).into_iter().map(|check| check.id.to_string()).collect()
        };
        assert_eq!(ids(&[("tls", "old"), ("go-links", "old"), ("unix-sockets", "old")], true), [ID, "programs.tls"]);
        assert_eq!(ids(&[("tls", TURNED_OFF), ("go-links", TURNED_OFF)], true), [ID]);
        let refused = judge(&tried(&[("tls", "old")]), false);
        assert!(refused.iter().any(|check| check.fix.as_ref().is_some_and(|fix| fix.contains("CAP_SYS_ADMIN"))));
        assert_eq!(judge(&tried(&[]), true).first().map(|check| check.finding.as_str()), Some("on: none"));
    }
}
