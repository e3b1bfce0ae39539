//! The agent's end of the process that attaches probes (`attacher.rs`).
//!
//! In: files, and offsets of functions in them. Out: attached probes, or what the kernel said. Blocks until there is an
//! answer, [`PATIENCE`] at most.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair, sockopt,
};

use super::{
    Programs,
    order::{MAX_BYTES, Order, Part, READY, Stop},
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The running process; it ends with this value.
#[derive(Debug)]
pub struct Helper {
    socket: OwnedFd,
    /// Its process id.
    pub pid: u32,
    programs: Programs,
}

/// Why probes are not attached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The kernel said so; another library may do.
    #[error("{0}")]
    Kernel(String),
    /// There is nobody to ask any more.
    #[error("the process that attaches probes is gone: {0}")]
    Gone(io::Error),
}

impl Helper {
    /// Starts it, while this process still has the right that it needs.
    ///
    /// # Errors
    /// If it does not begin; it has said why on standard error.
    pub fn start(programs: Programs) -> io::Result<Self> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        let child = Command::new("/proc/self/exe")
            .arg0("spantap-agent")
            .args(["--attach-tls", &programs.to_string()])
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let mut answer = [0; 1];
        match recv(&socket, &mut answer, RecvFlags::empty()) {
            Ok((_, 1)) if answer == *READY => Ok(Self { socket, pid: child.id(), programs }),
            Ok(_) => Err(io::Error::other("it ended before it began")),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has the programs of this part; if not, why not stands among the features that the log tells at the start.
    pub(super) fn can(&self, part: Part) -> Result<(), Refusal> {
        let refused = || {
            format!("this kernel does not take what it needs: see the feature {}, told at the start", part.feature())
        };
        if self.programs.have(part) { Ok(()) } else { Err(Refusal::Kernel(refused())) }
    }

    /// Attaches to places of `file`.
    pub(super) fn attach(&self, number: u32, stops: Vec<Stop>, file: &impl AsFd) -> Result<(), Refusal> {
        self.ask(&Order::Attach(number, stops), file)
    }

    fn ask(&self, order: &Order, file: &impl AsFd) -> Result<(), Refusal> {
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        let order = order.encode();
        let gone = |error: rustix::io::Errno| Refusal::Gone(error.into());
        sendmsg(&self.socket, &[IoSlice::new(&order)], &mut control, SendFlags::NOSIGNAL).map_err(gone)?;
        let mut answer = [0; MAX_BYTES];
        let (_, length) = recv(&self.socket, &mut answer, RecvFlags::empty()).map_err(gone)?;
        match answer.get(..length) {
            None | Some([]) => Err(Refusal::Gone(io::ErrorKind::UnexpectedEof.into())),
            Some([_]) => Ok(()),
            Some([_, words @ ..]) => Err(Refusal::Kernel(String::from_utf8_lossy(words).into_owned())),
        }
    }

    /// Attaches to places of `file` in one process only.
    pub(super) fn attach_to(&self, number: u32, pid: u32, stops: Vec<Stop>, file: &impl AsFd) -> Result<(), Refusal> {
        self.ask(&Order::AttachTo(number, pid, stops), file)
    }

    /// Takes the probes away again; if that cannot be asked for, it is only told.
    pub(super) fn detach(&self, number: u32) {
        let order = Order::Detach(number).encode();
        if let Err(error) = rustix::net::send(&self.socket, &order, SendFlags::NOSIGNAL) {
            tracing::debug!(refusal = %Refusal::Gone(error.into()), "probes stay until the agent ends");
        }
    }
}
