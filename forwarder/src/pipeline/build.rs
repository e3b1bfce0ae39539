//! Setting the pipeline up.
//!
//! In: the configuration, listening sockets. Out: a [`Pipeline`] on the current runtime, or the key that stands in the way.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use spantap_config::{
    Aggregation, Backoff, Config, Console as ConsoleMode, ExemplarFilter, OtlpMetrics, OtlpTraces, Prometheus,
    Temporality,
};

use super::{
    Metrics, Pipeline, Traces, batcher::Batcher, collector::Collector, lock, processes::Processes, wall_clock,
};
use crate::{
    admin,
    console::Console,
    endpoints::{self, EndpointError, Endpoints},
    export::{
        Delivery, Exporter,
        client::{Client, ClientError},
        queue::Keep,
    },
    loss::Losses,
    metric::{
        plan::{Bounds, Plan},
        registry::Registry,
    },
    observation::{Rules, route::Routes, target::Redactor},
    otlp::span::SpanEncoder,
    prometheus::{self, page::Shown},
    resource::ResourceBuilder,
    serve::Server,
    telemetry::{Telemetry, report::LossReporter},
    trace::Tracer,
};

/// Data points that may wait for a destination. Cumulative collections are replaced by the next, so there this bounds one.
const MAX_DATA_POINTS: u64 = 4_000_000;
/// How metrics are tried again; a later collection ends it sooner.
const METRICS_BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30), max_elapsed: Duration::from_secs(300) };
/// The same where each collection tells differences that no later one repeats: they are kept while there is room.
const DELTA_BACKOFF: Backoff = Backoff { max_elapsed: Duration::from_secs(24 * 3600), ..METRICS_BACKOFF };

/// Why the pipeline can not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The destination of traces.
    #[error("otel_traces_export: {0}")]
    Traces(#[source] ClientError),
    /// The destination of metrics.
    #[error("otel_metrics_export: {0}")]
    Metrics(#[source] ClientError),
    /// The scrape or the admin endpoint.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
}

impl Pipeline {
    /// Sets up everything that `config` asks for, on the current runtime. Opens the scrape and admin endpoints;
    /// connects to no destination yet.
    ///
    /// # Errors
    /// If a destination is not usable as configured or an address is taken; the message names the key.
    pub fn new(config: &Config, losses: Arc<Losses>) -> Result<Self, StartError> {
        Self::with(Endpoints::open(config)?, config, losses)
    }

    /// The same with endpoints that are open already.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(endpoints: Endpoints, config: &Config, losses: Arc<Losses>) -> Result<Self, StartError> {
        let telemetry = Arc::new(Telemetry::new(losses));
        let rules = Arc::new(Rules {
            routes: Routes::new(&config.routes.patterns),
            redactor: Redactor::new(&config.redaction.query_parameters),
            drop_query: config.attributes.drop_query,
        });
        let resources = ResourceBuilder::new(config);
        let mut registries: Vec<Arc<Mutex<Registry>>> = Vec::new();
        // Where instruments, bounds and time to live are the same, the export and the scrape endpoint read the same series.
        let mut registry = |plan: Plan, ttl| {
            let known = registries.iter().find(|r| lock(r).serves(&plan, ttl));
            known.cloned().unwrap_or_else(|| {
                let new = Arc::new(Mutex::new(Registry::new(Arc::new(plan), ttl, telemetry.clone())));
                registries.push(new.clone());
                new
            })
        };
        let metrics = match &config.metrics {
            Some(of) => Some(start_metrics(of, registry(otlp_plan(of, config), of.ttl), &telemetry, &rules)?),
            None => None,
        };
        let scrape = match config.prometheus.as_ref().zip(endpoints.scrape) {
            Some((of, listening)) => {
                let registry = registry(scrape_plan(of, config), of.ttl);
                let shown = Shown {
                    exemplars: of.scrape.exemplars != ExemplarFilter::AlwaysOff,
                    build_info: of.scrape.build_info,
                };
                let answer = prometheus::handler(of.path.clone(), shown, registry, rules.clone(), telemetry.clone());
                Some(Server::start(listening, answer).map_err(EndpointError::Prometheus)?)
            }
            None => None,
        };
        let admin = endpoints.admin.map(|listening| Server::start(listening, admin::handler(telemetry.clone())));
        let admin = admin.transpose().map_err(EndpointError::Admin)?;
        let traces = match &config.traces {
            Some(of) => Some(start_traces(of, &telemetry)?),
            None => None,
        };
        let console = (config.console != ConsoleMode::Off).then(|| Console::stdout(config.console, telemetry.clone()));
        Ok(Self {
            tracer: Tracer::new(config.sampler),
            encoder: SpanEncoder::default(),
            processes: Processes::new(resources),
            reporter: LossReporter::default(),
            rules,
            telemetry,
            registries,
            traces,
            metrics,
            console,
            scrape,
            admin,
        })
    }
}

/// Whether the destinations can be used as configured: URL, headers, certificates. Opens no connection.
///
/// # Errors
/// If one can not be; the message names its section.
pub fn check(config: &Config) -> Result<(), StartError> {
    if let Some(traces) = &config.traces {
        Client::new(&traces.otlp).map_err(StartError::Traces)?;
    }
    if let Some(metrics) = &config.metrics {
        Client::new(&metrics.otlp).map_err(StartError::Metrics)?;
    }
    if let Some(prometheus) = &config.prometheus {
        endpoints::guard(&prometheus.scrape).map_err(EndpointError::Tls)?;
    }
    Ok(())
}

fn otlp_plan(of: &OtlpMetrics, config: &Config) -> Plan {
    let bounds = Bounds {
        duration: &of.duration_buckets,
        request_size: &of.request_size_buckets,
        response_size: &of.response_size_buckets,
    };
    let mut how = of.aggregation;
    if let (ExemplarFilter::AlwaysOff, Some(scrape)) = (how.exemplars, &config.prometheus) {
        // The scrape endpoint's exemplars do no harm in series that both read.
        how.exemplars = scrape.scrape.exemplars;
    }
    Plan::new(of.features, &config.attributes, bounds).aggregated(how)
}

fn scrape_plan(of: &Prometheus, config: &Config) -> Plan {
    let bounds = Bounds {
        duration: &of.duration_buckets,
        request_size: &of.request_size_buckets,
        response_size: &of.response_size_buckets,
    };
    let mut how = Aggregation { exemplars: of.scrape.exemplars, ..Aggregation::default() };
    let otlp = config.metrics.as_ref().map(|metrics| metrics.aggregation);
    if let (ExemplarFilter::AlwaysOff, Some(otlp)) = (how.exemplars, otlp)
        && how == (Aggregation { exemplars: how.exemplars, ..otlp })
    {
        how.exemplars = otlp.exemplars;
    }
    Plan::new(of.features, &config.attributes, bounds).aggregated(how)
}

fn start_traces(of: &OtlpTraces, telemetry: &Telemetry) -> Result<Traces, StartError> {
    let max_items = u64::try_from(of.queue_size).unwrap_or(u64::MAX);
    let delivery = Delivery { max_items, keep: Keep::All, backoff: of.backoff };
    Ok(Traces {
        batcher: Batcher::new(of.batch_max_size, of.batch_timeout, telemetry.traces.clone()),
        exporter: Exporter::start(&of.otlp, delivery, telemetry.traces.clone()).map_err(StartError::Traces)?,
    })
}

fn start_metrics(
    of: &OtlpMetrics,
    registry: Arc<Mutex<Registry>>,
    telemetry: &Arc<Telemetry>,
    rules: &Arc<Rules>,
) -> Result<Metrics, StartError> {
    let (keep, backoff) = match of.aggregation.temporality {
        Temporality::Cumulative => (Keep::Latest, METRICS_BACKOFF),
        Temporality::Delta | Temporality::LowMemory => (Keep::All, DELTA_BACKOFF),
    };
    let delivery = Delivery { max_items: MAX_DATA_POINTS, keep, backoff };
    let exemplars = of.aggregation.exemplars != ExemplarFilter::AlwaysOff;
    Ok(Metrics {
        collector: Collector::new(of.interval, exemplars, registry, telemetry.clone(), rules.clone(), wall_clock()),
        exporter: Exporter::start(&of.otlp, delivery, telemetry.metrics.clone()).map_err(StartError::Metrics)?,
    })
}
