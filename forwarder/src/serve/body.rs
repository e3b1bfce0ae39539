//! Bodies of replies: short ones whole, long ones piece by piece, so that neither the memory nor the runtime's thread has to
//! bear all of one.
//!
//! In: a text, or [`Pieces`] that are made on a thread apart, each when the one before has been taken. Out: a body, compressed
//! if wanted.

use std::{
    convert::Infallible,
    future::Future,
    io::Write,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use hyper::body::{Body, Bytes, Frame};
use tokio::{
    task::JoinHandle,
    time::{Sleep, sleep},
};

/// A reply that is not taken in this time is broken off: what it holds is memory.
const LONGEST: Duration = Duration::from_secs(60);
/// A piece is about this long before compression.
pub const PIECE: usize = 256 << 10;

/// Makes the pieces of a body; `None` ends it.
pub type Pieces = Box<dyn FnMut() -> Option<String> + Send>;

/// What a handler gives.
pub enum Content {
    /// All of it.
    Text(String),
    /// In pieces.
    Pieces(Pieces),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Pieces(_) => f.write_str("pieces"),
        }
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A body on its way.
pub(super) struct Sending {
    state: State,
    limit: Pin<Box<Sleep>>,
}

enum State {
    Whole(Option<Bytes>),
    Making(JoinHandle<(Maker, Option<Bytes>)>),
    Over,
}

struct Maker {
    pieces: Pieces,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Maker {
    /// The next bytes; `None` at the end.
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let piece = (self.pieces)();
            let Some(gzip) = &mut self.gzip else { return piece.map(Bytes::from) };
            match piece {
                // Writing to memory does not fail.
                Some(piece) => {
                    let _ = gzip.write_all(piece.as_bytes());
                    if gzip.get_ref().len() >= PIECE / 8 {
                        return Some(std::mem::take(gzip.get_mut()).into());
                    }
                }
                None => {
                    let rest = self.gzip.take()?.finish().ok()?;
                    self.pieces = Box::new(|| None);
                    return Some(rest.into());
                }
            }
        }
    }
}

fn make(mut maker: Maker) -> State {
    State::Making(tokio::task::spawn_blocking(move || {
        let bytes = maker.next();
        (maker, bytes)
    }))
}

impl Sending {
    /// A body of `content`; `gzip` compresses what comes in pieces.
    pub(super) fn new(content: Content, gzip: bool) -> Self {
        let state = match content {
            Content::Text(text) => State::Whole(Some(text.into())),
            Content::Pieces(pieces) => {
                make(Maker { pieces, gzip: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())) })
            }
        };
        Self { state, limit: Box::pin(sleep(LONGEST)) }
    }
}

/// A body that was not taken in time, or whose making failed.
#[derive(Debug, thiserror::Error)]
#[error("the reply was broken off")]
pub(super) struct BrokenOff;

impl From<Infallible> for BrokenOff {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let made = match &mut self.state {
            State::Over => return Poll::Ready(None),
            State::Whole(bytes) => {
                let bytes = bytes.take();
                self.state = State::Over;
                return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
            }
            State::Making(making) => ready!(Pin::new(making).poll(cx)),
        };
        if self.limit.as_mut().poll(cx).is_ready() {
            self.state = State::Over;
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        Poll::Ready(match made {
            Ok((maker, Some(bytes))) => {
                self.state = make(maker);
                Some(Ok(Frame::data(bytes)))
            }
            Ok((_, None)) => {
                self.state = State::Over;
                None
            }
            Err(_) => {
                self.state = State::Over;
                Some(Err(BrokenOff))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Over | State::Whole(None))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match &self.state {
            State::Whole(bytes) => hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            State::Over => hyper::body::SizeHint::with_exact(0),
            State::Making(_) => hyper::body::SizeHint::default(),
        }
    }
}
