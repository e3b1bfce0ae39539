//! A record: one encoded request with its length, its items, when it was made, and checksums.
//!
//! In: a request, or bytes from the disk, which anybody may have written. Out: 24 bytes that stand before the body, or what
//! they say if they are whole.
//!
//! Little endian: length u32, items u32, milliseconds since 1970 u64, CRC-32 of the body u32, CRC-32 of these 20 bytes u32.

/// Bytes before a body.
pub(super) const HEAD: usize = 24;
/// Longest body: no request is larger (exporter specification, maximum request size).
pub(super) const MAX_BODY: usize = 64 << 20;

/// What stands before a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the body, 1..=[`MAX_BODY`].
    pub(super) len: u32,
    /// Spans or data points, no more than bytes.
    pub(super) items: u32,
    /// When the request was made, milliseconds since 1970.
    pub(super) sealed: u64,
    /// Checksum of the body.
    pub(super) crc: u32,
}

impl Head {
    /// Of a body; `None` if it is empty, longer than any request, or has more items than bytes.
    pub(super) fn of(body: &[u8], items: u64, sealed: u64) -> Option<Self> {
        let len = u32::try_from(body.len()).ok().filter(|len| (1..=MAX_BODY).contains(&(*len as usize)))?;
        let items = u32::try_from(items).ok().filter(|items| *items <= len)?;
        Some(Self { len, items, sealed, crc: crc32fast::hash(body) })
    }

    /// As it stands on the disk.
    pub(super) fn encode(self) -> [u8; HEAD] {
        let mut bytes = Vec::with_capacity(HEAD);
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.items.to_le_bytes());
        bytes.extend(self.sealed.to_le_bytes());
        bytes.extend(self.crc.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let mut head = [0; HEAD];
        head.copy_from_slice(&bytes);
        head
    }

    /// Reads it back; `None` if it is not whole or says what no head says.
    pub(super) fn decode(bytes: &[u8; HEAD]) -> Option<Self> {
        let (said, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(said) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (len, rest) = said.split_first_chunk::<4>()?;
        let (items, rest) = rest.split_first_chunk::<4>()?;
        let (sealed, rest) = rest.split_first_chunk::<8>()?;
        let head = Self {
            len: u32::from_le_bytes(*len),
            items: u32::from_le_bytes(*items),
            sealed: u64::from_le_bytes(*sealed),
            crc: u32::from_le_bytes(*rest.first_chunk::<4>()?),
        };
        let right = (1..=MAX_BODY).contains(&(head.len as usize)) && head.items <= head.len;
        right.then_some(head)
    }

    /// Bytes of the whole record.
    pub(super) fn record(self) -> u64 {
        HEAD as u64 + u64::from(self.len)
    }

    /// Whether `body` is what was written.
    pub(super) fn is_of(self, body: &[u8]) -> bool {
        body.len() == self.len as usize && crc32fast::hash(body) == self.crc
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nothing_else() {
        let head = Head::of(b"body", 2, 1_700_000_000_123).unwrap();
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Some(head));
        assert!(head.is_of(b"body") && !head.is_of(b"bodz") && !head.is_of(b"bod"));
        for at in 0..HEAD {
            for bit in 0..8 {
                let mut other = bytes;
                other[at] ^= 1 << bit;
                assert_eq!(Head::decode(&other), None, "byte {at}, bit {bit}");
            }
        }
        assert_eq!(Head::decode(&[0; HEAD]), None, "zeros, as a lost page leaves them");
    }

    #[test]
    fn nonsense_is_no_record() {
        assert_eq!(Head::of(b"", 0, 0), None);
        assert_eq!(Head::of(b"abc", 4, 0), None);
        // Checksums are right, what they guard is not.
        for (len, items) in [(0, 0), (MAX_BODY as u32 + 1, 1), (3, 4)] {
            assert_eq!(Head::decode(&Head { len, items, sealed: 0, crc: 0 }.encode()), None, "{len} {items}");
        }
    }
}
