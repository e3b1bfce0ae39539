//! What the fuzz targets feed; the tests replay their corpus. Not for use.
//!
//! In: bytes. Out: nothing; a panic is the finding, and so is a bound that does not hold.

use std::{cell::Cell, collections::VecDeque};

use bytes::Bytes;
use prost::Message as _;
use spantap_proto::v1::{self, Acknowledgement};
use tokio::{
    io::{AsyncWriteExt as _, copy, duplex, sink, split},
    runtime::Runtime,
};

use crate::{
    discovery::fuzzing::{ELF_BYTES, language_of},
    queue::Queue,
    read_at::ReadAt,
    stream::{Patience, Shared, stream},
};

/// Bytes that the queue of [`acknowledgements`] takes.
const LIMIT: usize = 256;

/// What a forwarder answers while the agent fills and sends: each operation is one byte and what it takes.
///
/// # Panics
/// If the queue loses what was not sent, holds more than it may, or miscounts.
pub fn acknowledgements(data: &[u8]) {
    let mut queue = Queue::new(LIMIT);
    // What it must hold: sequence, length, whether it has events; how many are on their way.
    let mut model: VecDeque<(u64, usize, bool)> = VecDeque::new();
    let mut sent = 0;
    let mut rest = data;
    while let Some((&operation, after)) = rest.split_first() {
        rest = after;
        match operation & 3 {
            0 if queue.has_room() => {
                let sequence = queue.next_sequence();
                let (length, events) = (usize::from(operation >> 3), operation & 4 != 0);
                queue.push(sequence, Bytes::from(vec![0; length]), events);
                model.push_back((sequence, length, events));
            }
            0 => {}
            1 => {
                let next = queue.send_next().map(|bytes| bytes.len());
                assert_eq!(next, model.get(sent).map(|waiting| waiting.1));
                sent += usize::from(next.is_some());
            }
            2 => {
                let (message, after) = rest.split_at(usize::from(operation >> 2).min(rest.len()));
                rest = after;
                if let Ok(Acknowledgement { sequence, .. }) = Acknowledgement::decode(message) {
                    queue.acknowledge(sequence);
                    while sent > 0 && model.front().is_some_and(|front| front.0 <= sequence) {
                        model.pop_front();
                        sent -= 1;
                    }
                }
            }
            _ => {
                queue.rewind();
                sent = 0;
            }
        }
        let bytes = model.iter().map(|waiting| waiting.1).sum::<usize>();
        assert_eq!((queue.bytes(), queue.is_empty()), (bytes, model.is_empty()));
        assert_eq!(queue.holds_events(), model.iter().any(|waiting| waiting.2));
        assert!(queue.bytes() < LIMIT + 32, "at most one batch more than it has room for");
    }
}

/// Everything that a forwarder writes on one connection: bytes of HTTP/2 with gRPC in it, then the end of the connection.
///
/// # Panics
/// If the stream does not end, or the queue lets go of more than it was sent.
pub fn forwarder_bytes(data: &[u8]) {
    thread_local! {
        static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    let mut queue = Queue::new(LIMIT);
    for length in [10, 0, 200] {
        let sequence = queue.next_sequence();
        queue.push(sequence, Bytes::from(vec![1; length]), true);
    }
    let shared = Shared::new(queue);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (near, far) = duplex(64 * 1024);
            let (mut from_agent, mut to_agent) = split(far);
            let hello = v1::Hello::default();
            let agent = stream(&shared, Patience::default(), near, &hello, Bytes::from_static(&[0x12, 0]));
            let forwarder = async {
                let said = async {
                    // The agent may have hung up.
                    let _ = to_agent.write_all(data).await;
                    let _ = to_agent.shutdown().await;
                };
                let heard = async {
                    let _ = copy(&mut from_agent, &mut sink()).await;
                };
                tokio::join!(said, heard);
                // The bytes are over: the agent has to notice by itself.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = agent => drop(ended),
                () = forwarder => {}
            }
        });
    });
    let queue = shared.queue.borrow();
    assert!(queue.bytes() <= 210 && queue.is_empty() != queue.holds_events());
}

struct File<'a> {
    bytes: &'a [u8],
    read: Cell<usize>,
}

impl ReadAt for File<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.read.set(self.read.get() + count);
        Ok(count)
    }
}

/// Files of `/proc` and executables. The first byte says which.
///
/// # Panics
/// If more is read than the bound says.
pub fn host_files(data: &[u8]) {
    let Some((&which, bytes)) = data.split_first() else { return };
    if which & 1 == 0 {
        let file = File { bytes, read: Cell::new(0) };
        let _ = language_of(&file);
        assert!(file.read.get() <= ELF_BYTES, "{} bytes were read", file.read.get());
    } else {
        crate::discovery::fuzzing::proc_files(bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, path::Path};

    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 10, "the corpus of {target} is not there");
        for file in files {
            let bytes = fs::read(&file).unwrap();
            std::panic::catch_unwind(|| run(&bytes)).unwrap_or_else(|_| panic!("{}", file.display()));
        }
    }

    #[test]
    fn acknowledgements() {
        replay("acknowledgements", super::acknowledgements);
    }

    #[test]
    fn forwarder_bytes() {
        replay("forwarder_bytes", super::forwarder_bytes);
    }

    #[test]
    fn host_files() {
        replay("host_files", super::host_files);
    }
}
