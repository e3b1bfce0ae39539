//! Loading and attaching the kernel side.
//!
//! In: the embedded objects, the wanted hooks and sizes. Out: [`Probes`]: programs that are attached as long as it lives, the ring
//! buffers, counters of what was lost, and the list of features with the reason for each that is off.
//!
//! `hooks` lists the hook sets · `choice` takes the best of them · `types` finds the types of the kernel · `attach` brings one program to
//! the kernel, or says why not · `maps` are what both sides share · `propagation` puts `traceparent` into requests, if asked to · `error`
//! is what is said.

mod attach;
mod choice;
mod error;
mod hooks;
mod maps;
mod propagation;
mod types;

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    sync::atomic::Ordering,
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
    programs::UProbe,
};
use spantap_config::{Agent, Hooks};
use spantap_proto::v1;

pub use self::{
    error::{ProbeError, classify},
    hooks::{HookSet, Need, Object, Place, Program},
};
pub(crate) use attach::{attach, instructions, load, unload};
use choice::Taken;
pub(crate) use choice::open;
use error::other;
use maps::{ControlMap, array, mapped, take};
pub(crate) use propagation::PROPAGATION;
pub(crate) use types::{KernelTypes, OWN, kernel_types};

use crate::{
    mapped::MappedWords,
    record::{Control, HEAD_MAX, LOSSES},
    selected::SelectedProcesses,
    tls::{self, Part},
};

/// The agent is woken when the ring buffer is full to one part of this many. Each burst of work takes a processor from
/// what is watched: with an eighth of 2 MiB a load of two cores ran a fifth slower. The rest is room for a stall.
const WAKE_PART: u32 = 4;
/// A program looks at the fill level after this many bytes of its own at most.
const ASK_BYTES: u32 = 32 * 1024;

/// Words of the array `ports`: a bit for each port.
const PORT_WORDS: usize = 1024;

/// Why CPython, Node and tokio are not linked elsewhere.
const ON_X86_64_ONLY: &str = "requests of CPython, Node and tokio are linked on x86-64 only";

/// The kernel side, loaded and attached; detaches when dropped.
pub struct Probes {
    /// Socket records.
    pub socket_events: RingBuf<MapData>,
    /// Process records.
    pub process_events: RingBuf<MapData>,
    /// Which processes are observed.
    pub selected: SelectedProcesses,
    control: ControlMap,
    ports: MappedWords,
    losses: MappedWords,
    features: Vec<v1::Feature>,
    programs: Ebpf,
    set: HookSet,
    passed_over: Vec<String>,
    /// Features that the verifier refused, with its last words.
    words: Vec<(&'static str, Vec<String>)>,
    propagation: Option<propagation::Propagation>,
}

/// What the kernel side is set up with.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Which hook sets may be taken.
    pub hooks: Hooks,
    /// BTF for a kernel that does not tell it itself: a file, or a folder of such.
    pub btf: Option<&'a Path>,
    /// Size of the ring buffer of socket records, bytes, a power of two.
    pub ring_buffer_bytes: u32,
    /// Captured bytes of one turn at most.
    pub head_bytes: u32,
    /// Watch every new program until it is judged.
    pub provisional_exec: bool,
    /// Bit set of TCP ports, 64 in a word: who begins to listen there is watched until judged.
    pub ports: &'a [u64],
    /// Room for links inside of programs; `None`: there is to be none.
    pub links: Option<tls::Links>,
}

impl<'a> Setup<'a> {
    /// As configured, with no new process watched and no room for links.
    pub fn of(agent: &'a Agent) -> Self {
        Self {
            hooks: agent.hooks,
            btf: agent.btf.as_deref(),
            ring_buffer_bytes: agent.ring_buffer_bytes,
            head_bytes: agent.head_bytes.min(HEAD_MAX as u32),
            provisional_exec: false,
            ports: &[],
            links: None,
        }
    }
}

impl Probes {
    /// Loads and attaches the best hook set that this kernel takes: only attaching shows whether it does. From here on events
    /// flow for the processes that are selected.
    ///
    /// # Errors
    /// See [`ProbeError`]; optional programs that fail are features that are off.
    pub fn start(setup: Setup<'_>) -> Result<Self, ProbeError> {
        Self::of(choice::take_best(setup)?, setup)
    }

    fn of(taken: Taken, setup: Setup<'_>) -> Result<Self, ProbeError> {
        let Taken { mut programs, set, features, passed_over } = taken;
        let ports = mapped(&programs, "ports", PORT_WORDS)?;
        ports.write(setup.ports.iter().copied());
        let selected = SelectedProcesses::map(&array(&programs, "selected")?.fd()).map_err(other)?;
        let wake_bytes = setup.ring_buffer_bytes / WAKE_PART;
        let cpus = aya::util::nr_cpus().ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
        let control = Control {
            announce: 1,
            head_bytes: setup.head_bytes,
            tick: 0,
            provisional_exec: setup.provisional_exec.into(),
            wake_bytes,
            // Two programs on every CPU may have added that much unseen.
            ask_bytes: (wake_bytes / 4 / cpus.max(1)).min(ASK_BYTES),
            tls: 0,
        };
        let control = ControlMap::new(&programs, control)?;
        Ok(Self {
            socket_events: take(&mut programs, "socket_events")?,
            process_events: take(&mut programs, "process_events")?,
            losses: mapped(&programs, "losses", LOSSES)?,
            selected,
            control,
            ports,
            features,
            programs,
            set,
            passed_over,
            words: Vec::new(),
            propagation: None,
        })
    }

    /// The hook set that is attached.
    pub fn hook_set(&self) -> &'static str {
        self.set.name()
    }

    /// Better hook sets, each with why it was not taken.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Stops all events; what is in the ring buffers can still be read.
    pub fn detach(&mut self) {
        self.stop_propagation();
        for program in self.set.programs() {
            unload(&mut self.programs, &program);
        }
    }

    /// Loads the programs for TLS libraries; gives their numbers, by which another process finds them. Takes what
    /// [`Probes::start`] takes. With `links` also those that link: each runtime is a feature of its own, which is off on a kernel that does
    /// not take one of its programs.
    ///
    /// # Errors
    /// What the kernel said of those that read TLS.
    pub fn load_tls(&mut self, links: Option<tls::Links>) -> Result<tls::Programs, ProbeError> {
        if let Some(why) = self.set.without_tls() {
            return Err(ProbeError::Other(why.to_owned()));
        }
        let mut numbers = vec![0; tls::PROGRAMS.len()];
        self.load_part(Part::Tls, &mut numbers)?;
        for part in tls::Links::parts(links) {
            let outcome = match part.is_possible() {
                true => self.load_part(part, &mut numbers).map_err(|error| error.to_string()),
                false => Err(ON_X86_64_ONLY.to_owned()),
            };
            self.tell(part, outcome.err().unwrap_or_default());
        }
        Ok(tls::Programs(numbers))
    }

    /// Loads the programs of a part, and notes the kernel's numbers of them.
    fn load_part(&mut self, part: Part, numbers: &mut [u32]) -> Result<(), ProbeError> {
        let mut programs = tls::PROGRAMS.iter().zip(numbers).filter(|(name, _)| Part::of(name) == part);
        let outcome: Result<(), ProbeError> = programs.try_for_each(|(name, number)| {
            *number = self.load_entry(name)?;
            Ok(())
        });
        if let Err(error) = &outcome {
            self.words.push((part.feature(), error.last_words()));
        }
        outcome
    }

    /// Whether a part is on: why not, or nothing.
    fn tell(&mut self, part: Part, reason: String) {
        let name = part.feature().to_owned();
        self.features.retain(|known| known.name != name);
        self.features.push(v1::Feature { name, on: reason.is_empty(), reason });
    }

    /// The last words of the verifier about what it did not take of a feature.
    pub(crate) fn words_of(&self, feature: &str) -> &[String] {
        self.words.iter().find(|(name, _)| *name == feature).map(|(_, words)| &words[..]).unwrap_or_default()
    }

    /// Gives the kernel's number of it.
    fn load_entry(&mut self, name: &'static str) -> Result<u32, ProbeError> {
        let program = self.programs.program_mut(name);
        let program: &mut UProbe = program
            .ok_or_else(|| ProbeError::Other(format!("the object has no program {name}")))?
            .try_into()
            .map_err(other)?;
        program.load().map_err(|error| classify(name, &error))?;
        Ok(program.info().map_err(other)?.id())
    }

    /// The map in which the kernel side finds results of Go's calls; `None` if TLS cannot be read. To be called once.
    pub fn go_results(&self) -> Option<tls::Results> {
        mapped(&self.programs, "tls_go_results", tls::Results::PLACES).ok().map(tls::Results::new)
    }

    /// The maps in which the kernel side finds programs of CPython and tokio; `None` if TLS cannot be read. To be called once.
    pub fn linked_table(&self) -> Option<tls::LinkedTable> {
        let (programs, gate) = tls::LinkedTable::SIZES;
        let map = |name, words| mapped(&self.programs, name, words).ok();
        Some(tls::LinkedTable::new(map("linked_programs", programs)?, map("linked_gate", gate)?))
    }

    /// From now on sockets that speak TLS are told by what TLS libraries are given and give.
    pub fn read_tls(&mut self) {
        self.control.now.tls = 1;
        self.control.write();
        self.tell(Part::Tls, String::new());
    }

    /// TLS is not read, for this reason, nor linked what is asked for, which takes the same.
    pub fn without_tls(&mut self, reason: &str, links: Option<tls::Links>) {
        for part in [Part::Tls].into_iter().chain(tls::Links::parts(links)) {
            self.tell(part, reason.to_owned());
        }
    }

    /// From now on watches every new program until it is judged, if `provisional_exec`, and who begins to listen on one of
    /// `ports` ([`Setup::ports`]).
    pub fn watch(&mut self, provisional_exec: bool, ports: &[u64]) {
        self.ports.write(ports.iter().copied());
        self.control.now.provisional_exec = provisional_exec.into();
        self.control.write();
    }

    /// Features beyond the required ones, on or off.
    pub fn features(&self) -> &[v1::Feature] {
        &self.features
    }

    /// Has every socket announced again before its next event.
    pub fn announce_again(&mut self) {
        self.control.now.announce = self.control.now.announce.wrapping_add(1);
        self.control.write();
    }

    /// Tells the kernel side the length of a jiffy, nanoseconds.
    pub fn set_tick(&mut self, tick: u64) {
        self.control.now.tick = tick;
        self.control.write();
    }

    /// What the kernel side has lost so far, in the order of `enum loss`.
    pub fn losses(&self) -> [u64; LOSSES] {
        std::array::from_fn(|index| self.losses.get(index).map_or(0, |count| count.load(Ordering::Relaxed)))
    }

    /// Runs of any program that the kernel skipped, because it was interrupted inside itself (`recursion_misses`).
    pub fn skipped_runs(&self) -> u64 {
        let misses = |program: Program| -> Option<u64> {
            let fd = attach::descriptor(self.programs.program(program.name)?)?.as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
        };
        self.set.distinct_programs().into_iter().filter_map(misses).sum()
    }

    /// Instructions that the verifier looked at, by program (Linux 5.16 and later).
    pub fn verified_instructions(&self) -> Vec<(&'static str, u32)> {
        let of = |name: &'static str| Some((name, instructions(self.programs.program(name)?)?));
        let own = self.set.distinct_programs().into_iter().map(|program| program.name);
        own.chain(tls::PROGRAMS.iter().copied()).filter_map(of).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
