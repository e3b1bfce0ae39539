//! Choosing a hook set.
//!
//! In: which sets may be taken, the types of the kernel. Out: the best one that this kernel takes, attached, with its features, and why
//! each better one was not.

use aya::{Btf, Ebpf, EbpfLoader};
use spantap_proto::v1;

use super::{
    HookSet, Need, Object, Place, ProbeError, Program, Setup, attach, classify, load,
    types::{KernelTypes, kernel_types},
    unload,
};
use crate::tls;

/// A set that is attached.
pub(super) struct Taken {
    pub(super) programs: Ebpf,
    pub(super) set: HookSet,
    pub(super) features: Vec<v1::Feature>,
    /// Better ones, each with why it was not taken.
    pub(super) passed_over: Vec<String>,
}

/// Loads and attaches the best hook set that this kernel takes: only attaching shows whether it does.
pub(super) fn take_best(setup: Setup<'_>) -> Result<Taken, ProbeError> {
    let KernelTypes { btf, file, safe_returns } = kernel_types(setup.btf)?;
    if let Some(file) = file {
        tracing::info!(file = %file.display(), "the kernel does not tell its types; they are read from spantap.btf");
    } else if setup.btf.is_some() {
        tracing::info!("spantap.btf is not needed: this kernel tells its types itself");
    }
    let mut opened: Vec<(Object, Result<Ebpf, ProbeError>)> = Vec::new();
    let mut refusals: Vec<(HookSet, ProbeError)> = Vec::new();
    for set in HookSet::wanted(setup.hooks) {
        if let Some(why) = set.forbidden(safe_returns) {
            refusals.push((*set, ProbeError::KernelError(why)));
            continue;
        }
        // Sets that share an object share its maps as well.
        if !opened.iter().any(|(object, _)| *object == set.object()) {
            opened.clear();
            opened.push((set.object(), open(set.object(), setup.ring_buffer_bytes, setup.links, &btf)));
        }
        let attempt = match opened.first_mut() {
            Some((_, Ok(programs))) => take_set(*set, programs, &btf),
            Some((_, Err(error))) => Err(error.clone()),
            None => continue,
        };
        match attempt {
            Ok(features) => {
                let Some((_, Ok(programs))) = opened.pop() else { continue };
                let passed_over = refusals
                    .iter()
                    .map(|(set, error)| format!("{}: {}", set.name(), error.of_a_set_passed_over()))
                    .collect();
                return Ok(Taken { programs, set: *set, features, passed_over });
            }
            Err(error) => {
                tracing::debug!(hook_set = set.name(), %error, "not taken");
                refusals.push((*set, error));
            }
        }
    }
    Err(none_taken(refusals))
}

/// Maps that only links inside of programs fill: of Go, CPython and Node (ARCHITECTURE.md, bounds). Their places exist whether used or not.
const MAPS_OF_LINKS: [&str; 10] = [
    "go_goroutines",
    "go_contexts",
    "python_contexts",
    "python_streams",
    "python_threads",
    "node_ids",
    "node_threads",
    "node_sockets",
    "node_refused",
    "node_reactions",
];

/// Tasks of tokio that are known at once (`probes/tokio_link.h`): 3 MB. Without them it has one place.
const TOKIO_TASKS: u32 = 16_384;

/// The object with its maps in the kernel, its programs not yet. Without `links` those of links have one place, which nobody takes.
pub(crate) fn open(
    object: Object,
    ring_buffer_bytes: u32,
    links: Option<tls::Links>,
    btf: &Btf,
) -> Result<Ebpf, ProbeError> {
    let mut loader = EbpfLoader::new();
    if links.is_none() {
        for name in MAPS_OF_LINKS {
            loader.map_max_entries(name, 1);
        }
    }
    if links.is_some_and(|links| links.tokio) {
        loader.map_max_entries("tokio_tasks", TOKIO_TASKS);
    }
    loader
        .btf(Some(btf))
        // Only programs use the storage of tasks; this side has no type for it.
        .allow_unsupported_maps()
        .map_max_entries("socket_events", ring_buffer_bytes)
        .load(object.bytes())
        .map_err(|error| classify("maps", &error))
}

/// Loads and attaches the programs of a set, all or none; gives its features.
fn take_set(set: HookSet, programs: &mut Ebpf, btf: &Btf) -> Result<Vec<v1::Feature>, ProbeError> {
    let mut features = Features::default();
    let taken = set.programs().iter().try_for_each(|program| {
        let outcome = load(programs, program, btf).and_then(|()| attach(programs, program));
        features.judge(program, outcome)
    });
    if let Err(error) = taken {
        for program in set.programs() {
            unload(programs, &program);
        }
        return Err(error);
    }
    for (name, without) in set.lacks() {
        features.off(name, (*without).to_owned());
    }
    Ok(features.0)
}

#[derive(Default)]
struct Features(Vec<v1::Feature>);

impl Features {
    /// What became of a program: an error only if nothing can be done without it.
    fn judge(&mut self, program: &Program, outcome: Result<(), ProbeError>) -> Result<(), ProbeError> {
        match (program.need, outcome) {
            (Need::Optional { feature, .. }, Ok(())) => {
                if !self.0.iter().any(|known| known.name == feature) {
                    self.0.push(v1::Feature { name: feature.to_owned(), on: true, reason: String::new() });
                }
                Ok(())
            }
            (_, Ok(())) => Ok(()),
            (Need::Required, Err(error)) => Err(error),
            (Need::IfThere, Err(error)) => {
                tracing::debug!(program = program.name, %error, "not there");
                Ok(())
            }
            (Need::Optional { feature, without }, Err(error)) => {
                tracing::debug!(program = program.name, %error, "optional probe is off");
                let reason = match program.place {
                    Place::Tracepoint => format!("the kernel lacks the tracepoint {}: {without}", program.target),
                    _ => format!("{} cannot be hooked: {without}", program.target),
                };
                self.off(feature, reason);
                Ok(())
            }
        }
    }

    fn off(&mut self, feature: &str, reason: String) {
        self.0.retain(|known| known.name != feature || !known.on);
        if !self.0.iter().any(|known| known.name == feature) {
            self.0.push(v1::Feature { name: feature.to_owned(), on: false, reason });
        }
    }
}

/// What to say when no set was taken. A privilege is named only if nothing else was in the way.
fn none_taken(mut refusals: Vec<(HookSet, ProbeError)>) -> ProbeError {
    if refusals.iter().any(|(_, error)| matches!(error, ProbeError::LockedDown)) {
        return ProbeError::LockedDown;
    }
    let all_refused = refusals
        .iter()
        .all(|(_, error)| matches!(error, ProbeError::NoPermission { .. } | ProbeError::LockedMemory { .. }));
    if (all_refused || refusals.len() == 1)
        && let Some((_, error)) = refusals.pop()
    {
        return error;
    }
    let each = refusals.iter().map(|(set, error)| format!("{}, but {error}", set.takes()));
    ProbeError::NoHooks(each.collect::<Vec<_>>().join("; "))
}
