//! An OTLP/HTTP receiver that only counts: spans by kind, and for a sample of them the delay from their end to here.
//!
//! In: protobuf bodies of `/v1/traces` and `/v1/metrics`, uncompressed. Out: `GET /counts` and `GET /reset` as JSON.
//! It does as little as possible, because its CPU time is taken from what is measured.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// One span of so many is asked for its end.
const SAMPLE: u64 = 64;
/// Delays kept at most.
const MOST_DELAYS: usize = 1 << 20;
/// Largest body taken; exporters stay far below.
const MOST_BYTES: usize = 64 << 20;

/// What has come since the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Spans of kind SERVER.
    pub server: u64,
    /// Spans of kind CLIENT.
    pub client: u64,
    /// Spans of other kinds.
    pub other: u64,
    /// Bodies of traces.
    pub traces: u64,
    /// Bodies of metrics.
    pub metrics: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Delays of the sample, nanoseconds.
    pub delays: Vec<u64>,
}

impl Counts {
    /// The delay that this share of the sample stays below.
    pub fn delay(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.delays.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * share) as usize;
        sorted.get(at.min(sorted.len().checked_sub(1)?)).map(|ns| Duration::from_nanos(*ns))
    }
}

/// The `sink` program: listens on a free port of 127.0.0.1, prints it, serves until it is ended.
pub fn main() -> ExitCode {
    let listener = match TcpListener::bind("127.0.0.1:0") {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("sink: {error}");
            return ExitCode::FAILURE;
        }
    };
    match listener.local_addr() {
        Ok(address) => println!("{}", address.port()),
        Err(error) => eprintln!("sink: {error}"),
    }
    let counts = Arc::new(Mutex::new(Counts::default()));
    for stream in listener.incoming().flatten() {
        let counts = Arc::clone(&counts);
        std::thread::spawn(move || {
            if let Err(error) = serve(stream, &counts) {
                eprintln!("sink: {error:#}");
            }
        });
    }
    ExitCode::SUCCESS
}

fn serve(stream: TcpStream, counts: &Mutex<Counts>) -> Result<()> {
    let mut reader = BufReader::with_capacity(1 << 18, stream.try_clone()?);
    let mut writer = stream;
    loop {
        let Some(head) = read_head(&mut reader)? else { return Ok(()) };
        ensure!(head.length <= MOST_BYTES, "a body of {} bytes", head.length);
        let mut body = vec![0; head.length];
        reader.read_exact(&mut body)?;
        let answer = match head.path.as_str() {
            "/v1/traces" => {
                let found = spans(&body)?;
                add(&mut counts.lock().unwrap_or_else(PoisonError::into_inner), found, body.len());
                String::new()
            }
            "/v1/metrics" => {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                counts.metrics += 1;
                counts.bytes += body.len() as u64;
                String::new()
            }
            "/counts" => serde_json::to_string(&*counts.lock().unwrap_or_else(PoisonError::into_inner))?,
            "/reset" => {
                *counts.lock().unwrap_or_else(PoisonError::into_inner) = Counts::default();
                "{}".to_owned()
            }
            path => bail!("asked for {path}"),
        };
        let kind = if answer.is_empty() { "application/x-protobuf" } else { "application/json" };
        let length = answer.len();
        // In one piece: `write!` to a socket sends its parts one by one, and each waits 40 ms for the ACK of the one before.
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{answer}");
        writer.write_all(head.as_bytes())?;
    }
}

struct Head {
    path: String,
    length: usize,
}

fn read_head(reader: &mut impl BufRead) -> Result<Option<Head>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).context("no request line")?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(Some(Head { path, length })) };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
        let plain = !name.eq_ignore_ascii_case("content-encoding") && !name.eq_ignore_ascii_case("transfer-encoding");
        ensure!(plain, "{name} is not understood here: send plain bodies with a length");
    }
}

fn add(counts: &mut Counts, found: Counts, bytes: usize) {
    counts.server += found.server;
    counts.client += found.client;
    counts.other += found.other;
    counts.traces += 1;
    counts.bytes += bytes as u64;
    if counts.delays.len() < MOST_DELAYS {
        counts.delays.extend(found.delays);
    }
}

/// Spans of an ExportTraceServiceRequest: resource_spans (1), scope_spans (2), spans (2), kind (6), end_time_unix_nano (8).
fn spans(body: &[u8]) -> Result<Counts> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    let mut counts = Counts::default();
    let mut seen = 0_u64;
    each(body, 1, |resource| {
        each(resource, 2, |scope| {
            each(scope, 2, |span| {
                let (kind, end) = kind_and_end(span)?;
                match kind {
                    2 => counts.server += 1,
                    3 => counts.client += 1,
                    _ => counts.other += 1,
                }
                if seen.is_multiple_of(SAMPLE) {
                    counts.delays.push(now.saturating_sub(end));
                }
                seen += 1;
                Ok(())
            })
        })
    })?;
    Ok(counts)
}

/// Calls `then` with each length-delimited field of this number.
fn each<'a>(bytes: &'a [u8], wanted: u64, mut then: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, value) = field(&mut rest)?;
        if let (true, Field::Bytes(bytes)) = (number == wanted, value) {
            then(bytes)?;
        }
    }
    Ok(())
}

fn kind_and_end(span: &[u8]) -> Result<(u64, u64)> {
    let (mut rest, mut kind, mut end) = (span, 0, 0);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (6, Field::Number(number)) => kind = number,
            (8, Field::Number(number)) => end = number,
            _ => {}
        }
    }
    Ok((kind, end))
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The next field of a protobuf message.
fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Field<'a>)> {
    let tag = varint(rest)?;
    let mut take = |count: usize| -> Result<&'a [u8]> {
        let (taken, left) = rest.split_at_checked(count).context("a field is cut off")?;
        *rest = left;
        Ok(taken)
    };
    let value = match tag & 7 {
        0 => Field::Number(varint(rest)?),
        1 => Field::Number(u64::from_le_bytes(take(8)?.try_into()?)),
        5 => Field::Number(u32::from_le_bytes(take(4)?.try_into()?).into()),
        2 => {
            let length = usize::try_from(varint(rest)?)?;
            let (taken, left) = rest.split_at_checked(length).context("a field is cut off")?;
            *rest = left;
            Field::Bytes(taken)
        }
        other => bail!("wire type {other}"),
    };
    Ok((tag >> 3, value))
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first().context("a number is cut off")?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number of more than ten bytes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn delimited(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    #[test]
    fn counts_spans_by_kind() {
        let span = |kind: u8| {
            let name = delimited(5, b"GET");
            delimited(2, &[&name[..], &[6 << 3, kind, 8 << 3 | 1], &1_u64.to_le_bytes()].concat())
        };
        let scope = delimited(2, &[span(2), span(2), span(3)].concat());
        let body = delimited(1, &[delimited(1, b"resource"), scope].concat());
        let counts = spans(&body).unwrap();
        assert_eq!((counts.server, counts.client, counts.other, counts.delays.len()), (2, 1, 0, 1));
        assert!(spans(body.get(..body.len() - 1).unwrap()).is_err());
        assert_eq!(Counts { delays: vec![3, 1, 2], ..Counts::default() }.delay(0.5), Some(Duration::from_nanos(2)));
    }
}
