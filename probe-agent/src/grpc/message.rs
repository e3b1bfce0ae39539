//! Messages on the wire of gRPC: a flag of compression, the length in four bytes, the message.
//!
//! In: bytes as they arrive, in any pieces. Out: whole messages, of bounded length.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::CallError;

/// Length of the prefix of each message.
const PREFIX: usize = 5;

/// What stands before a message of `length` bytes that is not compressed.
///
/// # Errors
/// If the length does not fit four bytes.
pub(super) fn prefix(length: usize) -> Result<Bytes, CallError> {
    let length = u32::try_from(length).map_err(|_| CallError::Protocol("a message is too long to be sent"))?;
    let mut prefix = BytesMut::with_capacity(PREFIX);
    prefix.put_u8(0);
    prefix.put_u32(length);
    Ok(prefix.freeze())
}

/// Finds messages in what arrives. Holds no more than a message and a frame if [`Reader::message`] is asked until it has
/// no more before each [`Reader::push`].
#[derive(Debug)]
pub(super) struct Reader {
    buffer: BytesMut,
    limit: usize,
}

impl Reader {
    /// For messages of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit }
    }

    /// Takes what has arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing has arrived of a message that is not complete.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next message, if all of it has arrived.
    ///
    /// # Errors
    /// One that is compressed, or too long: told by its prefix, before its bytes are waited for.
    pub(super) fn message(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some(&[flag, a, b, c, d]) = self.buffer.first_chunk() else { return Ok(None) };
        if flag != 0 {
            return Err(CallError::Protocol("a compressed message, which nobody asked for"));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.limit {
            return Err(CallError::Protocol("a message that is too long"));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(messages: &[Vec<u8>]) -> Vec<u8> {
        messages.iter().flat_map(|message| [&prefix(message.len()).unwrap()[..], message].concat()).collect()
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6), piece in 1usize..50,
        ) {
            let mut reader = Reader::new(40);
            let mut found = Vec::new();
            for bytes in wire(&messages).chunks(piece) {
                reader.push(bytes);
                while let Some(message) = reader.message().unwrap() {
                    found.push(message.to_vec());
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(16);
            reader.push(&bytes);
            while let Ok(Some(message)) = reader.message() {
                prop_assert!(message.len() <= 16);
            }
        }
    }

    #[test]
    fn a_long_or_compressed_message_is_refused_by_its_prefix() {
        for bytes in [[0, 0, 0, 0, 17], [0, 255, 255, 255, 255], [1, 0, 0, 0, 1]] {
            let mut reader = Reader::new(16);
            reader.push(&bytes);
            assert!(reader.message().is_err(), "{bytes:?}");
        }
    }
}
