//! What the export of spans costs: processor time for each span at a steady pace, by protocol and compression, beyond that of
//! a pipeline without a destination. In: nothing. Out: figures.
//!
//! `cargo run --release -p spantap --example export_cost -- [seconds] [spans a second]`
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../tests/support/grpc.rs"]
mod grpc;
#[path = "../tests/support/receiver.rs"]
mod receiver;
#[path = "../tests/support/sample.rs"]
mod sample;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use grpc::{Call, GrpcReceiver};
use receiver::{Receiver, ok};
use spantap::{exchange::Side, pipeline::Pipeline};
use spantap_config::{Compression, Config, OtlpProtocol};
use tokio::time::{Instant, interval};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Time is told to the pipeline this often.
const TICK: Duration = Duration::from_millis(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if arguments.first().is_some_and(|first| first == "receive") {
        return runtime.block_on(receive(&arguments[1]));
    }
    let number = |at: usize, default| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let (seconds, pace) = (number(0, 10), number(1, 50_000));
    let nothing = runtime.block_on(cost(sample::config(), seconds, pace));
    println!("{pace} exchanges a second, {seconds} s each; without a destination {nothing:.2} µs an exchange");
    for (name, protocol, compression) in [
        ("http/protobuf", OtlpProtocol::HttpProtobuf, Compression::None),
        ("http/protobuf, gzip", OtlpProtocol::HttpProtobuf, Compression::Gzip),
        ("http/json", OtlpProtocol::HttpJson, Compression::None),
        ("grpc", OtlpProtocol::Grpc, Compression::None),
        ("grpc, gzip", OtlpProtocol::Grpc, Compression::Gzip),
    ] {
        let to = Other::start(if protocol == OtlpProtocol::Grpc { "grpc" } else { "http" });
        let mut traces = sample::otlp_traces(to.endpoint.clone());
        traces.batch_timeout = Duration::from_millis(200);
        (traces.otlp.protocol, traces.otlp.compression) = (protocol, compression);
        let spent = runtime.block_on(cost(Config { traces: Some(traces), ..sample::config() }, seconds, pace));
        println!("{name}: {spent:.2} µs a span, {:.2} of them for the export", spent - nothing);
    }
}

/// Microseconds of this process for each exchange; every span has arrived, or it ends here.
async fn cost(config: Config, seconds: u64, pace: u64) -> f64 {
    let exports = config.traces.is_some();
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    let exchange = sample::exchange(Side::Server);
    let (mut tick, begin, before) = (interval(TICK), Instant::now(), processor_time());
    let mut n = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        tick.tick().await;
        // What time asks for, so that a tick that came late is made up for.
        while n < (begin.elapsed().as_secs_f64() * pace as f64) as u64 {
            pipeline.exchange(&exchange, &sample::clock());
            n += 1;
        }
        pipeline.tick();
    }
    let summary = pipeline.drain(Instant::now() + Duration::from_secs(20)).await;
    assert!(summary.adds_up() && (!exports || summary.traces.exported == n), "{n}: {summary}");
    (processor_time() - before).as_secs_f64() * 1e6 / n as f64
}

/// Of all threads of this process, user and system (proc(5): ticks, of which Linux tells 100 a second).
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Duration::from_millis(10) * (fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap())
}

/// A receiver in a process of its own, whose time does not count.
struct Other {
    process: Child,
    endpoint: String,
}

impl Other {
    fn start(kind: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        let mut process = command.args(["receive", kind]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut endpoint = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        Self { process, endpoint: endpoint.trim().to_owned() }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Takes everything until standard input ends.
async fn receive(kind: &str) {
    if kind == "grpc" {
        let (_receiver, url) = GrpcReceiver::start(vec![Call::Ok(Vec::new())]).await;
        println!("{url}{TRACES}");
        ended().await;
    } else {
        let receiver = Receiver::start(vec![ok()]).await;
        println!("{}", receiver.url("/v1/traces"));
        ended().await;
    }
}

async fn ended() {
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
}
