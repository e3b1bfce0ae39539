//! Loading and attaching the kernel side.
//!
//! In: the embedded objects, the wanted hooks and sizes. Out: [`Probes`]: programs that are attached as long as it lives, the ring
//! buffers, counters of what was lost, and the list of features with the reason for each that is off.
//!
//! `hooks` lists the hook sets · `attach` brings one program to the kernel, or says why not · `error` is what is said.

mod attach;
mod error;
mod hooks;

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, PerCpuArray, RingBuf},
    programs::UProbe,
};
use spantap_config::Hooks;
use spantap_proto::v1;

pub use self::{
    error::{ProbeError, classify},
    hooks::{HookSet, Need, Object, Place, Program},
};
pub(crate) use attach::{attach, instructions, load, unload};
use error::other;

use crate::{
    record::{Control, LOSSES},
    selected::SelectedProcesses,
    tls,
};

/// The agent is woken when the ring buffer is full to one part of this many. Each burst of work takes a processor from
/// what is watched: with an eighth of 2 MiB a load of two cores ran a fifth slower. The rest is room for a stall.
const WAKE_PART: u32 = 4;
/// A program looks at the fill level after this many bytes of its own at most.
const ASK_BYTES: u32 = 32 * 1024;

/// Name of the feature that reads TLS.
pub const TLS: &str = "tls";

/// The kernel side, loaded and attached; detaches when dropped.
pub struct Probes {
    /// Socket records.
    pub socket_events: RingBuf<MapData>,
    /// Process records.
    pub process_events: RingBuf<MapData>,
    /// Which processes are observed.
    pub selected: SelectedProcesses,
    control: ControlMap,
    ports: Array<MapData, u64>,
    losses: PerCpuArray<MapData, u64>,
    features: Vec<v1::Feature>,
    programs: Ebpf,
    set: HookSet,
    passed_over: Vec<String>,
}

struct ControlMap {
    map: Array<MapData, Control>,
    now: Control,
}

// SAFETY: Control is repr(C) and made of integers without padding between or after them, so any bytes are a value.
#[allow(unsafe_code)]
unsafe impl aya::Pod for Control {}

/// What the kernel side is set up with.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Which hook sets may be taken.
    pub hooks: Hooks,
    /// Size of the ring buffer of socket records, bytes, a power of two.
    pub ring_buffer_bytes: u32,
    /// Captured bytes of one turn at most.
    pub head_bytes: u32,
    /// Watch every new program until it is judged.
    pub provisional_exec: bool,
    /// Bit set of TCP ports, 64 in a word: who begins to listen there is watched until judged.
    pub ports: &'a [u64],
}

impl Probes {
    /// Loads and attaches the best hook set that this kernel takes: only attaching shows whether it does. From here on events
    /// flow for the processes that are selected.
    ///
    /// # Errors
    /// See [`ProbeError`]; optional programs that fail are features that are off.
    pub fn start(setup: Setup<'_>) -> Result<Self, ProbeError> {
        let btf = Btf::from_sys_fs().map_err(|error| ProbeError::NoBtf(error.to_string()))?;
        let mut opened: Vec<(Object, Result<Ebpf, ProbeError>)> = Vec::new();
        let mut refusals: Vec<(HookSet, ProbeError)> = Vec::new();
        for set in HookSet::wanted(setup.hooks) {
            // Sets that share an object share its maps as well.
            if !opened.iter().any(|(object, _)| *object == set.object()) {
                opened.clear();
                opened.push((set.object(), open(set.object(), setup.ring_buffer_bytes, &btf)));
            }
            let attempt = match opened.first_mut() {
                Some((_, Ok(programs))) => take_set(*set, programs, &btf),
                Some((_, Err(error))) => Err(ProbeError::Other(error.to_string())),
                None => continue,
            };
            match attempt {
                Ok(features) => {
                    let Some((_, Ok(programs))) = opened.pop() else { continue };
                    let passed_over = refusals
                        .iter()
                        .map(|(set, error)| format!("{}: {}", set.name(), error.of_a_set_passed_over()))
                        .collect();
                    return Self::of(programs, *set, features, passed_over, setup);
                }
                Err(error) => {
                    tracing::debug!(hook_set = set.name(), %error, "not taken");
                    refusals.push((*set, error));
                }
            }
        }
        Err(none_taken(refusals))
    }

    fn of(
        mut programs: Ebpf,
        set: HookSet,
        features: Vec<v1::Feature>,
        passed_over: Vec<String>,
        setup: Setup<'_>,
    ) -> Result<Self, ProbeError> {
        let mut ports: Array<_, u64> = take(&mut programs, "ports")?;
        for (word, bits) in (0u32..).zip(setup.ports).filter(|(_, bits)| **bits != 0) {
            ports.set(word, *bits, 0).map_err(other)?;
        }
        let selected = match programs.map("selected") {
            Some(Map::Array(data)) => SelectedProcesses::map(&data.fd()).map_err(other)?,
            _ => return Err(ProbeError::Other("the object has no array selected".to_owned())),
        };
        let wake_bytes = setup.ring_buffer_bytes / WAKE_PART;
        let cpus = aya::util::nr_cpus().ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
        let mut control = ControlMap {
            map: take(&mut programs, "control")?,
            now: Control {
                announce: 1,
                head_bytes: setup.head_bytes,
                tick: 0,
                provisional_exec: setup.provisional_exec.into(),
                wake_bytes,
                // Two programs on every CPU may have added that much unseen.
                ask_bytes: (wake_bytes / 4 / cpus.max(1)).min(ASK_BYTES),
                tls: 0,
            },
        };
        control.write()?;
        Ok(Self {
            socket_events: take(&mut programs, "socket_events")?,
            process_events: take(&mut programs, "process_events")?,
            losses: take(&mut programs, "losses")?,
            selected,
            control,
            ports,
            features,
            programs,
            set,
            passed_over,
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
        for program in self.set.programs() {
            unload(&mut self.programs, &program);
        }
    }

    /// Loads the programs for TLS libraries; gives their numbers, by which another process finds them. Takes what
    /// [`Probes::start`] takes.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn load_tls(&mut self) -> Result<tls::Programs, ProbeError> {
        if let Some(why) = self.set.without_tls() {
            return Err(ProbeError::Other(why.to_owned()));
        }
        let mut numbers = Vec::new();
        for name in tls::PROGRAMS {
            let program = self.programs.program_mut(name);
            let program: &mut UProbe = program
                .ok_or_else(|| ProbeError::Other(format!("the object has no program {name}")))?
                .try_into()
                .map_err(other)?;
            program.load().map_err(|error| classify(name, &error))?;
            numbers.push(program.info().map_err(other)?.id());
        }
        Ok(tls::Programs(numbers))
    }

    /// From now on sockets that speak TLS are told by what TLS libraries are given and give.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn read_tls(&mut self) -> Result<(), ProbeError> {
        self.control.now.tls = 1;
        self.control.write()?;
        self.features.push(v1::Feature { name: TLS.to_owned(), on: true, reason: String::new() });
        Ok(())
    }

    /// TLS is not read, for this reason.
    pub fn without_tls(&mut self, reason: String) {
        self.features.push(v1::Feature { name: TLS.to_owned(), on: false, reason });
    }

    /// From now on watches every new program until it is judged, if `provisional_exec`, and who begins to listen on one of
    /// `ports` ([`Setup::ports`]).
    ///
    /// # Errors
    /// What the kernel said.
    pub fn watch(&mut self, provisional_exec: bool, ports: &[u64]) -> Result<(), ProbeError> {
        for (word, bits) in (0u32..).zip(ports) {
            self.ports.set(word, *bits, 0).map_err(other)?;
        }
        self.control.now.provisional_exec = provisional_exec.into();
        self.control.write()
    }

    /// Features beyond the required ones, on or off.
    pub fn features(&self) -> &[v1::Feature] {
        &self.features
    }

    /// Has every socket announced again before its next event.
    pub fn announce_again(&mut self) -> Result<(), ProbeError> {
        self.control.now.announce = self.control.now.announce.wrapping_add(1);
        self.control.write()
    }

    /// Tells the kernel side the length of a jiffy, nanoseconds.
    pub fn set_tick(&mut self, tick: u64) -> Result<(), ProbeError> {
        self.control.now.tick = tick;
        self.control.write()
    }

    /// What the kernel side has lost so far, in the order of `enum loss`.
    pub fn losses(&self) -> [u64; LOSSES] {
        let mut sums = [0; LOSSES];
        for (index, sum) in (0..).zip(&mut sums) {
            // A counter that cannot be read stays 0; the map is ours and lives as long as we do.
            if let Ok(values) = self.losses.get(&index, 0) {
                *sum = values.iter().sum();
            }
        }
        sums
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
        own.chain(tls::PROGRAMS).filter_map(of).collect()
    }
}

/// The object with its maps in the kernel, its programs not yet.
pub(crate) fn open(object: Object, ring_buffer_bytes: u32, btf: &Btf) -> Result<Ebpf, ProbeError> {
    EbpfLoader::new()
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
    let all_refused = refusals.iter().all(|(_, error)| matches!(error, ProbeError::NoPermission { .. }));
    if (all_refused || refusals.len() == 1)
        && let Some((_, error)) = refusals.pop()
    {
        return error;
    }
    let each = refusals.iter().map(|(set, error)| format!("{}, but {error}", set.takes()));
    ProbeError::NoHooks(each.collect::<Vec<_>>().join("; "))
}

impl ControlMap {
    fn write(&mut self) -> Result<(), ProbeError> {
        self.map.set(0, self.now, 0).map_err(other)
    }
}

fn take<M>(programs: &mut Ebpf, name: &'static str) -> Result<M, ProbeError>
where
    M: TryFrom<Map>,
    M::Error: std::fmt::Display,
{
    let map = programs.take_map(name).ok_or_else(|| ProbeError::Other(format!("the object has no map {name}")))?;
    M::try_from(map).map_err(other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
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

    fn verify(hooks: Hooks) {
        let setup =
            Setup { hooks, ring_buffer_bytes: 1 << 20, head_bytes: 4096, provisional_exec: false, ports: &[0; 1024] };
        let mut probes = match Probes::start(setup) {
            Ok(probes) => probes,
            Err(error) => {
                assert_ne!(hooks, Hooks::Auto, "{error}");
                eprintln!("SKIP: {hooks:?} cannot be had on this kernel: {error}");
                return;
            }
        };
        if probes.set.without_tls().is_none() {
            probes.load_tls().unwrap();
        }
        assert!(probes.verified_instructions().len() > 8);
        for (program, instructions) in probes.verified_instructions() {
            assert!(instructions < 20_000, "{program} takes {instructions} verified instructions");
        }
        assert_eq!(probes.losses(), [0; LOSSES]);
        assert_eq!(probes.skipped_runs(), 0);
    }
}
