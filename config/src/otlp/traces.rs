//! In: `otel_traces_export` without its destination. Out: batches, queue, retries.

use std::time::Duration;

use crate::{
    error::ConfigError,
    otel,
    settings::Settings,
    types::{Backoff, Otlp, OtlpTraces},
};

const BATCH: usize = 4096;
const QUEUE: usize = 16384;
/// Beyla waits 15 s. One second brings a request to the Collector within two of its end.
const BATCH_TIMEOUT: Duration = Duration::from_secs(1);
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30), max_elapsed: Duration::from_secs(300) };
/// Bounds of batch and queue: a queue of a million spans is hundreds of megabytes.
const MOST_BATCH: usize = 65_536;
const MOST_QUEUE: usize = 1_048_576;

/// Everything but the destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct TracesSettings {
    batch_max_size: usize,
    batch_timeout: Duration,
    queue_size: usize,
    backoff: Backoff,
}

impl TracesSettings {
    pub(super) fn with(&self, otlp: Otlp) -> OtlpTraces {
        let Self { batch_max_size, batch_timeout, queue_size, backoff } = *self;
        OtlpTraces { otlp, batch_max_size, batch_timeout, queue_size, backoff }
    }
}

/// Reads the section.
pub(super) fn traces(settings: &mut Settings<'_>) -> Result<TracesSettings, ConfigError> {
    let (batch_max_size, queue_size) = sizes(settings)?;
    let batch_timeout = match (settings.variable("otel_traces_export.batch_timeout"), schedule_delay(settings)?) {
        (Some(given), _) => given.duration()?,
        (None, Some(delay)) => delay,
        (None, None) => match settings.file("otel_traces_export.batch_timeout") {
            Some(given) => given.duration()?,
            None => BATCH_TIMEOUT,
        },
    };
    Ok(TracesSettings { batch_max_size, batch_timeout, queue_size, backoff: backoff(settings)? })
}

fn schedule_delay(settings: &mut Settings<'_>) -> Result<Option<Duration>, ConfigError> {
    match settings.named("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_SCHEDULE_DELAY") {
        Some(given) => otel::milliseconds(settings, &given),
        None => Ok(None),
    }
}

/// Batch and queue, of which the queue must take two batches: one that is sent, one that is filled.
fn sizes(settings: &mut Settings<'_>) -> Result<(usize, usize), ConfigError> {
    let batch = size(settings, "otel_traces_export.batch_max_size", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, MOST_BATCH)?;
    let queue = size(settings, "otel_traces_export.queue_size", "OTEL_BSP_MAX_QUEUE_SIZE", 0, MOST_QUEUE)?;
    // Zero stands for four batches, as in Beyla.
    let four = 4 * batch.as_ref().map_or(BATCH, |(batch, _)| *batch);
    let queue = queue.map(|(queue, given)| (if queue == 0 { four } else { queue }, given));
    match (batch, queue) {
        (None, None) => Ok((BATCH, QUEUE)),
        (Some((batch, _)), None) => Ok((batch, QUEUE.max(4 * batch))),
        (None, Some((queue, _))) => Ok((BATCH.min(queue / 2).max(1), queue.max(2))),
        (Some((batch, _)), Some((queue, given))) if queue < 2 * batch => {
            if !given.place().to_string().starts_with("OTEL_BSP_") {
                return Err(given.invalid(&format!("0 or at least {}, twice batch_max_size", 2 * batch)));
            }
            settings.warn(given.place(), format!("less than twice the batch size; {} is used", 2 * batch));
            Ok((batch, 2 * batch))
        }
        (Some((batch, _)), Some((queue, _))) => Ok((batch, queue)),
    }
}

/// A size: variable of Beyla's family, variable of the specification, file.
fn size<'a>(
    settings: &mut Settings<'a>,
    key: &'static str,
    specification: &str,
    least: usize,
    most: usize,
) -> Result<Option<(usize, crate::given::Given<'a>)>, ConfigError> {
    if let Some(given) = settings.variable(key) {
        return Ok(Some((given.number(least, most)?, given)));
    }
    if let Some(given) = settings.named(specification, key)
        && let Some(number) = otel::count(settings, &given, 1, most)?
    {
        return Ok(Some((number, given)));
    }
    match settings.file(key) {
        Some(given) => Ok(Some((given.number(least, most)?, given))),
        None => Ok(None),
    }
}

/// Zero stands for the default, as in Beyla.
fn backoff(settings: &Settings<'_>) -> Result<Backoff, ConfigError> {
    let read = |key, default| match settings.get(key) {
        Some(given) => given.duration().map(|pause| if pause.is_zero() { default } else { pause }),
        None => Ok(default),
    };
    let initial = read("otel_traces_export.backoff_initial_interval", BACKOFF.initial)?;
    let max = read("otel_traces_export.backoff_max_interval", BACKOFF.max)?;
    let max_elapsed = read("otel_traces_export.backoff_max_elapsed_time", BACKOFF.max_elapsed)?;
    Ok(Backoff { initial, max: max.max(initial), max_elapsed })
}
