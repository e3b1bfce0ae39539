#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::{
    io,
    sync::{Mutex, mpsc},
};

use bytes::Bytes;
use spantap_config::Sampler;

use super::*;
use crate::{
    exchange::{ClosedBy, Exchange, Outcome, Side},
    resource::ResourceBuilder,
    sample,
    trace::Tracer,
};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn telemetry() -> Arc<Telemetry> {
    Arc::new(Telemetry::new(Arc::default()))
}

fn print(console: &mut Console, exchange: &Exchange) {
    let rules = Rules::default();
    let seen = Observation::new(exchange, sample::clock(), &rules);
    let identity = Tracer::seeded(Sampler::AlwaysOn, 1).start(exchange.side, &exchange.request.headers);
    let resource = ResourceBuilder::new(&sample::config()).process(&exchange.process);
    console.print(&seen, identity.as_ref(), &resource, &rules);
}

async fn printed(mode: Mode, exchanges: &[Exchange]) -> String {
    let (out, telemetry) = (Shared::default(), telemetry());
    let mut console = Console::new(mode, telemetry.clone(), TimeZone::UTC, out.clone());
    exchanges.iter().for_each(|e| print(&mut console, e));
    console.finish(Instant::now() + Duration::from_secs(10)).await;
    assert_eq!((telemetry.console.printed.get(), telemetry.console.dropped.get()), (exchanges.len() as u64, 0));
    let bytes = out.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn text_lines() {
    let mut odd = sample::exchange(Side::Server);
    odd.request.target = Bytes::from_static(b"/\x1b[31mred\n");
    odd.response = None;
    odd.outcome = Outcome::NoResponse(ClosedBy::Peer);
    let text = printed(Mode::Text, &[sample::exchange(Side::Server), odd]).await;
    let lines: Vec<_> = text.lines().collect();
    let want = "2026-01-02 03:04:05.001 (3.000ms) server 200 GET /cart/7?item=3 [10.0.0.2:40000]->[shop.example:8080] \
                request:0B response:1234B svc=[shop:1001] traceparent=[00-";
    assert!(lines[0].starts_with(want), "{}", lines[0]);
    assert_eq!(lines.len(), 2, "a line break in a path makes no line");
    assert!(lines[1].contains(" server no_response GET /\\u{1b}[31mred\\n "), "{}", lines[1]);
}

#[tokio::test]
async fn json_objects() {
    let text = printed(Mode::Json, &[sample::exchange(Side::Client), sample::exchange(Side::Server)]).await;
    let objects: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(objects[0]["side"], "client");
    assert_eq!(objects[1]["status"], 200);
    assert_eq!(objects[1]["duration_seconds"], 0.003);
    assert_eq!(objects[1]["time"], "2026-01-02T03:04:05.001000Z");
    assert_eq!(objects[1]["service_name"], "shop");
    assert_eq!(objects[1]["trace_id"].as_str().unwrap().len(), 32);
    let indented = printed(Mode::JsonIndent, &[sample::exchange(Side::Client)]).await;
    assert!(indented.lines().count() > 10 && serde_json::from_str::<serde_json::Value>(&indented).is_ok());
}

#[tokio::test]
async fn a_running_number() {
    let e = sample::exchange(Side::Server);
    assert_eq!(printed(Mode::Counter, &[e.clone(), e]).await, "1\n2\n");
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_pipe_is_counted() {
    let telemetry = telemetry();
    let mut console = Console::new(Mode::Counter, telemetry.clone(), TimeZone::UTC, Broken);
    for _ in 0..3 {
        print(&mut console, &sample::exchange(Side::Server));
        console.hand_over();
    }
    console.finish(Instant::now() + Duration::from_secs(10)).await;
    assert_eq!((telemetry.console.printed.get(), telemetry.console.dropped.get()), (0, 3));
}

/// Blocks until the sender of the channel is gone.
struct Stuck(mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_stuck_terminal_holds_up_nothing() {
    let (release, stuck) = mpsc::channel();
    let telemetry = telemetry();
    let mut console = Console::new(Mode::Counter, telemetry.clone(), TimeZone::UTC, Stuck(stuck));
    for _ in 0..50 {
        print(&mut console, &sample::exchange(Side::Server));
        console.hand_over();
    }
    assert!(telemetry.console.dropped.get() >= 50 - CHUNKS as u64 - 1);
    console.finish(Instant::now()).await;
    assert_eq!(telemetry.console.printed.get() + telemetry.console.dropped.get(), 50);
    drop(release);
}
