//! The chunked transfer coding (RFC 9112 section 7.1), followed where its bytes can be seen.
//!
//! In: the visible first bytes of a piece and the piece's length. Out: how much of it belongs to the message. Chunk
//! data need not be seen, its length is known; a size line that cannot be seen ends what can be known.

/// What a piece brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fed {
    /// Bytes of the piece that belong to this message.
    pub(super) used: u64,
    /// Bytes of chunk data among them.
    pub(super) data: u64,
    /// Where that leaves the message.
    pub(super) state: Progress,
}

/// Where a chunked message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It goes on after this piece.
    More,
    /// It ended with `used`.
    Done,
    /// A size line was not visible, or is none: the end of the message can no longer be told from its framing.
    Lost,
}

/// Position within a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In the hexadecimal size.
    Size { value: u64, digits: u8 },
    /// After the size, before the end of its line.
    Extension { value: u64 },
    /// In chunk data.
    Data { left: u64 },
    /// In the CRLF after chunk data.
    DataEnd { left: u8 },
    /// In the trailer section; whether the line so far is empty.
    Trailer { empty: bool },
}

impl Chunks {
    /// Before the first chunk.
    pub(super) const START: Chunks = Chunks::Size { value: 0, digits: 0 };

    /// Takes a piece of `total` bytes, the first of which are `visible`. Without visible bytes it skips: a hole.
    pub(super) fn feed(&mut self, visible: &[u8], total: u64) -> Fed {
        let mut used = 0_u64;
        let mut data = 0_u64;
        let state = loop {
            if used >= total {
                break Progress::More;
            }
            let left_of_piece = total - used;
            let byte = usize::try_from(used).ok().and_then(|at| visible.get(at)).copied();
            match (*self, byte) {
                (Chunks::Data { left }, _) => {
                    let taken = left.min(left_of_piece);
                    used += taken;
                    data = data.saturating_add(taken);
                    *self =
                        if taken == left { Chunks::DataEnd { left: 2 } } else { Chunks::Data { left: left - taken } };
                }
                // A bare LF is taken, as for lines; any other byte means that this is not where we thought to be.
                (Chunks::DataEnd { .. }, Some(b'\n')) => {
                    used += 1;
                    *self = Chunks::START;
                }
                (Chunks::DataEnd { left: 2 }, Some(b'\r') | None) => {
                    used += 1;
                    *self = Chunks::DataEnd { left: 1 };
                }
                (Chunks::DataEnd { .. }, None) => {
                    used += 1;
                    *self = Chunks::START;
                }
                (_, None) | (Chunks::DataEnd { .. }, Some(_)) => break Progress::Lost,
                (Chunks::Trailer { empty: true }, Some(b'\n')) => {
                    used += 1;
                    break Progress::Done;
                }
                (state, Some(byte)) => match state.line(byte) {
                    Some(next) => {
                        used += 1;
                        *self = next;
                    }
                    None => break Progress::Lost,
                },
            }
        };
        Fed { used, data, state }
    }

    /// The state after `byte` of a size line or a trailer line; `None` if it cannot stand there.
    fn line(self, byte: u8) -> Option<Chunks> {
        Some(match (self, byte) {
            (Chunks::Size { digits: 0, .. }, b'\r' | b'\n' | b';') => return None,
            (Chunks::Size { value, .. } | Chunks::Extension { value }, b'\n') => {
                if value == 0 {
                    Chunks::Trailer { empty: true }
                } else {
                    Chunks::Data { left: value }
                }
            }
            (Chunks::Size { value, .. }, b';' | b' ' | b'\t' | b'\r') => Chunks::Extension { value },
            (Chunks::Size { value, digits }, _) => {
                let digit = char::from(byte).to_digit(16)?;
                Chunks::Size {
                    value: value.checked_mul(16)? | u64::from(digit),
                    digits: digits.checked_add(1).filter(|&n| n <= 32)?,
                }
            }
            (Chunks::Extension { value }, _) => Chunks::Extension { value },
            (Chunks::Trailer { .. }, b'\n') => Chunks::Trailer { empty: true },
            (Chunks::Trailer { empty }, b'\r') => Chunks::Trailer { empty },
            (Chunks::Trailer { .. }, _) => Chunks::Trailer { empty: false },
            (Chunks::Data { .. } | Chunks::DataEnd { .. }, _) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const BODY: &[u8] = b"4;x=y\r\nWiki\r\n10 \r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\n";

    #[test]
    fn any_split_ends_at_the_same_byte() {
        for split in 0..=BODY.len() {
            let mut chunks = Chunks::START;
            let first = chunks.feed(&BODY[..split], split as u64);
            let rest = [&BODY[split..], b"GET"].concat();
            let second = chunks.feed(&rest, rest.len() as u64);
            if split == BODY.len() {
                assert_eq!(first.state, Progress::Done);
                continue;
            }
            assert_eq!((first.state, second.state), (Progress::More, Progress::Done), "{split}");
            assert_eq!((first.used + second.used, first.data + second.data), (BODY.len() as u64, 20), "{split}");
        }
    }

    #[test]
    fn unseen_data_is_skipped_exactly_and_an_unseen_size_is_not_guessed() {
        let mut chunks = Chunks::START;
        assert_eq!(
            chunks.feed(b"ff00\r\nab", 6 + 0xff00 + 2),
            Fed { used: 6 + 0xff00 + 2, data: 0xff00, state: Progress::More }
        );
        assert_eq!(chunks.feed(b"0\r\n\r\n", 5).state, Progress::Done);
        let mut chunks = Chunks::START;
        assert_eq!(chunks.feed(b"2\r\n", 3 + 2 + 2 + 1).state, Progress::Lost);
        for bad in [&b"\r\n"[..], b"x\r\n", b"-1\r\n", b"2\r\nabc", b"11111111111111111\r\n"] {
            assert_eq!(Chunks::START.clone().feed(bad, bad.len() as u64).state, Progress::Lost, "{bad:?}");
        }
    }
}
