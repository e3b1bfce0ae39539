//! Whether an OTLP destination keeps up: spans at a steady pace, or all at once, to a real receiver; what waited at the highest and
//! what found no room. In: an endpoint with its path, a pace, seconds. Out: figures.
//!
//! `cargo run --release -p spantap --example export_pace -- http://127.0.0.1:4318/v1/traces [spans a second] [seconds] [gzip] [grpc|json]`
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/sample.rs"]
mod sample;

use std::{sync::Arc, time::Duration};

use spantap::{exchange::Side, pipeline::Pipeline};
use spantap_config::{Compression, Config, OtlpProtocol};
use tokio::time::{Instant, interval};

const TICK: Duration = Duration::from_millis(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let endpoint = arguments.first().expect("an endpoint such as http://127.0.0.1:4318/v1/traces");
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let (pace, seconds) = (number(1, 50_000), number(2, 10));
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let mut traces = sample::otlp_traces(endpoint.clone());
    // Those of the defaults.
    (traces.queue_size, traces.batch_max_size, traces.batch_timeout) = (16_384, 4096, Duration::from_secs(1));
    traces.otlp.compression = if has("gzip") { Compression::Gzip } else { Compression::None };
    traces.otlp.protocol = match (has("grpc"), has("json")) {
        (true, _) => OtlpProtocol::Grpc,
        (_, true) => OtlpProtocol::HttpJson,
        _ => OtlpProtocol::HttpProtobuf,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(drive(Config { traces: Some(traces), ..sample::config() }, pace, seconds));
}

async fn drive(config: Config, pace: u64, seconds: u64) {
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    let books = pipeline.telemetry().traces.clone();
    let exchange = sample::exchange(Side::Server);
    let (mut tick, begin) = (interval(TICK), Instant::now());
    let (mut n, mut highest) = (0, 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        tick.tick().await;
        while n < (begin.elapsed().as_secs_f64() * pace as f64) as u64 {
            pipeline.exchange(&exchange, &sample::clock());
            n += 1;
        }
        pipeline.tick();
        highest = highest.max(books.queued.get());
    }
    let lasted = begin.elapsed().as_secs_f64();
    let (exported, requests) = (books.exported.get(), books.requests_ok.get());
    let summary = pipeline.drain(Instant::now() + Duration::from_secs(20)).await;
    let lost: u64 = summary.losses.iter().map(|(_, n)| n).sum();
    println!(
        "{n} spans in {lasted:.1} s; {exported} exported by then in {requests} requests ({:.1} a second), \
         {highest} waited at the highest, {lost} lost; in the end {}",
        requests as f64 / lasted,
        summary.traces.exported
    );
}
