//! The configuration while running: read again by SIGHUP, or when its file has changed.
//!
//! In: the signal, the file's state each second. Out: the pipeline under the new configuration, or a line that says why the
//! old one goes on.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use spantap_config::{Config, Environment};

use super::{choose_exporter, intake::Intake};
use crate::pipeline::{self, Pipeline};

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of content, or of who may read it.
    changed: (i64, i64),
}

impl Signature {
    fn of(path: &Path) -> Option<Self> {
        // A link is followed: what a ConfigMap replaces is the link.
        let data = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// Where the configuration comes from, and what runs.
#[derive(Debug)]
pub(super) struct Reloader {
    flag: Option<PathBuf>,
    environment: Environment,
    source: Option<PathBuf>,
    /// The state that was read last.
    read: Option<Signature>,
    /// A state that may still be in the making.
    coming: Option<Signature>,
    running: Config,
}

impl Reloader {
    /// `config` runs; it was read from `source` as `flag` and `environment` say. To be made by the user that goes on.
    pub(super) fn new(
        flag: Option<PathBuf>,
        environment: Environment,
        source: Option<PathBuf>,
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
        let read = source.as_deref().and_then(Signature::of);
        Self { flag, environment, source, read, coming: None, running: config }
    }

    /// The configuration that runs.
    pub(super) fn running(&self) -> &Config {
        &self.running
    }

    /// Whether the file has changed, and was left alone since the last call. To be asked about once a second.
    pub(super) fn has_changed(&mut self) -> bool {
        let Some(now) = self.source.as_deref().and_then(Signature::of).filter(|now| Some(*now) != self.read) else {
            self.coming = None;
            return false;
        };
        let settled = self.coming == Some(now);
        self.coming = Some(now);
        settled
    }

    /// Reads the configuration again and goes on with it, or says why not.
    pub(super) fn reload(&mut self, pipeline: &mut Pipeline, intake: &mut Intake) {
        // Before it is read: what changes from now on is seen as another change.
        self.read = self.source.as_deref().and_then(Signature::of);
        self.coming = None;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::sample;

    #[test]
    fn a_change_counts_once_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yml");
        fs::write(&path, "open_port: 80\n").unwrap();
        let mut reloader = Reloader::new(None, Environment::default(), Some(path.clone()), sample::config());
        assert!(!reloader.has_changed() && !reloader.has_changed());
        fs::write(&path, "open_port: 8080\n").unwrap();
        assert!(!reloader.has_changed(), "it may still be written");
        fs::write(&path, "open_port: 808080\n").unwrap();
        assert!(!reloader.has_changed());
        assert!(reloader.has_changed());
        reloader.read = Signature::of(&path);
        assert!(!reloader.has_changed());
        // Another file in its place, as editors and ConfigMaps do; and none at all.
        let other = folder.path().join("other");
        fs::write(&other, "open_port: 909090\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!reloader.has_changed() && reloader.has_changed());
        fs::remove_file(&path).unwrap();
        assert!(!reloader.has_changed() && !reloader.has_changed(), "the old one goes on");
    }
}
