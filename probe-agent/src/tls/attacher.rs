//! The process that attaches probes to libraries after the agent has given up the right to.
//!
//! In: numbers of the agent's own programs, on the command line; orders on standard input, a socket whose other end the
//! agent holds: a descriptor of a file, and offsets in it. Out: attached probes, as long as both live; an answer to each
//! order: empty, or what the kernel said.
//!
//! Kernels from mid-2025 on ask CAP_SYS_ADMIN for such probes. The agent reads what hostile programs wrote, so it is not the
//! one to hold that: this process reads nothing but the agent's orders, opens no file of others, and can do nothing but
//! attach programs that are loaded already.

use std::{
    collections::HashMap,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    num::NonZeroU32,
    os::fd::{AsRawFd, OwnedFd},
    sync::mpsc,
    thread,
};

use aya::programs::{
    ProbeKind, ProgramError, UProbe, loaded_programs,
    uprobe::{UProbeLink, UProbeScope},
};
use caps::{CapSet, Capability, CapsHashSet};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

use super::{
    filter,
    order::{Function, MAX_BYTES, Order, PROGRAMS, Part, READY, Stop, When},
};
use crate::failure::Failure;

/// Place in [`PROGRAMS`] of what is attached where functions are left.
const LEAVE: usize = 0;

/// Numbers that the kernel gave to [`PROGRAMS`]; 0: it did not take that one, or was not asked to. All of [`Part::Tls`] have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs(pub Vec<u32>);

impl Programs {
    /// Whether the kernel has all of this part.
    pub(super) fn have(&self, part: Part) -> bool {
        let mut of = PROGRAMS.iter().zip(&self.0).filter(|(name, _)| Part::of(name) == part).peekable();
        of.peek().is_some() && of.all(|(_, number)| *number != 0)
    }
}

impl std::str::FromStr for Programs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
        let numbers = numbers.ok().filter(|numbers| numbers.len() == PROGRAMS.len());
        numbers.map(Self).ok_or_else(|| format!("{} numbers with commas between them", PROGRAMS.len()))
    }
}

impl std::fmt::Display for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

struct Attacher {
    /// In the order of [`PROGRAMS`]; `None`: the kernel did not take it, or it is where functions are left.
    enter: Vec<Option<UProbe>>,
    /// At instructions where functions are left.
    leave: UProbe,
    /// The same, where the kernel catches their return.
    returned: UProbe,
    /// CPython's copy of a context, where the kernel catches its return; `None`: it is not linked.
    copied: Option<UProbe>,
    links: HashMap<u32, Vec<UProbeLink>>,
    /// To the thread that detaches.
    detach: mpsc::Sender<Vec<UProbeLink>>,
}

/// Runs until the agent closes its end.
///
/// # Errors
/// If it cannot begin; the agent hears of it by the end of the socket.
pub fn run(programs: &Programs) -> Result<(), Failure> {
    let get = |place: usize, kind| {
        let (name, number) = (PROGRAMS.get(place).copied(), programs.0.get(place).copied());
        program(number.unwrap_or_default(), name.unwrap_or_default(), kind)
    };
    let parts = Part::LINKS.map(|part| (part, programs.have(part)));
    let is_lacking = |place: usize| {
        let part = PROGRAMS.get(place).map(|name| Part::of(name));
        place == LEAVE || parts.iter().any(|(of, is_there)| Some(*of) == part && !is_there)
    };
    let entry = |place| if is_lacking(place) { Ok(None) } else { get(place, ProbeKind::Entry).map(Some) };
    let enter: Result<Vec<_>, Failure> = (0..PROGRAMS.len()).map(entry).collect();
    let (enter, leave, returned) = (enter?, get(LEAVE, ProbeKind::Entry)?, get(LEAVE, ProbeKind::Return)?);
    let links_python = programs.have(Part::Python);
    let copied = links_python.then(|| get(Function::PyCopied.program(), ProbeKind::Return)).transpose()?;
    // Finds out what the kernel can do, which takes more than is left below.
    tracing::trace!(features = ?aya::features());
    give_up().map_err(|error| Failure::Privilege(error.to_string()))?;
    spantap_confinement::seal()?;
    let detach = start_detaching()?;
    let mut attacher = Attacher { enter, leave, returned, copied, links: HashMap::new(), detach };
    filter::install().map_err(|error| Failure::Unavailable(error.to_string()))?;
    let input = io::stdin();
    // Says that it has begun.
    send(&input, READY, SendFlags::empty()).map_err(io::Error::from)?;
    let mut buffer = [0; MAX_BYTES];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&input, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let bytes = match received {
            Ok(message) if message.bytes == 0 => return Ok(()),
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let file = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let answer = match Order::decode(buffer.get(..bytes).unwrap_or_default()) {
            Some(Order::Attach(number, stops)) => match file {
                Some(file) => Some(attacher.attach(number, UProbeScope::AllProcesses, &stops, &file)),
                None => Some("there is no file".to_owned()),
            },
            Some(Order::AttachTo(number, pid, stops)) => match (file, NonZeroU32::new(pid)) {
                (Some(file), Some(pid)) => Some(attacher.attach(number, UProbeScope::OneProcess(pid), &stops, &file)),
                _ => Some("there is no file or no process".to_owned()),
            },
            Some(Order::Detach(number)) => {
                if let Some(links) = attacher.links.remove(&number) {
                    // The thread lives as long as this process.
                    let _ = attacher.detach.send(links);
                }
                None
            }
            None => Some("no order".to_owned()),
        };
        if let Some(answer) = answer {
            // The first byte is there even if there is nothing to say: an empty message is the end.
            let mut message = vec![b' '];
            message.extend(answer.bytes().take(MAX_BYTES - 1));
            send(&input, &message, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        }
    }
}

impl Attacher {
    /// All or nothing; empty if all.
    fn attach(&mut self, number: u32, scope: UProbeScope, stops: &[Stop], file: &OwnedFd) -> String {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut links = Vec::new();
        for stop in stops {
            let program = match stop.when {
                When::Enter => self.enter.get_mut(stop.function.program()).and_then(Option::as_mut),
                When::Leave => Some(&mut self.leave),
                When::Return if stop.function == Function::PyCopied => self.copied.as_mut(),
                When::Return => Some(&mut self.returned),
            };
            let Some(program) = program else {
                let _ = self.detach.send(links);
                return "the kernel did not take the program for it".to_owned();
            };
            let attached = program.attach(stop.offset, &path, scope).and_then(|id| program.take_link(id));
            match attached {
                Ok(link) => links.push(link),
                Err(error) => {
                    let _ = self.detach.send(links);
                    return words(&error);
                }
            }
        }
        self.links.insert(number, links);
        String::new()
    }
}

/// Starts a thread that detaches what it is given. For each probe the kernel waits until all processors have left what may
/// run it, a tenth of a second or so: nobody who attaches should wait for that. Returns once the thread needs no more than
/// the filter leaves it.
fn start_detaching() -> io::Result<mpsc::Sender<Vec<UProbeLink>>> {
    let (sender, links) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    thread::Builder::new().name("detach".to_owned()).spawn(move || {
        let _ = ready.send(());
        links.into_iter().for_each(drop);
    })?;
    is_ready.recv().map_err(io::Error::other)?;
    Ok(sender)
}

/// What the kernel said.
fn words(error: &ProgramError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(current) = cause {
        text = format!("{text}: {current}");
        cause = current.source();
    }
    text
}

/// One of the agent's programs, which are loaded.
#[allow(unsafe_code)]
fn program(number: u32, name: &'static str, kind: ProbeKind) -> Result<UProbe, Failure> {
    let cannot = |error: String| Failure::Unavailable(format!("the probe {name} cannot be had: {error}"));
    let info = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == number && info.name_as_str() == Some(name))
        .ok_or_else(|| cannot(format!("no loaded program {number} has this name")))?;
    // SAFETY: the function checks that the program's type is the kernel's KPROBE; what it cannot check is that it was made
    // for functions of user space. It is the agent's own, of the same build, by number and name; were it another, attaching
    // it would be refused by the kernel, and no memory of this process is concerned.
    unsafe { UProbe::from_program_info(info, name.into(), kind) }.map_err(|error| cannot(words(&error)))
}

/// Keeps what attaching takes, and nothing else.
fn give_up() -> Result<(), caps::errors::CapsError> {
    let keep = CapsHashSet::from([Capability::CAP_SYS_ADMIN]);
    caps::clear(None, CapSet::Ambient)?;
    for capability in caps::all() {
        // Without CAP_SETPCAP the set stays; no_new_privs closes that way.
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    caps::clear(None, CapSet::Inheritable)
}
