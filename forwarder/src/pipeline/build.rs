//! Setting the pipeline up.
//!
//! In: the configuration, listening sockets. Out: a [`Pipeline`] on the current runtime, or the key that stands in the way.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use spantap_config::{
    Aggregation, Backoff, Config, Console as ConsoleMode, ExemplarFilter, Features, OtlpMetrics, OtlpTraces,
    Prometheus, Temporality,
};
use tokio::task::JoinSet;

use super::{
    Metrics, Pipeline, Traces, active::ActiveRequests, batcher::Batcher, collector::Collector, lock,
    processes::Processes, services::Services, spools::Spools, wall_clock,
};
use crate::{
    admin,
    console::Console,
    endpoints::{EndpointError, Endpoints},
    export::{
        Delivery, Exporter, POINT_QUEUE_BYTES, SPAN_QUEUE_BYTES,
        client::{Client, ClientError},
        queue::Keep,
        spool::{Directory, SpoolError},
    },
    link::Links,
    loss::Losses,
    metric::{
        plan::{Bounds, Plan},
        registry::Registry,
    },
    observation::{
        Rules,
        route::{Routes, names::Names},
        target::Redactor,
    },
    otlp::span::SpanEncoder,
    prometheus::{self, page::Shown},
    resource::ResourceBuilder,
    serve::{Handler, Listening, ServeError, Server},
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
    /// The spool.
    #[error("{0}")]
    Spool(#[from] SpoolError),
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
        let spool = config.spool.as_ref().map(|of| Directory::open(&of.path, None)).transpose()?;
        Self::with(Endpoints::open(config)?, spool.as_ref(), config, losses)
    }

    /// The same with endpoints and a folder for the spool that are open already.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(
        endpoints: Endpoints,
        spool: Option<&Directory>,
        config: &Config,
        losses: Arc<Losses>,
    ) -> Result<Self, StartError> {
        let telemetry = Arc::new(Telemetry::new(losses));
        let names = Arc::<Names>::default();
        let rules = Arc::new(rules(config, names.clone()));
        let mut spools = Spools::new(spool, config.spool.as_ref());
        let resources = ResourceBuilder::new(config);
        let mut registries: Vec<Arc<Mutex<Registry>>> = Vec::new();
        let mut registry = |plan, ttl| registry(&mut registries, plan, ttl, &telemetry);
        let started = wall_clock();
        let metrics = match &config.metrics {
            Some(of) => {
                let registry = registry(otlp_plan(of, config), of.ttl);
                let collector = Collector::new(of, registry, telemetry.clone(), rules.clone(), started);
                Some(Metrics { collector, exporter: export_metrics(of, &mut spools, &telemetry)? })
            }
            None => None,
        };
        let scrape = match config.prometheus.as_ref().zip(endpoints.scrape) {
            Some((of, listening)) => {
                let registry = registry(scrape_plan(of, config), of.ttl);
                let answer = scrape_handler(of, registry, &rules, &telemetry);
                Some(Scrape::start(listening, answer).map_err(EndpointError::Prometheus)?)
            }
            None => None,
        };
        let admin = endpoints.admin.map(|listening| Server::start(listening, admin::handler(telemetry.clone())));
        let admin = admin.transpose().map_err(EndpointError::Admin)?;
        let traces = match &config.traces {
            Some(of) => Some(start_traces(of, &mut spools, &telemetry)?),
            None => None,
        };
        let console = (config.console != ConsoleMode::Off).then(|| Console::stdout(config.console, telemetry.clone()));
        let mut pipeline = Self {
            tracer: Tracer::new(config.sampler),
            links: Links::default(),
            links_on: config.links,
            active: ActiveRequests::default(),
            encoder: SpanEncoder::default(),
            processes: Processes::new(resources, Services::new(config, names)),
            exclude: config.exclude_instrumented,
            reporter: LossReporter::default(),
            rules,
            telemetry,
            registries,
            traces,
            metrics,
            console,
            scrape,
            admin,
            spools,
            retiring: JoinSet::new(),
            started,
        };
        pipeline.configure_active();
        Ok(pipeline)
    }
}

/// What a scrape of `registry` is answered.
pub(super) fn scrape_handler(
    of: &Prometheus,
    registry: Arc<Mutex<Registry>>,
    rules: &Arc<Rules>,
    telemetry: &Arc<Telemetry>,
) -> Handler {
    let shown = Shown { exemplars: of.scrape.exemplars.takes_any(), build_info: of.scrape.build_info };
    prometheus::handler(of.path.clone(), shown, registry, rules.clone(), telemetry.clone())
}

/// The scrape endpoint: what it answers can be replaced, where it listens can not.
pub(super) struct Scrape {
    pub(super) server: Server,
    answer: Arc<Mutex<Handler>>,
}

impl Scrape {
    fn start(on: Listening, answer: Handler) -> Result<Self, ServeError> {
        let answer = Arc::new(Mutex::new(answer));
        let current = answer.clone();
        let handler: Handler = Arc::new(move |query| {
            let answer = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
            answer(query)
        });
        Ok(Self { server: Server::start(on, handler)?, answer })
    }

    pub(super) fn set(&self, answer: Handler) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }
}

/// What observations depend on.
pub(super) fn rules(config: &Config, names: Arc<Names>) -> Rules {
    Rules {
        routes: Routes::configured(&config.routes, names),
        redactor: Redactor::new(&config.redaction.query_parameters),
        drop_query: config.attributes.drop_query,
    }
}

/// The registry for `plan` and `ttl` among `registries`, added if there is none: where instruments, attributes, bounds and
/// time to live are the same, the export and the scrape endpoint read the same series.
pub(super) fn registry(
    registries: &mut Vec<Arc<Mutex<Registry>>>,
    plan: Plan,
    ttl: Duration,
    telemetry: &Arc<Telemetry>,
) -> Arc<Mutex<Registry>> {
    let known = registries.iter().find(|r| lock(r).serves(&plan, ttl));
    known.cloned().unwrap_or_else(|| {
        let new = Arc::new(Mutex::new(Registry::new(Arc::new(plan), ttl, telemetry.clone())));
        registries.push(new.clone());
        new
    })
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
    Ok(())
}

pub(super) fn otlp_plan(of: &OtlpMetrics, config: &Config) -> Plan {
    let buckets = [&of.duration_buckets, &of.request_size_buckets, &of.response_size_buckets];
    plan(of.features, buckets, of.aggregation, config.prometheus.as_ref().map(scraped), config)
}

pub(super) fn scrape_plan(of: &Prometheus, config: &Config) -> Plan {
    let buckets = [&of.duration_buckets, &of.request_size_buckets, &of.response_size_buckets];
    plan(of.features, buckets, scraped(of), config.metrics.as_ref().map(|metrics| metrics.aggregation), config)
}

/// How series of the scrape endpoint are made.
fn scraped(of: &Prometheus) -> Aggregation {
    Aggregation { exemplars: of.scrape.exemplars, ..Aggregation::default() }
}

/// `other`: how those of the other way out are made.
fn plan(
    features: Features,
    [duration, request_size, response_size]: [&Vec<f64>; 3],
    mut how: Aggregation,
    other: Option<Aggregation>,
    config: &Config,
) -> Plan {
    // Where both are made alike they are the same series; the exemplars of one do no harm to the other.
    if let (ExemplarFilter::AlwaysOff, Some(other)) = (how.exemplars, other)
        && how == (Aggregation { exemplars: how.exemplars, ..other })
    {
        how.exemplars = other.exemplars;
    }
    Plan::new(features, &config.attributes, Bounds { duration, request_size, response_size }).aggregated(how)
}

pub(super) fn start_traces(of: &OtlpTraces, spools: &mut Spools, telemetry: &Telemetry) -> Result<Traces, StartError> {
    let books = &telemetry.traces;
    let max_items = u64::try_from(of.queue_size).unwrap_or(u64::MAX);
    let delivery = Delivery { max_items, max_bytes: SPAN_QUEUE_BYTES, keep: Keep::All, backoff: of.backoff };
    Ok(Traces {
        batcher: Batcher::new(of.batch_max_size, of.batch_timeout, books.clone()),
        exporter: Exporter::start(&of.otlp, delivery, spools.of(books)?, books.clone()).map_err(StartError::Traces)?,
    })
}

pub(super) fn export_metrics(
    of: &OtlpMetrics,
    spools: &mut Spools,
    telemetry: &Telemetry,
) -> Result<Exporter, StartError> {
    let books = &telemetry.metrics;
    let (keep, backoff) = match of.aggregation.temporality {
        Temporality::Cumulative => (Keep::Latest, METRICS_BACKOFF),
        Temporality::Delta | Temporality::LowMemory => (Keep::All, DELTA_BACKOFF),
    };
    let delivery = Delivery { max_items: MAX_DATA_POINTS, max_bytes: POINT_QUEUE_BYTES, keep, backoff };
    Exporter::start(&of.otlp, delivery, spools.of(books)?, books.clone()).map_err(StartError::Metrics)
}
