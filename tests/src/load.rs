//! Load of exactly known size: so many requests over so many connections, each answered before the next is sent.
//!
//! In: a port and numbers. Out: how many requests were answered with 200.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// A request that is not answered within this has failed.
const LIMIT: Duration = Duration::from_secs(30);

fn request(port: u16, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n")
}

/// A keep-alive connection.
#[derive(Debug)]
struct Asking {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Asking {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// One exchange; the response has a Content-Length.
    fn ask(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut piece = [0; 4096];
        loop {
            let count = match self.stream.read(&mut piece) {
                // The end of a child interrupts, where the main thread was just starting another.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            if count == 0 {
                bail!("the server closed");
            }
            self.buffer.extend(piece.get(..count).unwrap_or_default());
            let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default()).to_ascii_lowercase();
            let length: usize = head
                .split("content-length:")
                .nth(1)
                .and_then(|l| l.split("\r\n").next()?.trim().parse().ok())
                .context("no length")?;
            if self.buffer.len() >= end + 4 + length {
                if !head.starts_with("http/1.1 200") {
                    bail!("answered {}", head.lines().next().unwrap_or_default());
                }
                return Ok(());
            }
        }
    }
}

/// Makes exactly `requests` requests for `path`, in which `{n}` becomes the number of the request, over `connections`
/// connections; all of them must be answered with 200.
///
/// # Errors
/// With the first that was not.
pub fn make(port: u16, path: &str, requests: u64, connections: u64) -> Result<()> {
    let path: Arc<str> = path.into();
    let next = Arc::new(AtomicU64::new(0));
    let threads: Vec<JoinHandle<Result<()>>> = (0..connections)
        .map(|_| {
            let (next, path) = (Arc::clone(&next), Arc::clone(&path));
            std::thread::spawn(move || {
                let mut asking = Asking::connect(port)?;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return Ok(());
                    }
                    let path = path.replace("{n}", &number.to_string());
                    asking.ask(request(port, &path).as_bytes())?;
                }
            })
        })
        .collect();
    threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a load thread panicked")))
}

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Steady {
    /// Starts `connections` connections, each with a pause between its requests.
    pub fn start(port: u16, path: &str, connections: u64, pause: Duration) -> Self {
        let request: Arc<str> = request(port, path).into();
        Self::spawn(port, connections, move || Arc::clone(&request), move |_| pause)
    }

    /// Starts `connections` connections that make `pace` requests a second together, for `{prefix}/0`, `{prefix}/1` and so on.
    /// A server that is slower is not pressed.
    pub fn numbered(port: u16, prefix: &str, connections: u64, pace: u64) -> Self {
        let (next, prefix) = (AtomicU64::new(0), prefix.to_owned());
        let step = Duration::from_secs(connections) / u32::try_from(pace.max(1)).unwrap_or(u32::MAX);
        let numbered = move || request(port, &format!("{prefix}/{}", next.fetch_add(1, Ordering::Relaxed))).into();
        Self::spawn(port, connections, numbered, move |took| step.saturating_sub(took))
    }

    /// `pause`: after a request and its response, which took so long.
    fn spawn(
        port: u16,
        connections: u64,
        request: impl Fn() -> Arc<str> + Send + Sync + 'static,
        pause: impl Fn(Duration) -> Duration + Copy + Send + 'static,
    ) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let request = Arc::new(request);
        let threads = (0..connections)
            .map(|_| {
                let (stop, answered, request) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&request));
                std::thread::spawn(move || {
                    let mut asking = Asking::connect(port)?;
                    while !stop.load(Ordering::Relaxed) {
                        let begin = Instant::now();
                        asking.ask(request().as_bytes())?;
                        answered.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(pause(begin.elapsed()));
                    }
                    Ok(())
                })
            })
            .collect();
        Self { stop, answered, threads }
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends the load and returns how many requests were made, all of them answered with 200.
    ///
    /// # Errors
    /// With the first that was not: the watched program noticed something.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or_else(|_| bail!("a load thread panicked"))?;
        }
        Ok(self.answered.load(Ordering::Relaxed))
    }
}
