//! Sending with the system call that the script names.
//!
//! In: bytes. Out: all of them sent, or an error.

use std::{
    io::{IoSlice, Seek, Write},
    os::fd::OwnedFd,
};

use anyhow::{Result, bail};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, retry_on_intr},
    net::{MMsgHdr, SendAncillaryBuffer, SendFlags},
    pipe::SpliceFlags,
};

use crate::script::{Data, How};

/// The bytes of a piece of data in one repetition.
pub(super) fn bytes(data: &Data, round: u32) -> Vec<u8> {
    match data {
        Data::Text(text) => text.replace("{n}", &round.to_string()).into_bytes(),
        Data::Bytes(bytes) => bytes.clone(),
        Data::Fill { count, with } => {
            with.bytes().cycle().take(usize::try_from(*count).unwrap_or(usize::MAX)).collect()
        }
        Data::Then(first, second) => [bytes(first, round), bytes(second, round)].concat(),
    }
}

/// Sends all of `bytes`.
pub(super) fn send(socket: &OwnedFd, bytes: &[u8], how: How) -> Result<()> {
    match how {
        How::Write => all(bytes, |rest| rustix::io::write(socket, rest)),
        // No SIGPIPE: Rust's programs ignore it anyway.
        How::Send => all(bytes, |rest| rustix::net::send(socket, rest, SendFlags::NOSIGNAL)),
        How::Writev(pieces) => all(bytes, |rest| rustix::io::writev(socket, &slices(rest, pieces))),
        How::Sendmsg(pieces) => all(bytes, |rest| {
            let mut control = SendAncillaryBuffer::default();
            rustix::net::sendmsg(socket, &slices(rest, pieces), &mut control, SendFlags::NOSIGNAL)
        }),
        How::Sendmmsg(messages) => sendmmsg(socket, bytes, messages),
        How::Sendfile => sendfile(socket, bytes),
        How::Splice => splice(socket, bytes),
        How::NonBlocking => non_blocking(socket, bytes),
    }
}

fn all(bytes: &[u8], mut call: impl FnMut(&[u8]) -> rustix::io::Result<usize>) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let sent = retry_on_intr(|| call(rest))?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

fn slices(bytes: &[u8], pieces: usize) -> Vec<IoSlice<'_>> {
    bytes.chunks(bytes.len().div_ceil(pieces.max(1)).max(1)).map(IoSlice::new).collect()
}

fn sendmmsg(socket: &OwnedFd, bytes: &[u8], messages: usize) -> Result<()> {
    let pieces = slices(bytes, messages);
    let mut controls: Vec<_> = pieces.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut headers: Vec<_> =
        pieces.chunks(1).zip(&mut controls).map(|(piece, control)| MMsgHdr::new(piece, control)).collect();
    let sent = rustix::net::sendmmsg(socket, &mut headers, SendFlags::NOSIGNAL)?;
    let moved: usize = headers.iter().map(MMsgHdr::bytes_sent).sum();
    if sent != pieces.len() || moved != bytes.len() {
        bail!("sendmmsg sent {sent} of {} messages, {moved} of {} bytes", pieces.len(), bytes.len());
    }
    Ok(())
}

fn sendfile(socket: &OwnedFd, bytes: &[u8]) -> Result<()> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    let mut left = bytes.len();
    while left > 0 {
        match retry_on_intr(|| rustix::fs::sendfile(socket, &file, None, left))? {
            0 => bail!("sendfile ended early"),
            sent => left -= sent,
        }
    }
    Ok(())
}

fn splice(socket: &OwnedFd, bytes: &[u8]) -> Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    for piece in bytes.chunks(4096) {
        rustix::io::write(&writer, piece)?;
        let mut left = piece.len();
        while left > 0 {
            left -= retry_on_intr(|| rustix::pipe::splice(&reader, None, socket, None, left, SpliceFlags::empty()))?;
        }
    }
    Ok(())
}

fn non_blocking(socket: &OwnedFd, bytes: &[u8]) -> Result<()> {
    rustix::net::sockopt::set_socket_send_buffer_size(socket, 4096)?;
    rustix::io::ioctl_fionbio(socket, true)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(socket, rest) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(socket, PollFlags::OUT)], None)?;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::io::ioctl_fionbio(socket, false)?;
    Ok(())
}
