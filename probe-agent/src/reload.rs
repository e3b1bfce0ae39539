//! The configuration while running: read again by SIGHUP, or when its file has changed.
//!
//! In: the signal, the file's state each second. Out: processes observed by other rules, or a line that says why the old ones
//! go on. The file is read as at the start: with no more privilege than is left, which is that of reading any file.

use std::{fs::File, path::PathBuf};

use spantap_config::{Config, Environment, Watch};

use crate::drain::Drain;

/// Where the configuration comes from, and what runs.
#[derive(Debug)]
pub struct Reloader {
    flag: Option<PathBuf>,
    environment: Environment,
    watch: Watch,
    demanded: bool,
    running: Config,
}

impl Reloader {
    /// `config` runs; it was read from `source` as `flag` and `environment` say. To be made with the privilege that stays.
    pub fn new(flag: Option<PathBuf>, environment: Environment, source: Option<PathBuf>, config: Config) -> Self {
        if let Some(path) = &source
            && let Err(error) = File::open(path)
        {
            tracing::warn!(
                "{}: {error}: it cannot be read again with the privilege that is left, so `discovery` cannot be changed \
                 while running; let the agent's user read it",
                path.display()
            );
        }
        Self { flag, environment, watch: Watch::new(source), demanded: false, running: config }
    }

    /// The configuration that runs.
    pub fn running(&self) -> &Config {
        &self.running
    }

    /// Has it read again at the next occasion, whatever the file's state.
    pub fn demand(&mut self) {
        self.demanded = true;
    }

    /// Whether it is to be read again. To be asked about once a second.
    pub fn is_due(&mut self) -> bool {
        self.watch.has_changed() || self.demanded
    }

    /// Reads the configuration again. Whether it holds from now on; if not, it was said why.
    pub fn reload(&mut self, drain: &mut Drain) -> bool {
        self.watch.is_read();
        self.demanded = false;
        match self.take(drain) {
            Ok(()) => {
                tracing::info!(
                    processes = drain.processes.selected(),
                    "the configuration was read again and holds from now on"
                );
                true
            }
            Err(error) => {
                tracing::error!("the configuration was read again and is refused, the old one goes on: {error}");
                false
            }
        }
    }

    fn take(&mut self, drain: &mut Drain) -> Result<(), String> {
        let loaded = Config::load(self.flag.as_deref(), &self.environment).map_err(|error| error.to_string())?;
        let mut new = loaded.config;
        let running = &self.running;
        let rules = |config: &Config| (config.discovery.instrument.clone(), config.discovery.exclude.clone());
        if rules(running) != rules(&new)
            && let Err(error) = drain.reconfigure(&new.discovery)
        {
            // The old rules were in force a moment ago; a second error would be the same.
            let _ = drain.reconfigure(&running.discovery);
            return Err(error);
        }
        for key in fixed(running, &mut new) {
            tracing::warn!(
                "{key}: not changed: spantap-agent reads it when it starts; restart that, or Spantap as a whole"
            );
        }
        drain.probes.sample_propagation(new.agent.propagation.threshold);
        self.running = new;
        Ok(())
    }
}

/// Keys of the agent in which `new` differs from `running` and that a running agent cannot change. Their values in `new`
/// become those that run.
fn fixed(running: &Config, new: &mut Config) -> Vec<&'static str> {
    // The forwarder takes that one: what stays is where requests of Go are looked at.
    let links = running.links != new.links;
    new.links = running.links;
    let experimental = running.links_experimental != new.links_experimental;
    new.links_experimental.clone_from(&running.links_experimental);
    let (old, now) = (&running.agent, &mut new.agent);
    let differing = [
        ("spantap.ring_buffer_size", old.ring_buffer_bytes != now.ring_buffer_bytes),
        ("spantap.agent_queue_size", old.queue_bytes != now.queue_bytes),
        ("spantap.head_size", old.head_bytes != now.head_bytes),
        ("spantap.hooks", old.hooks != now.hooks),
        ("spantap.btf", old.btf != now.btf),
        ("spantap.tls", old.tls != now.tls),
        ("spantap.links", links),
        ("spantap.links_experimental", experimental),
        ("ebpf.context_propagation", old.propagation.headers != now.propagation.headers),
        (
            "spantap.accept_wrong_fionread",
            old.propagation.accept_wrong_fionread != now.propagation.accept_wrong_fionread,
        ),
        ("spantap.forwarder_uids", old.forwarder_uids != now.forwarder_uids),
    ];
    let (usage_interval, threshold) = (now.usage_interval, now.propagation.threshold);
    *now = old.clone();
    now.usage_interval = usage_interval;
    now.propagation.threshold = threshold;
    new.socket.clone_from(&running.socket);
    new.log = running.log;
    differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(yaml: &str) -> Config {
        Config::parse("spantap.yml".as_ref(), yaml, &Environment::default()).unwrap().config
    }

    #[test]
    fn what_can_not_change_is_named_and_stays() {
        let running = config("spantap: {head_size: 1024}\nprocesses: {interval: 7s}\n");
        let mut new = config(
            "spantap: {head_size: 2048, hooks: fentry, btf: /boot/btf, tls: 'off', links: 'off', links_experimental: [tokio]}\ndiscovery: {instrument: [{open_ports: 80}]}\n\
             ebpf: {context_propagation: headers}\notel_traces_export: {sampler: {name: always_off}}\n",
        );
        let named = [
            "spantap.head_size",
            "spantap.hooks",
            "spantap.btf",
            "spantap.tls",
            "spantap.links",
            "spantap.links_experimental",
            "ebpf.context_propagation",
        ];
        assert_eq!(fixed(&running, &mut new), named);
        assert_eq!(new.agent.propagation.threshold, 1 << 56, "the sampler's");
        assert_eq!((new.agent.head_bytes, new.agent.tls), (1024, true));
        assert_eq!(new.discovery.instrument.len(), 1, "which can");
        assert_eq!(fixed(&running.clone(), &mut running.clone()), [""; 0]);
    }
}
