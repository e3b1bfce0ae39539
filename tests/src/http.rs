//! A plain HTTP/1.1 client for the tests' own questions, such as those to the admin address.
//!
//! In: address and path. Out: status and body. One connection for each request.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

/// Longest time for one question.
const LIMIT: Duration = Duration::from_secs(10);

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// GETs `path` from `127.0.0.1:port`.
///
/// # Errors
/// When nobody answers with HTTP.
pub fn get(port: u16, path: &str) -> Result<Answer> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // HTTP/1.0 and close: no chunks, no keep-alive.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n")?;
    let mut bytes = Vec::new();
    let mut piece = [0; 65536];
    loop {
        if let Some(answer) = whole(&bytes, false)? {
            return Ok(answer);
        }
        let count = match stream.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        match count {
            0 => return whole(&bytes, true)?.context("the connection ended within the head"),
            count => bytes.extend(piece.get(..count).unwrap_or_default()),
        }
    }
}

/// The answer, if it is all there: to its Content-Length, or to the end of the connection.
fn whole(bytes: &[u8], ended: bool) -> Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status")?;
    let body = bytes.get(end + 4..).unwrap_or_default();
    let length = head.split("\r\ncontent-length:").nth(1).and_then(|l| l.split("\r\n").next()?.trim().parse().ok());
    let complete = ended || length.is_some_and(|length: usize| body.len() >= length);
    Ok(complete.then(|| Answer { status, body: body.to_vec() }))
}
