//! The configuration while running: read again by SIGHUP, or when its file has changed.
//!
//! In: the signal, the file's state each second. Out: the pipeline under the new configuration, or a line that says why the
//! old one goes on.

use std::{fs::File, path::PathBuf};

use spantap_config::{Config, Environment, Watch};

use super::{choose_exporter, intake::Intake};
use crate::pipeline::{self, Pipeline};

/// Where the configuration comes from, and what runs.
#[derive(Debug)]
pub(super) struct Reloader {
    flag: Option<PathBuf>,
    environment: Environment,
    source: Option<PathBuf>,
    watch: Watch,
    running: Config,
}

impl Reloader {
    /// `config` runs; it was read from `source` and `files` as `flag` and `environment` say. To be made by the user that goes on.
    pub(super) fn new(
        flag: Option<PathBuf>,
        environment: Environment,
        source: Option<PathBuf>,
        files: Vec<PathBuf>,
        config: Config,
    ) -> Self {
        if let Some(path) = &source
            && let Err(error) = File::open(path)
        {
            tracing::warn!(
                "{}: {error}: the user that Spantap runs as cannot read it again, so it cannot be changed while running; \
                 let that user read it",
                path.display()
            );
        }
        let watch = Watch::new(source.iter().cloned().chain(files));
        Self { flag, environment, source, watch, running: config }
    }

    /// The configuration that runs.
    pub(super) fn running(&self) -> &Config {
        &self.running
    }

    /// Whether the file has changed, or one that it names, and was left alone since the last call. To be asked about once a second.
    pub(super) fn has_changed(&mut self) -> bool {
        self.watch.has_changed()
    }

    /// Reads the configuration again and goes on with it, or says why not.
    pub(super) fn reload(&mut self, pipeline: &mut Pipeline, intake: &mut Intake) {
        self.watch.is_read();
        match self.take(pipeline) {
            Ok(()) => {
                intake.set_capture(&self.running.headers);
                pipeline.telemetry().reloads.add(1);
                tracing::info!("the configuration was read again and holds from now on");
            }
            Err(error) => {
                pipeline.telemetry().reloads_refused.add(1);
                tracing::error!("the configuration was read again and is refused, the old one goes on: {error}");
            }
        }
    }

    fn take(&mut self, pipeline: &mut Pipeline) -> Result<(), Box<dyn std::error::Error>> {
        let loaded = Config::load(self.flag.as_deref(), &self.environment)?;
        self.watch.look_at(self.source.iter().cloned().chain(loaded.files));
        let mut config = loaded.config;
        let fixed = pipeline::fixed(&self.running, &mut config);
        choose_exporter(&mut config);
        pipeline.reload(&self.running, &config)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        for (key, why) in fixed {
            tracing::warn!("{key}: not changed: {why}");
        }
        self.running = config;
        Ok(())
    }
}
