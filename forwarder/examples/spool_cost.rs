//! What the spool costs: the pace at which it is written and read while the runtime goes on, and the memory of a pipeline with
//! 10,000 sets of attributes whose backend is away: each is three series, a duration and two sizes. In: a folder that is not there
//! yet, on the disk to be measured. Out: figures.
//!
//! `cargo run --release -p spantap --example spool_cost -- /var/tmp/spool [seconds [sets]]`
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/sample.rs"]
mod sample;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use spantap::{
    exchange::Side,
    export::{
        queue::{Batch, Settlement},
        spool::{Directory, Limits, Spool},
    },
    pipeline::Pipeline,
    telemetry::destination::Destination,
};
use spantap_config::Config;
use tokio::time::Instant;

const BATCH: usize = 1 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("a folder that is not there yet"));
    let seconds = arguments.next().map_or(20, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(pace(&folder));
    let sets = arguments.next().map_or(10_000, |text| text.parse().unwrap());
    runtime.block_on(away(Some(&folder), seconds, sets));
    runtime.block_on(away(None, seconds, sets));
    std::fs::remove_dir_all(folder).unwrap();
}

/// 2 GiB written, then read, with a timer of 1 ms in the same thread.
async fn pace(folder: &Path) {
    let directory = Directory::open(folder, None).unwrap();
    let books = Arc::new(Destination::new("traces", Arc::default()));
    let limits = Limits { max_bytes: 4 << 30, max_age: Duration::from_secs(3600) };
    let spool = Spool::open(&directory, limits, books.clone()).unwrap();
    let worst = Arc::new(AtomicU64::new(0));
    let watch = tokio::spawn({
        let worst = worst.clone();
        async move {
            loop {
                let before = Instant::now();
                tokio::time::sleep(Duration::from_millis(1)).await;
                worst.fetch_max(before.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
        }
    });
    let body = Bytes::from((0..BATCH).map(|n| ((n * 31) >> 3) as u8).collect::<Vec<_>>());
    let (start, count) = (Instant::now(), 2048_u64);
    for _ in 0..count {
        let mut batch = Batch { body: body.clone(), items: 1000, sealed: Instant::now() };
        while let Err(back) = spool.offer(batch, false) {
            batch = back;
            spool.room().await;
        }
        tokio::task::yield_now().await;
    }
    spool.flush(Instant::now() + Duration::from_secs(600)).await;
    report("written and on the disk", start, count, &worst);
    worst.store(0, Ordering::Relaxed);
    let start = Instant::now();
    while let Some(loan) = spool.lend().await {
        spool.settle(loan, Settlement::Delivered { rejected: 0 });
    }
    report("read back", start, count, &worst);
    // The last settlement is booked by the thread.
    spool.flush(Instant::now() + Duration::from_secs(600)).await;
    assert_eq!((books.exported.get(), books.spool_bytes.get()), (count * 1000, 0));
    watch.abort();
}

fn report(what: &str, start: Instant, batches: u64, worst: &AtomicU64) {
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = (batches as usize * BATCH) as f64 / 1e6;
    let worst = worst.load(Ordering::Relaxed) as f64 / 1e3;
    println!("{what}: {:.0} MB/s; a timer of 1 ms fired after {worst:.1} ms at the latest", megabytes / seconds);
}

/// `sets` of attributes (multiples of 200) of 20 processes, 5,000 exchanges a second, nobody at the other end.
async fn away(folder: Option<&Path>, seconds: u64, sets: usize) {
    let dead = "http://127.0.0.1:1";
    let spool = folder.map(|path| spantap_config::Spool {
        path: path.to_owned(),
        max_bytes: 512 << 20,
        max_age: Duration::from_secs(3600),
    });
    let mut metrics = sample::otlp_metrics(format!("{dead}/v1/metrics"));
    metrics.interval = Duration::from_secs(2);
    let mut traces = sample::otlp_traces(format!("{dead}/v1/traces"));
    traces.backoff.max_elapsed = Duration::from_secs(300);
    let config = Config { spool, traces: Some(traces), metrics: Some(metrics), ..sample::config() };
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    let methods: [&'static [u8]; 10] =
        [b"GET", b"PUT", b"POST", b"HEAD", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"QUERY", b"CONNECT"];
    let processes: Vec<_> = (0..20).map(|n| Arc::new(sample::process(n, &format!("shop-{n}")))).collect();
    let (mut n, end) = (0_usize, Instant::now() + Duration::from_secs(seconds));
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    while Instant::now() < end {
        interval.tick().await;
        for _ in 0..100 {
            let mut exchange = sample::exchange(Side::Server);
            exchange.process = processes.get(n % 20).unwrap().clone();
            exchange.request.method = Bytes::from_static(methods.get(n / 20 % 10).unwrap());
            exchange.response.as_mut().unwrap().status = 200 + (n / 200 % (sets / 200).max(1)) as u16;
            pipeline.exchange(&exchange, &sample::clock());
            n += 1;
        }
        pipeline.tick();
    }
    let telemetry = pipeline.telemetry().clone();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    println!(
        "away, {} spool: {n} exchanges, {} spans in memory ({} bytes), {} in the spool; VmRSS {}, of that RssAnon {}; VmHWM {}",
        if folder.is_some() { "with" } else { "no" },
        telemetry.traces.waiting(),
        telemetry.traces.queued_bytes.get(),
        telemetry.traces.spool_items.get(),
        memory("VmRSS:"),
        memory("RssAnon:"),
        memory("VmHWM:"),
    );
    let start = Instant::now();
    let summary = pipeline.drain(Instant::now() + Duration::from_secs(5)).await;
    println!("stopped in {:.2} s: {summary}", start.elapsed().as_secs_f64());
}
