//! In: a configuration some of whose headers stand in files. Out: the same headers, read again.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Signal;
use crate::{Config, ConfigError, environment::Environment, settings::Settings, types::Secret};

/// How the headers of a destination are read again after it refused them.
///
/// The configuration file is not opened again: its text is kept, only the files that it refers to are read. So what changes is
/// the secrets, and nothing else that somebody may be editing.
#[derive(Clone)]
pub struct HeaderSource {
    origin: Arc<Origin>,
    signal: Signal,
    files: Vec<PathBuf>,
}

struct Origin {
    path: PathBuf,
    text: Option<String>,
    env: Environment,
}

impl HeaderSource {
    /// `None` if no file has a part in the configuration. `headers_file`: the one of this signal.
    pub(super) fn of(settings: &Settings<'_>, signal: Signal, headers_file: Option<&Path>) -> Option<Self> {
        if !settings.env.reads_files() {
            return None;
        }
        let mut files = settings.secret_files.clone();
        files.extend(headers_file.filter(|path| !files.iter().any(|known| known == path)).map(Path::to_owned));
        if files.is_empty() {
            return None;
        }
        let text = settings.text.map(str::to_owned);
        let origin = Arc::new(Origin { path: settings.path().to_owned(), text, env: settings.env.clone() });
        Some(Self { origin, signal, files })
    }

    /// The files that are read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads the files now: names and values of all headers of the destination. Reads from the disk, so it may wait.
    ///
    /// # Errors
    /// If a file cannot be read, or what it holds now cannot be used; no value is in the message.
    pub fn read(&self) -> Result<Vec<(String, Secret)>, ConfigError> {
        let Origin { path, text, env } = &*self.origin;
        let config = match text {
            Some(text) => Config::parse(path, text, env)?.config,
            None => Config::load(None, env)?.config,
        };
        let fallback = config.fallback.map(|fallback| *fallback);
        let (traces, metrics) = fallback.map_or((None, None), |of| (of.traces, of.metrics));
        let otlp = match self.signal {
            Signal::Traces => config.traces.or(traces).map(|of| of.otlp),
            Signal::Metrics => config.metrics.or(metrics).map(|of| of.otlp),
        };
        Ok(otlp.map(|otlp| otlp.headers).unwrap_or_default())
    }
}

impl fmt::Debug for HeaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may hold secrets.
        f.debug_struct("HeaderSource").field("files", &self.files).finish_non_exhaustive()
    }
}

impl PartialEq for HeaderSource {
    fn eq(&self, other: &Self) -> bool {
        (self.signal, &self.files) == (other.signal, &other.files)
    }
}
