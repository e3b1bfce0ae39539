//! A receiver that answers every request alike.
//!
//! In: a status. Out: request lines of what was asked.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::Result;

/// Answers until the test ends.
#[derive(Debug)]
pub(crate) struct Receiver {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn answering(status: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = Arc::clone(&heard);
                thread::spawn(move || answer(&stream, status, &heard));
            }
        });
        Ok(Self { port, asked })
    }

    /// URL without a path.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Request lines so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// To bytes that are no HTTP, such as those of TLS, the same answer at once, as servers do.
fn answer(mut stream: &TcpStream, status: u16, heard: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    if reader.fill_buf().is_ok_and(|first| first.starts_with(b"POST")) {
        let mut lines = reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        if let Some(line) = lines.next() {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        lines.for_each(drop);
    }
    // Whoever asked may be gone.
    let _ = write!(stream, "HTTP/1.1 {status} Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}
