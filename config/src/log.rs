//! Logging of both programs: lines on standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
};

use crate::{Log, LogFormat, LogLevel};

/// Starts logging to standard error, as configured; `format` is the value of `--log-format` and wins.
///
/// # Errors
/// If `format` is neither `text` nor `json`.
pub fn start(log: Log, format: Option<&str>) -> Result<(), String> {
    let format = match format {
        None => log.format,
        Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => return Err(format!("--log-format: found `{other}`, expected text or json")),
    };
    let level = match log.level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // What libraries have to say about their insides is of use to nobody who runs this.
    let ours = Targets::new().with_target("spantap", level).with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(stderr).with_target(false);
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Json => tracing::subscriber::set_global_default(lines.json().finish().with(ours)),
        LogFormat::Text => {
            tracing::subscriber::set_global_default(lines.with_ansi(stderr().is_terminal()).finish().with(ours))
        }
    };
    Ok(())
}
