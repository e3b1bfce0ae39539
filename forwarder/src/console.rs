//! The console exporter: a line, an object or a number for each exchange, on standard output.
//!
//! In: observations. Out: bytes, written by a thread of their own so that a slow terminal holds up nothing; what it can
//! not take in time is counted. A closed pipe ends the printing.

mod line;

use std::{
    io::Write,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use jiff::tz::TimeZone;
use spantap_config::Console as Mode;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    observation::{Observation, Rules},
    resource::Resource,
    telemetry::Telemetry,
    trace::SpanIdentity,
};

/// Lines wait this long for others.
const DELAY: Duration = Duration::from_millis(100);
/// Lines are handed over when there are so many bytes.
const CHUNK: usize = 64 << 10;
/// Chunks that wait for standard output at most.
const CHUNKS: usize = 16;

struct Chunk {
    bytes: Vec<u8>,
    exchanges: u64,
}

/// Prints exchanges.
pub struct Console {
    mode: Mode,
    zone: TimeZone,
    number: u64,
    buffer: Vec<u8>,
    exchanges: u64,
    due: Option<Instant>,
    handed_over: u64,
    writer: SyncSender<Chunk>,
    done: oneshot::Receiver<()>,
    telemetry: Arc<Telemetry>,
}

impl Console {
    /// A console on standard output.
    pub fn stdout(mode: Mode, telemetry: Arc<Telemetry>) -> Self {
        Self::new(mode, telemetry, TimeZone::system(), std::io::stdout())
    }

    /// A console that writes to `out`, with local times of `zone`.
    pub fn new(mode: Mode, telemetry: Arc<Telemetry>, zone: TimeZone, out: impl Write + Send + 'static) -> Self {
        let (writer, chunks) = sync_channel(CHUNKS);
        let (finished, done) = oneshot::channel();
        let counts = telemetry.clone();
        std::thread::spawn(move || {
            write_all(&chunks, out, &counts);
            let _ = finished.send(()); // nobody may be waiting
        });
        Self {
            mode,
            zone,
            number: 0,
            buffer: Vec::new(),
            exchanges: 0,
            due: None,
            handed_over: 0,
            writer,
            done,
            telemetry,
        }
    }

    /// Prints one exchange. `identity` is that of its span, if there is one.
    pub fn print(
        &mut self,
        seen: &Observation<'_>,
        identity: Option<&SpanIdentity>,
        resource: &Resource,
        rules: &Rules,
    ) {
        self.number += 1;
        // Writing to memory does not fail.
        let _ = match self.mode {
            Mode::Off => return,
            Mode::Counter => writeln!(self.buffer, "{}", self.number),
            Mode::Text => line::text(&mut self.buffer, seen, identity, resource, rules, &self.zone),
            Mode::Json => line::json(&mut self.buffer, seen, identity, resource, rules, false),
            Mode::JsonIndent => line::json(&mut self.buffer, seen, identity, resource, rules, true),
        };
        self.exchanges += 1;
        if self.buffer.len() >= CHUNK {
            self.hand_over();
        } else if self.due.is_none() {
            self.due = Some(Instant::now() + DELAY);
        }
    }

    /// Prints in another way from now on, or no more.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// When lines are to be handed over.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Hands over what is due.
    pub fn tick(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.due = None;
        let exchanges = std::mem::take(&mut self.exchanges);
        if exchanges == 0 {
            return;
        }
        let chunk = Chunk { bytes: std::mem::take(&mut self.buffer), exchanges };
        match self.writer.try_send(chunk) {
            Ok(()) => self.handed_over += exchanges,
            Err(_) => self.telemetry.console.dropped.add(exchanges),
        }
    }

    /// Prints what is left, until `deadline` at most.
    pub async fn finish(mut self, deadline: Instant) {
        let dropped_before_handing_over = {
            self.hand_over();
            self.telemetry.console.dropped.get()
        };
        drop(self.writer);
        if timeout_at(deadline, self.done).await.is_err() {
            let printed = self.telemetry.console.printed.get();
            self.telemetry.console.dropped.set(dropped_before_handing_over + self.handed_over.saturating_sub(printed));
        }
    }
}

fn write_all(chunks: &Receiver<Chunk>, mut out: impl Write, telemetry: &Telemetry) {
    let mut open = true;
    for chunk in chunks {
        if open && let Err(error) = out.write_all(&chunk.bytes).and_then(|()| out.flush()) {
            open = false;
            tracing::warn!("nothing more is printed: standard output: {error}");
        }
        let count = if open { &telemetry.console.printed } else { &telemetry.console.dropped };
        count.add(chunk.exchanges);
    }
}

#[cfg(test)]
mod tests;
