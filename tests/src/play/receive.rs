//! Receiving with the system call that the script names.
//!
//! In: a socket, how far to read. Out: bytes read beyond that, kept for the next step.

use std::{io::IoSliceMut, os::fd::OwnedFd};

use anyhow::{Result, bail};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, retry_on_intr},
    net::{RecvAncillaryBuffer, RecvFlags},
};

use crate::script::{By, Until};

/// Reads as far as `until` says; `pending` holds what was read beyond.
pub(super) fn read(socket: &OwnedFd, pending: &mut Vec<u8>, until: &Until, by: By, chunk: usize) -> Result<()> {
    let mut buffer = vec![0; chunk.max(1)];
    let mut left = match until {
        Until::Bytes(count) => usize::try_from(*count)?,
        Until::Mark(_) | Until::End => 0,
    };
    loop {
        match until {
            Until::Bytes(_) => {
                // Large bodies are thrown away as they come.
                let now = pending.len().min(left);
                pending.drain(..now);
                left -= now;
                if left == 0 {
                    return Ok(());
                }
            }
            Until::Mark(mark) => {
                if let Some(at) = pending.windows(mark.len()).position(|w| w == mark.as_bytes()) {
                    pending.drain(..at + mark.len());
                    return Ok(());
                }
            }
            Until::End => pending.clear(),
        }
        // Exactly what is due, so that a body is not read together with the head that follows it.
        let most = if left > 0 { left.min(buffer.len()) } else { buffer.len() };
        let space = buffer.get_mut(..most).unwrap_or_default();
        match once(socket, space, by) {
            Ok(0) if matches!(until, Until::End) => return Ok(()),
            Ok(0) => bail!("the other end closed while {until:?} was due"),
            Ok(count) => pending.extend(buffer.get(..count).unwrap_or_default()),
            Err(Errno::CONNRESET) if matches!(until, Until::End) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn once(socket: &OwnedFd, buffer: &mut [u8], by: By) -> rustix::io::Result<usize> {
    match by {
        By::Read => retry_on_intr(|| rustix::io::read(socket, &mut *buffer)),
        By::Recv => rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count),
        By::Peek => {
            rustix::net::recv(socket, &mut *buffer, RecvFlags::PEEK)?;
            rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count)
        }
        By::Readv => rustix::io::readv(socket, &mut thirds(buffer)),
        By::Recvmsg => {
            let mut control = RecvAncillaryBuffer::default();
            rustix::net::recvmsg(socket, &mut thirds(buffer), &mut control, RecvFlags::empty()).map(|m| m.bytes)
        }
        By::NonBlocking => {
            rustix::io::ioctl_fionbio(socket, true)?;
            let outcome = loop {
                match rustix::io::read(socket, &mut *buffer) {
                    Err(Errno::AGAIN) => poll(&mut [PollFd::new(socket, PollFlags::IN)], None).map(drop)?,
                    Err(Errno::INTR) => {}
                    other => break other,
                }
            };
            rustix::io::ioctl_fionbio(socket, false)?;
            outcome
        }
    }
}

fn thirds(buffer: &mut [u8]) -> Vec<IoSliceMut<'_>> {
    let size = buffer.len().div_ceil(3).max(1);
    buffer.chunks_mut(size).map(IoSliceMut::new).collect()
}
