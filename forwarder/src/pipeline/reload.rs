//! Another configuration while running: what changed is started anew, what did not goes on.
//!
//! In: the configuration that runs and the one that is to. Out: new exporters in place, the old ones sending what they hold
//! in the background; the same registries, and so the same series, wherever their settings are the same.

use std::sync::Arc;

use spantap_config::{Config, Console as ConsoleMode, Otlp, Scrape};
use tokio::time::Instant;

use super::{
    Metrics, Pipeline,
    build::{self, StartError},
    collector::Collector,
    wall_clock,
};
use crate::{
    console::Console,
    endpoints::{self, EndpointError},
    export::Exporter,
    serve::{Guard, Reply},
};

/// Keys in which `new` differs from `running` and that a running forwarder cannot change, each with why. Their values in
/// `new` become those that run. What concerns the agent alone is the agent's to tell, which reads its file itself.
pub fn fixed(running: &Config, new: &mut Config) -> Vec<(&'static str, &'static str)> {
    const RESTART: &str = "that takes a restart of Spantap";
    const LISTENING: &str = "a confined process cannot listen anew; restart Spantap";
    let mut found = Vec::new();
    let mut differ = |key, differs: bool, why| {
        if differs {
            found.push((key, why));
        }
    };
    differ("spantap.socket", running.socket != new.socket, LISTENING);
    differ("spantap.admin", running.admin != new.admin, LISTENING);
    differ("spantap.user", running.forwarder.user != new.forwarder.user, RESTART);
    differ("spantap.agent_uids", running.forwarder.agent_uids != new.forwarder.agent_uids, RESTART);
    differ("spantap.spool", running.spool != new.spool, RESTART);
    differ("log_level", running.log.level != new.log.level, RESTART);
    differ("log_format", running.log.format != new.log.format, RESTART);
    let port = |config: &Config| config.prometheus.as_ref().map(|of| of.port);
    let moved = port(new).is_some() && port(new) != port(running);
    differ("prometheus_export.port", moved, LISTENING);

    new.socket.clone_from(&running.socket);
    new.spool.clone_from(&running.spool);
    (new.admin, new.log, new.forwarder) = (running.admin, running.log, running.forwarder.clone());
    match (&mut new.prometheus, &running.prometheus) {
        (Some(new), Some(running)) => new.port = running.port,
        (place @ Some(_), None) => *place = None,
        (None, _) => {}
    }
    found
}

/// Who may scrape from now on, if that changes: the files of certificate and key may not be readable any more.
fn changed_guard(running: &Config, new: &Config) -> Result<Option<Guard>, StartError> {
    let Some(new) = new.prometheus.as_ref().map(|of| &of.scrape) else { return Ok(None) };
    let of = |scrape: &Scrape| (scrape.basic_auth.clone(), scrape.tls.clone(), scrape.tls_files.clone());
    if running.prometheus.as_ref().is_some_and(|running| of(&running.scrape) == of(new)) {
        return Ok(None);
    }
    Ok(Some(endpoints::guard(new).map_err(EndpointError::Tls)?))
}

/// Whether what one could not deliver is the other's to deliver.
fn same_place(one: &Otlp, other: &Otlp) -> bool {
    (&one.endpoint, &one.socket, one.signal) == (&other.endpoint, &other.socket, other.signal)
}

impl Pipeline {
    /// Goes on with `new` in the place of `running`. Exporters that are no longer wanted have `running.shutdown_timeout` to
    /// send what they hold.
    ///
    /// # Errors
    /// If a destination is not usable as configured; then nothing has changed.
    pub fn reload(&mut self, running: &Config, new: &Config) -> Result<(), StartError> {
        // Whatever can fail comes first.
        build::check(new)?;
        let guard = changed_guard(running, new)?;
        let deadline = Instant::now() + running.shutdown_timeout;
        self.flush_spans();
        // What goes to the old destination goes with the numbers of now.
        self.tell_active(Instant::now());
        self.reload_traces(running, new, deadline)?;
        self.rules = Arc::new(build::rules(new, self.rules.routes.names().clone()));
        self.tracer.set_sampler(new.sampler);
        self.exclude = new.exclude_instrumented;
        self.reload_links(new.links);
        self.processes.reconfigure(new, &self.registries, Instant::now());
        self.reload_metrics(running, new, deadline)?;
        self.configure_active();
        if let (Some(scrape), Some(guard)) = (&self.scrape, guard) {
            scrape.server.set_guard(guard);
        }
        self.reload_console(new.console);
        Ok(())
    }

    fn reload_traces(&mut self, running: &Config, new: &Config, deadline: Instant) -> Result<(), StartError> {
        if running.traces == new.traces {
            return Ok(());
        }
        let started =
            new.traces.as_ref().map(|of| build::start_traces(of, &mut self.spools, &self.telemetry)).transpose()?;
        let stays = running.traces.as_ref().zip(new.traces.as_ref());
        let stays = stays.is_some_and(|(running, new)| same_place(&running.otlp, &new.otlp));
        if let Some(old) = std::mem::replace(&mut self.traces, started) {
            if let Some(new) = self.traces.as_ref().filter(|_| stays) {
                old.exporter.succeeded_by(&new.exporter);
            }
            self.retire(old.exporter, deadline);
        }
        Ok(())
    }

    fn reload_metrics(&mut self, running: &Config, new: &Config, deadline: Instant) -> Result<(), StartError> {
        let telemetry = self.telemetry.clone();
        // What both destinations ask for decides which series there are.
        let pushed = |of: &Config| of.metrics.as_ref().map(|metrics| (build::otlp_plan(metrics, of), metrics.ttl));
        let scraped = |of: &Config| of.prometheus.as_ref().map(|scrape| (build::scrape_plan(scrape, of), scrape.ttl));
        if running.metrics != new.metrics || pushed(running) != pushed(new) {
            let old = self.metrics.take();
            self.metrics = match (&new.metrics, old) {
                (None, old) => {
                    self.retire_metrics(old, deadline);
                    None
                }
                (Some(of), old) => {
                    let plan = build::otlp_plan(of, new);
                    let registry = build::registry(&mut self.registries, plan, of.ttl, &telemetry);
                    // The temporality decides what waits for the destination and what is replaced.
                    let same_exporter = running.metrics.as_ref().is_some_and(|running| {
                        running.otlp == of.otlp && running.aggregation.temporality == of.aggregation.temporality
                    });
                    let (collector, exporter) = match old {
                        Some(mut old) if same_exporter => {
                            if !Arc::ptr_eq(old.collector.registry(), &registry) {
                                self.last_collection(&mut old);
                            }
                            (Some(old.collector), old.exporter)
                        }
                        Some(mut old) => {
                            let exporter = build::export_metrics(of, &mut self.spools, &telemetry)?;
                            self.last_collection(&mut old);
                            if running.metrics.as_ref().is_some_and(|running| {
                                same_place(&running.otlp, &of.otlp)
                                    && running.aggregation.temporality == of.aggregation.temporality
                            }) {
                                old.exporter.succeeded_by(&exporter);
                            }
                            self.retire(old.exporter, deadline);
                            (Some(old.collector), exporter)
                        }
                        None => (None, build::export_metrics(of, &mut self.spools, &telemetry)?),
                    };
                    let collector = match collector.filter(|known| Arc::ptr_eq(known.registry(), &registry)) {
                        Some(mut known) => {
                            known.reconfigure(of);
                            known
                        }
                        None => Collector::new(of, registry, telemetry.clone(), self.rules.clone(), self.started),
                    };
                    Some(Metrics { collector, exporter })
                }
            };
        }
        if let Some(scrape) = &self.scrape
            && (running.prometheus != new.prometheus || scraped(running) != scraped(new))
        {
            scrape.set(match &new.prometheus {
                Some(of) => {
                    let plan = build::scrape_plan(of, new);
                    let registry = build::registry(&mut self.registries, plan, of.ttl, &telemetry);
                    build::scrape_handler(of, registry, &self.rules, &telemetry)
                }
                None => Arc::new(|_| Reply::text(404, "the scrape endpoint was switched off\n")),
            });
        }
        let wanted = [pushed(new), scraped(new)];
        self.registries.retain(|registry| {
            let registry = super::lock(registry);
            wanted.iter().flatten().any(|(plan, ttl)| registry.serves(plan, *ttl))
        });
        Ok(())
    }

    fn reload_console(&mut self, mode: ConsoleMode) {
        match &mut self.console {
            Some(console) => console.set_mode(mode),
            None if mode != ConsoleMode::Off => self.console = Some(Console::stdout(mode, self.telemetry.clone())),
            None => {}
        }
    }

    fn retire_metrics(&mut self, old: Option<Metrics>, deadline: Instant) {
        if let Some(mut old) = old {
            self.last_collection(&mut old);
            self.retire(old.exporter, deadline);
        }
    }

    /// What was measured up to now is the old destination's, too.
    fn last_collection(&mut self, of: &mut Metrics) {
        let requests = of.collector.collect(Instant::now(), wall_clock(), self.processes.resources());
        of.exporter.push(requests);
    }

    fn retire(&mut self, exporter: Exporter, deadline: Instant) {
        while self.retiring.try_join_next().is_some() {}
        self.retiring.spawn(exporter.drain(deadline));
    }
}
