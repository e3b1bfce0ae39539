//! A pipeline in a test: exchanges for it, and turns of it until something has happened or it has ended.
//! Beside `receiver` and `sample`.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::time::Duration;

use spantap::{exchange::Side, pipeline::Pipeline, telemetry::summary::Summary};
use tokio::time::Instant;

use crate::{receiver::until, sample};

/// Reports `n` exchanges.
pub fn report(pipeline: &mut Pipeline, n: usize) {
    for _ in 0..n {
        pipeline.exchange(&sample::exchange(Side::Server), &sample::clock());
    }
}

/// Runs on until `condition` holds.
pub async fn ticking(pipeline: &mut Pipeline, what: &str, mut condition: impl FnMut(&Pipeline) -> bool) {
    until(what, || {
        pipeline.tick();
        condition(pipeline)
    })
    .await;
}

/// Ends it; its books have to add up.
pub async fn drain(pipeline: Pipeline, within: Duration) -> Summary {
    let summary = pipeline.drain(Instant::now() + within).await;
    assert!(summary.adds_up(), "{summary:?}");
    summary
}
