//! Opening sockets, and handing them to other processes.
//!
//! In: addresses, descriptors. Out: connected or listening sockets, children that have taken over.

use std::{
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sockopt,
};

use crate::script::At;

/// A blocking call on a connection gives up after this.
const WAITING: Duration = Duration::from_secs(20);

/// Listens; also returns where: a port or a path.
pub(super) fn listen(at: At, folder: &str) -> Result<(OwnedFd, String)> {
    let tcp = |address: &str| -> Result<(OwnedFd, String)> {
        let listener = TcpListener::bind(address)?;
        let port = listener.local_addr()?.port().to_string();
        Ok((listener.into(), port))
    };
    match at {
        At::V4 => tcp("127.0.0.1:0"),
        At::V6 => tcp("[::1]:0"),
        At::Mapped => tcp("[::]:0"),
        At::Port(port) => tcp(&format!("127.0.0.1:{port}")),
        At::Unix => {
            let path = format!("{folder}/{}.sock", std::process::id());
            Ok((UnixListener::bind(&path)?.into(), path))
        }
    }
}

/// Connects to a port or path.
pub(super) fn connect(at: At, peer: &str) -> Result<OwnedFd> {
    let port = || peer.parse::<u16>().with_context(|| format!("{peer} is no port"));
    let tcp = |address: SocketAddr| -> Result<OwnedFd> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?; // each write of a script is a segment of its own
        Ok(stream.into())
    };
    match at {
        At::V4 => tcp(SocketAddr::from(([127, 0, 0, 1], port()?))),
        At::V6 => tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, port()?))),
        At::Mapped => tcp(SocketAddr::from((std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port()?))),
        At::Port(port) => tcp(SocketAddr::from(([127, 0, 0, 1], port))),
        At::Unix => Ok(UnixStream::connect(peer)?.into()),
    }
}

/// Makes blocking calls on a connection end at some time, and writes leave at once.
pub(super) fn limit_waiting(connection: &OwnedFd) -> Result<()> {
    sockopt::set_socket_timeout(connection, sockopt::Timeout::Recv, Some(WAITING))?;
    sockopt::set_socket_timeout(connection, sockopt::Timeout::Send, Some(WAITING))?;
    let _ = sockopt::set_tcp_nodelay(connection, true); // Unix sockets have no such option
    Ok(())
}

fn child(task: &str, standard_input: OwnedFd) -> Result<std::process::Child> {
    let own = std::env::current_exe()?;
    let mut command = Command::new(own);
    // Its output would be taken for ours.
    command.args(["child", task]).stdin(Stdio::from(standard_input)).stdout(Stdio::null());
    Ok(command.spawn()?)
}

fn wait(mut child: std::process::Child) -> Result<()> {
    let status = child.wait()?;
    if !status.success() {
        bail!("the child ended with {status}");
    }
    Ok(())
}

/// Starts a child (vfork and exec) whose standard input is the connection, and waits for its end.
pub(super) fn inherit(connection: OwnedFd, task: String) -> Result<()> {
    wait(child(&task, connection)?)
}

/// Starts a child and passes it the connection over a Unix socket; waits for its end.
pub(super) fn pass(connection: OwnedFd, task: String) -> Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = child(&task, theirs.into())?;
    let descriptors = [std::os::fd::AsFd::as_fd(&connection)];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        bail!("no room for the descriptor");
    }
    rustix::net::sendmsg(&ours, &[std::io::IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    drop(connection);
    wait(child)
}

/// Takes a connection that was passed.
pub(super) fn take_passed(over: &OwnedFd) -> Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(over, &mut [std::io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    passed.context("no descriptor came")
}
