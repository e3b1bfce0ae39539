//! Loading and attaching the kernel side.
//!
//! In: the embedded object, the wanted sizes. Out: [`Probes`]: programs that are attached as long as it lives, the ring
//! buffers, counters of what was lost, and the list of features with the reason for each that is off.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, ProgramError, UProbe},
};
use spantap_proto::v1;

use crate::{
    record::{Control, LOSSES},
    selected::SelectedProcesses,
    tls,
};

/// The compiled kernel side.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/spantap.bpf.o"));

/// Name of the only hook set so far.
pub const HOOK_SET: &str = "btf-tracepoints";

/// The agent is woken when the ring buffer is full to one part of this many. Each burst of work takes a processor from
/// what is watched: with an eighth of 2 MiB a load of two cores ran a fifth slower. The rest is room for a stall.
const WAKE_PART: u32 = 4;
/// A program looks at the fill level after this many bytes of its own at most.
const ASK_BYTES: u32 = 32 * 1024;

/// Why the kernel side cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No BTF: the types of the running kernel are not known.
    #[error("this kernel has no BTF ({0}): it needs CONFIG_DEBUG_INFO_BTF=y, file /sys/kernel/btf/vmlinux")]
    NoBtf(String),
    /// A program that everything rests on cannot be had on this kernel.
    #[error("the kernel lacks what the probe {program} needs (Linux 6.3 or later with BTF tracepoints): {reason}")]
    Unsupported {
        /// Program that failed.
        program: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel says that we may not.
    #[error("no permission to load the probe {program}: {reason}; it takes CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN")]
    NoPermission {
        /// Program or map that failed.
        program: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// Anything else.
    #[error("cannot set up the kernel side: {0}")]
    Other(String),
}

/// Whether the agent can do its work without a program.
#[derive(Debug)]
pub enum Need {
    /// It cannot.
    Required,
    /// It can.
    Optional {
        /// What the program is for.
        feature: &'static str,
        /// What is missing then.
        without: &'static str,
    },
}

/// Every program of the hook set.
pub const PROGRAMS: &[(&str, Need)] = &[
    ("sock_recv_length", Need::Required),
    ("sock_send_length", Need::Required),
    ("inet_sock_set_state", Need::Required),
    ("sched_process_fork", Need::Required),
    ("sched_process_exec", Need::Required),
    ("sched_process_exit", Need::Required),
    (
        "tcp_sendmsg_locked",
        Need::Optional {
            feature: "send-start",
            without: "the start of a send is taken from its end; data of sendmmsg and of io_uring sends is not read",
        },
    ),
    (
        "io_uring_complete",
        Need::Optional { feature: "io-uring-data", without: "data received by io_uring is counted, but not read" },
    ),
];

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
    /// Loads everything, attaches nothing yet.
    ///
    /// # Errors
    /// See [`ProbeError`]; optional programs that fail are features that are off.
    pub fn load(setup: Setup<'_>) -> Result<Self, ProbeError> {
        let btf = Btf::from_sys_fs().map_err(|error| ProbeError::NoBtf(error.to_string()))?;
        let mut programs = EbpfLoader::new()
            .btf(Some(&btf))
            // Only programs use the storage of tasks; this side has no type for it.
            .allow_unsupported_maps()
            .map_max_entries("socket_events", setup.ring_buffer_bytes)
            .load(OBJECT)
            .map_err(|error| classify("maps", &error))?;
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
        let mut features = Vec::new();
        for (name, need) in PROGRAMS {
            let program: &mut BtfTracePoint = programs
                .program_mut(name)
                .ok_or_else(|| ProbeError::Other(format!("the object has no program {name}")))?
                .try_into()
                .map_err(other)?;
            match (program.load(name, &btf), need) {
                (Ok(()), Need::Optional { feature, .. }) => {
                    features.push(v1::Feature { name: (*feature).to_owned(), on: true, reason: String::new() })
                }
                (Ok(()), Need::Required) => {}
                (Err(error), Need::Optional { feature, without }) => {
                    tracing::debug!(program = name, %error, "optional probe is off");
                    features.push(v1::Feature {
                        name: (*feature).to_owned(),
                        on: false,
                        reason: format!("the kernel lacks the tracepoint {name}: {without}"),
                    });
                }
                (Err(error), Need::Required) => return Err(classify(name, &error)),
            }
        }
        Ok(Self {
            socket_events: take(&mut programs, "socket_events")?,
            process_events: take(&mut programs, "process_events")?,
            losses: take(&mut programs, "losses")?,
            selected,
            control,
            ports,
            features,
            programs,
        })
    }

    /// Attaches what was loaded. From here on events flow for the processes that are selected.
    ///
    /// # Errors
    /// If a required program cannot be attached.
    pub fn attach(&mut self) -> Result<(), ProbeError> {
        for (name, need) in PROGRAMS {
            let Some(program) = self.programs.program_mut(name) else { continue };
            let program: &mut BtfTracePoint = program.try_into().map_err(other)?;
            if program.fd().is_err() {
                continue;
            }
            match (program.attach(), need) {
                (Ok(_), _) => {}
                (Err(error), Need::Required) => return Err(classify(name, &error)),
                (Err(error), Need::Optional { feature, without }) => {
                    for off in self.features.iter_mut().filter(|known| known.name == *feature) {
                        off.on = false;
                        off.reason = format!("cannot attach to {name} ({error}): {without}");
                    }
                }
            }
        }
        Ok(())
    }

    /// Stops all events; what is in the ring buffers can still be read.
    pub fn detach(&mut self) {
        for (name, _) in PROGRAMS {
            if let Some(Ok(program)) = self.programs.program_mut(name).map(<&mut BtfTracePoint>::try_from) {
                // An unload that fails leaves the program attached until this process ends.
                let _ = program.unload();
            }
        }
    }

    /// Loads the programs for TLS libraries; gives their numbers, by which another process finds them. Takes what
    /// [`Probes::load`] takes.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn load_tls(&mut self) -> Result<tls::Programs, ProbeError> {
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
        let misses = |name: &str| -> Option<u64> {
            let program: &BtfTracePoint = self.programs.program(name)?.try_into().ok()?;
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
        };
        PROGRAMS.iter().filter_map(|(name, _)| misses(name)).sum()
    }

    /// Instructions that the verifier looked at, by program (Linux 5.16 and later).
    pub fn verified_instructions(&self) -> Vec<(&'static str, u32)> {
        let verified = |name: &str| -> Option<u32> {
            let program: &BtfTracePoint = self.programs.program(name)?.try_into().ok()?;
            program.info().ok()?.verified_instruction_count()
        };
        let tls = tls::PROGRAMS.into_iter().filter_map(|name| {
            let program: &UProbe = self.programs.program(name)?.try_into().ok()?;
            Some((name, program.info().ok()?.verified_instruction_count()?))
        });
        PROGRAMS.iter().filter_map(|(name, _)| Some((*name, verified(name)?))).chain(tls).collect()
    }
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

fn other(error: impl std::fmt::Display) -> ProbeError {
    ProbeError::Other(error.to_string())
}

/// Tells a missing privilege from a missing kernel feature, by the first I/O error in the chain of causes.
pub fn classify(program: &'static str, error: &(dyn std::error::Error + 'static)) -> ProbeError {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            let reason = io.to_string();
            return match io.kind() {
                io::ErrorKind::PermissionDenied => ProbeError::NoPermission { program, reason },
                _ => ProbeError::Unsupported { program, reason },
            };
        }
        if let Some(ProgramError::LoadError { io_error, verifier_log }) = current.downcast_ref::<ProgramError>() {
            tracing::debug!(program, %verifier_log, "the verifier's words");
            let reason = io_error.to_string();
            return match io_error.kind() {
                io::ErrorKind::PermissionDenied => ProbeError::NoPermission { program, reason },
                _ => ProbeError::Unsupported { program, reason },
            };
        }
        cause = current.source();
    }
    ProbeError::Unsupported { program, reason: error.to_string() }
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
        let setup = Setup { ring_buffer_bytes: 1 << 20, head_bytes: 4096, provisional_exec: false, ports: &[0; 1024] };
        let mut probes = match Probes::load(setup) {
            Err(ProbeError::Unsupported { program, reason }) => {
                eprintln!("SKIP: this kernel has no {program}: {reason}");
                return;
            }
            loaded => loaded.unwrap(),
        };
        probes.load_tls().unwrap();
        assert_eq!(probes.verified_instructions().len(), PROGRAMS.len() + tls::PROGRAMS.len());
        for (program, instructions) in probes.verified_instructions() {
            assert!(instructions < 20_000, "{program} takes {instructions} verified instructions");
        }
        assert_eq!(probes.losses(), [0; LOSSES]);
        assert_eq!(probes.skipped_runs(), 0);
    }
}
