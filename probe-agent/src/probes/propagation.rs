//! Requests of observed processes with a `traceparent`: only when that was asked for, only if it is seen to work.
//!
//! In: an object of its own (`probes/propagate.bpf.c`), tables of the socket hooks. Out: [`Propagation`]: attached as long as it lives; what
//! it did; why it cannot be had, or is over.
//!
//! `trial` sends requests to itself and compares every byte.

mod trial;

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::atomic::Ordering,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{ArrayOfMaps, Map, MapData, SockHash},
    programs::{CgroupAttachMode, SkMsg, SockOps},
};
use spantap_proto::v1;

use super::{ProbeError, Probes, classify, error::other, hooks::Object, mapped};
use crate::mapped::MappedWords;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/propagate.embedded.bpf.o"));

/// Name of the feature.
pub(crate) const PROPAGATION: &str = "context-propagation";

/// `OUTCOME_MAX` of the kernel side, and what each is for the forwarder.
const OUTCOMES: [v1::PropagationOutcome; 13] = [
    v1::PropagationOutcome::Added,
    v1::PropagationOutcome::Present,
    v1::PropagationOutcome::Busy,
    v1::PropagationOutcome::Failed,
    v1::PropagationOutcome::NotHttp,
    v1::PropagationOutcome::Split,
    v1::PropagationOutcome::TooLarge,
    v1::PropagationOutcome::Pipelined,
    v1::PropagationOutcome::Endless,
    v1::PropagationOutcome::Tunnel,
    v1::PropagationOutcome::Skipped,
    v1::PropagationOutcome::NoRoom,
    v1::PropagationOutcome::Blocking,
];

/// `struct propagation` of the kernel side, as words: the threshold, whether it is on.
const SWITCH_WORDS: usize = 2;

/// The object, loaded and attached.
pub(super) struct Propagation {
    _object: Ebpf,
    switch: MappedWords,
    outcomes: MappedWords,
    untold: MappedWords,
    threshold: u64,
    /// The trial's own.
    before: [u64; OUTCOMES.len()],
}

impl Probes {
    /// From now on requests of observed processes get a `traceparent`, if a trial shows that nothing else changes. Takes CAP_NET_ADMIN
    /// beside what [`Probes::start`] takes. What became of it is among the features.
    pub fn propagate(&mut self, settings: spantap_config::Propagation) {
        let started = Propagation::start(self, settings);
        let (on, reason) = match started {
            Ok((propagation, reason)) => {
                self.propagation = Some(propagation);
                (true, reason)
            }
            Err(error) => (false, error.to_string()),
        };
        self.features.push(v1::Feature { name: PROPAGATION.to_owned(), on, reason });
    }

    /// What was done to requests so far; `None` if that was not asked for or could not be had. If the kernel refused to change the
    /// bytes of a request, or did it in a way that was not foreseen, all of it ends here.
    pub fn propagation(&mut self) -> Option<v1::Propagation> {
        let running = self.propagation.as_ref()?;
        let told = running.told();
        let failed = told.counts.iter().any(|count| count.outcome() == v1::PropagationOutcome::Failed);
        if failed {
            self.stop_propagation();
            tracing::error!(
                feature = PROPAGATION,
                "off: the kernel did not put a traceparent into a request as it should; no request is changed from now on"
            );
        }
        Some(v1::Propagation { on: !failed, ..told })
    }

    /// Another head sampler from now on: its threshold.
    pub fn sample_propagation(&mut self, threshold: u64) {
        if let Some(propagation) = &mut self.propagation {
            propagation.threshold = threshold;
            propagation.turn(true);
        }
    }

    /// No request is changed from now on.
    pub(super) fn stop_propagation(&mut self) {
        if let Some(propagation) = self.propagation.take() {
            // With the object the kernel's table of sockets goes, and each becomes what it was.
            propagation.turn(false);
        }
    }
}

impl Propagation {
    /// Loads, attaches and tries it. The text says what is not as it should be, and was accepted.
    fn start(probes: &mut Probes, settings: spantap_config::Propagation) -> Result<(Self, String), ProbeError> {
        if probes.set.object() != Object::Typed {
            return Err(ProbeError::Other(
                "not with this hook set: it takes Linux 5.17 and fentry or tracepoint".into(),
            ));
        }
        let missing = |name: &str| ProbeError::Other(format!("the object has no table {name}"));
        let btf = Btf::from_sys_fs().map_err(|error| ProbeError::NoBtf(error.to_string()))?;
        let mut object = EbpfLoader::new()
            .btf(Some(&btf))
            .load(OBJECT)
            .map_err(|error| net_admin(classify("propagate_send", &error)))?;
        for (ours, theirs) in [("selected_shared", "selected"), ("propagated_shared", "propagated")] {
            let shared = match probes.programs.map(theirs) {
                Some(Map::Array(data) | Map::HashMap(data)) => data,
                _ => return Err(missing(theirs)),
            };
            let place = object.map_mut(ours).ok_or_else(|| missing(ours))?;
            ArrayOfMaps::<_, MapData>::try_from(place).map_err(other)?.set(0, shared, 0).map_err(other)?;
        }
        let mut started = Self {
            switch: mapped(&object, "propagation", SWITCH_WORDS)?,
            outcomes: mapped(&object, "outcomes", OUTCOMES.len())?,
            untold: mapped(&probes.programs, "propagated_untold", 1)?,
            threshold: settings.threshold,
            before: [0; OUTCOMES.len()],
            _object: object,
        };
        started.attach()?;
        started.turn(true);
        let own = std::process::id();
        probes.selected.set(own, true);
        let seen = trial::run();
        probes.selected.set(own, false);
        started.before = started.outcomes();
        match seen {
            Ok(trial::Seen { wrong_fionread: false }) => Ok((started, String::new())),
            Ok(_) if settings.accept_wrong_fionread => Ok((
                started,
                "this kernel tells programs that ask how many bytes wait on their connections (FIONREAD) none, as was accepted"
                    .to_owned(),
            )),
            Ok(_) => Err(ProbeError::Other(
                "on this kernel it would change what programs see: asked how many bytes wait on a connection (FIONREAD), it says \
                 none; if no observed program asks, spantap.accept_wrong_fionread: true allows it"
                    .to_owned(),
            )),
            Err(error) => Err(ProbeError::Other(format!("requests were not changed as they should in a trial: {error}"))),
        }
    }

    fn attach(&mut self) -> Result<(), ProbeError> {
        let object = &mut self._object;
        let sockets: SockHash<_, u64> = object
            .map("propagating")
            .ok_or_else(|| ProbeError::Other("the object has no table propagating".to_owned()))?
            .try_into()
            .map_err(other)?;
        let sockets = sockets.fd().try_clone().map_err(other)?;
        let refused = |name: &'static str| move |error| net_admin(classify(name, &error));
        let sends: &mut SkMsg = program(object, "propagate_send")?.try_into().map_err(other)?;
        sends.load().map_err(refused("propagate_send"))?;
        sends.attach(&sockets).map_err(refused("propagate_send"))?;
        let group = root_group().map_err(|error| {
            ProbeError::Other(format!(
                "the root of the host's control groups (cgroup2) cannot be opened: {error}; it is looked for below /proc/1/root, and in a \
                 container that shares the host's (docker: --cgroupns host, compose: cgroup: host) in /sys/fs/cgroup"
            ))
        })?;
        let connections: &mut SockOps = program(object, "propagate_connections")?.try_into().map_err(other)?;
        connections.load().map_err(refused("propagate_connections"))?;
        connections.attach(group, CgroupAttachMode::Single).map_err(refused("propagate_connections"))?;
        Ok(())
    }

    fn turn(&self, on: bool) {
        self.switch.write([self.threshold, on.into()]);
    }

    fn outcomes(&self) -> [u64; OUTCOMES.len()] {
        std::array::from_fn(|index| self.outcomes.get(index).map_or(0, |count| count.load(Ordering::Relaxed)))
    }

    fn told(&self) -> v1::Propagation {
        let since = self.outcomes().into_iter().zip(self.before).map(|(now, before)| now - before);
        let mut counts: Vec<_> = OUTCOMES.into_iter().zip(since).collect();
        let untold = self.untold.get(0).map_or(0, |count| count.load(Ordering::Relaxed));
        counts.push((v1::PropagationOutcome::Untold, untold));
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let counts = counts.map(|(outcome, count)| v1::PropagationCount { outcome: outcome.into(), count });
        v1::Propagation { on: true, counts: counts.collect() }
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::programs::Program, ProbeError> {
    object.program_mut(name).ok_or_else(|| ProbeError::Other(format!("the object has no program {name}")))
}

/// Names the one privilege more that this takes.
fn net_admin(error: ProbeError) -> ProbeError {
    match error {
        ProbeError::NoPermission { reason, .. } => ProbeError::Other(format!(
            "the kernel says {reason}: it takes CAP_NET_ADMIN (or CAP_SYS_ADMIN) beside what the probes take (docs/privileges.md)"
        )),
        error => error,
    }
}

/// The root of the host's control groups, where the sockets of all processes are: as the first process sees it, since a
/// container has a part of the tree for its root; or as this one does, if it is in no namespace of that kind.
fn root_group() -> io::Result<File> {
    /// The first namespace of control groups, the same number on every Linux (`PROC_CGROUP_INIT_INO`).
    const INITIAL: &str = "cgroup:[4026531835]";
    group_of("/proc/1/mounts", "/proc/1/root").or_else(|error| match fs::read_link("/proc/self/ns/cgroup") {
        Ok(namespace) if namespace == Path::new(INITIAL) => group_of("/proc/self/mounts", ""),
        _ => Err(error),
    })
}

fn group_of(mounts: &str, root: &str) -> io::Result<File> {
    let mounts = fs::read_to_string(mounts)?;
    let mut places = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then_some(place)
    });
    let place = places.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "none is mounted"))?;
    File::open(format!("{root}{place}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use object::{Object as _, ObjectSection as _};

    use super::*;

    #[test]
    fn the_layout_is_that_of_the_c_compiler() {
        let file = object::File::parse(OBJECT).unwrap();
        let section = file.section_by_name("layout").unwrap();
        let words: Vec<u32> =
            section.data().unwrap().chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [80, 8 * SWITCH_WORDS as u32, OUTCOMES.len() as u32, 70]);
    }
}
