//! Building and running the forwarder.
//!
//! In: command line, environment, configuration file. Out: what the exporters send, until SIGTERM or SIGINT, or until
//! the agent that was started here ends; then everything that was observed, within the shutdown timeout, and a summary.

mod failure;
#[doc(hidden)] // for the fuzz targets
pub mod intake;
mod reload;

pub use failure::Failure;

use std::{
    io,
    net::TcpStream,
    os::{fd::AsFd, unix::net::UnixListener},
    process::Child,
    sync::Arc,
    time::Duration,
};

use spantap_config::{Config, Console, Environment, Fallback, Loaded, Otlp};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};

use self::{intake::Intake, reload::Reloader};
use crate::{
    agent,
    cli::{Arguments, Command},
    confinement, doctor,
    endpoints::Endpoints,
    export::spool,
    health,
    ingest::{self, Allowed, BindError},
    loss::Losses,
    pipeline::{self, Pipeline},
    privilege::{self, Target},
    telemetry::summary::Summary,
};

/// How often time is told to the parts that wait for it.
const TICK: Duration = Duration::from_millis(50);
/// How often the configuration's file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Configuration, build, run, drain.
///
/// # Errors
/// See [`Failure`].
pub fn main() -> Result<(), Failure> {
    let arguments = Arguments::read()?;
    if let Some(Command::Doctor { json }) = arguments.command {
        std::process::exit(doctor::run(arguments.config.as_deref(), json).into());
    }
    let environment = Environment::of_process();
    let loaded = Config::load(arguments.config.as_deref(), &environment)
        .map_err(|error| Failure::Configuration(error.to_string()))?;
    if arguments.command == Some(Command::Check) {
        check(&loaded);
        return Ok(pipeline::check(&loaded.config)?);
    }
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    if arguments.command == Some(Command::Health) {
        return runtime()?.block_on(health::ask(&loaded.config));
    }
    spantap_config::log::start(loaded.config.log, arguments.log_format.as_deref()).map_err(Failure::Usage)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut config = loaded.config;
    // Before anything is started: what is not there now will not be there then.
    pipeline::check(&config)?;
    let target = Target::find(config.forwarder.user.as_deref())?;
    let whole = arguments.command.is_none();
    // The socket first: it tells best that another spantap runs.
    let listener = ingest::bind(&config.socket, target.as_ref().map(Target::uid)).map_err(|error| match error {
        BindError::Io { error: ref cause, .. }
            if whole && target.is_none() && cause.kind() == io::ErrorKind::PermissionDenied =>
        {
            Failure::NotRoot(error)
        }
        other => other.into(),
    })?;
    let endpoints = Endpoints::open(&config)?;
    let spool = match &config.spool {
        Some(of) => Some(spool::Directory::open(&of.path, target.as_ref().map(Target::uid))?),
        None => None,
    };
    let agent = match arguments.command {
        None => Some(agent::start(loaded.source.as_deref(), &config.socket, arguments.log_format.as_deref())?),
        Some(_) => None,
    };
    privilege::give_up(target.as_ref())?;
    choose_exporter(&mut config);
    let reloader = Reloader::new(arguments.config, environment, loaded.source, loaded.files, config);
    runtime()?.block_on(run(reloader, listener, endpoints, spool, agent))
}

fn check(loaded: &Loaded) {
    for warning in &loaded.warnings {
        println!("# warning: {warning}");
    }
    match &loaded.source {
        Some(path) => println!("# from {}, the environment and the defaults", path.display()),
        None => println!("# from the environment and the defaults; no file"),
    }
    print!("{}", loaded.config.render());
}

/// Nothing is configured to export to: a Collector on this host if there is one, else the terminal.
fn choose_exporter(config: &mut Config) {
    if config.has_exporter() {
        return;
    }
    let Some(fallback) = config.fallback.take() else {
        tracing::warn!("every exporter is switched off; exchanges are counted only");
        return;
    };
    let ports = words_of(&fallback.ports());
    if collector_listens(&fallback) {
        tracing::info!("no exporter is configured; sending to localhost:{ports}, where something listens");
        config.traces = fallback.traces;
        config.metrics = fallback.metrics;
    } else {
        tracing::info!("no exporter is configured and nothing listens on localhost:{ports}; printing to the terminal");
        config.console = Console::Text;
    }
}

/// Whether something listens where a Collector on this host does.
pub(crate) fn collector_listens(fallback: &Fallback) -> bool {
    let listens =
        |port: u16| TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_millis(300)).is_ok();
    fallback.ports().into_iter().all(listens)
}

/// Ports for people.
pub(crate) fn words_of(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" and ")
}

/// The agent goes first, so that the reason is the last that is said.
async fn last_said(reason: Failure, agent: &mut Option<Child>, limit: Duration) -> Failure {
    if let Some(child) = agent {
        drop(child.stdin.take());
        reap(child, Instant::now() + limit).await;
    }
    reason
}

async fn run(
    mut reloader: Reloader,
    listener: UnixListener,
    endpoints: Endpoints,
    spool: Option<spool::Directory>,
    mut agent: Option<Child>,
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let config = reloader.running();
    let losses = Arc::new(Losses::default());
    let mut pipeline = match Pipeline::with(endpoints, spool.as_ref(), config, losses.clone()) {
        Ok(pipeline) => pipeline,
        Err(error) => return Err(last_said(error.into(), &mut agent, config.shutdown_timeout).await),
    };
    // All that needs more is done; from here on bytes of other programs are read.
    if let Err(error) = confinement::enter(spool.as_ref().map(AsFd::as_fd)) {
        return Err(last_said(error.into(), &mut agent, config.shutdown_timeout).await);
    }
    drop(spool); // the pipeline has it, and keeps its lock
    let mut intake = Intake::new(losses);
    intake.set_capture(&config.headers);
    tell(config, &pipeline);

    let (arrivals, mut arriving) = ingest::channel();
    let (stop_server, stopped) = oneshot::channel();
    let mut allowed = Allowed { uids: vec![nix::unistd::getuid().as_raw()] };
    allowed.uids.extend(&config.forwarder.agent_uids);
    let server = tokio::spawn(ingest::serve(listener, allowed, arrivals, stopped));
    let (mut tick, mut look) = (interval(TICK), interval(LOOK));
    for timer in [&mut tick, &mut look] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let ended = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => reloader.reload(&mut pipeline, &mut intake),
            _ = look.tick() => {
                if reloader.has_changed() {
                    reloader.reload(&mut pipeline, &mut intake);
                }
            }
            _ = tick.tick() => {
                intake.tick(&mut pipeline);
                pipeline.tick();
                if let Some(status) = agent.as_mut().and_then(|child| child.try_wait().ok()?) {
                    break Some(status);
                }
            }
            Some(arrival) = arriving.recv() => intake.take(arrival, &mut pipeline),
        }
    };

    let shutdown_timeout = reloader.running().shutdown_timeout;
    let deadline = Instant::now() + shutdown_timeout;
    // The agent hands over what it holds and ends the stream; half of the time is kept for the exporters.
    if let Some(child) = &mut agent {
        drop(child.stdin.take());
    }
    let handed_over = match ended {
        None if agent.is_some() => Instant::now() + shutdown_timeout / 2,
        _ => Instant::now(),
    };
    loop {
        match timeout_at(handed_over.min(Instant::now() + TICK), arriving.recv()).await {
            Ok(Some(arrival)) => {
                let over = matches!(arrival, ingest::Arrival::Ended);
                intake.take(arrival, &mut pipeline);
                if over {
                    break;
                }
            }
            Ok(None) => break,
            Err(_) if Instant::now() >= handed_over => break,
            // An agent that was stopped before it had a stream ends none.
            Err(_) if agent.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) => break,
            Err(_) => {}
        }
    }
    // No receiver: the server has ended already.
    let _ = stop_server.send(());
    intake.drain(&mut pipeline);
    let summary = pipeline.drain(deadline).await;
    show(&summary, &intake);
    server.abort();
    if let Some(child) = &mut agent {
        reap(child, deadline).await;
    }
    match ended {
        Some(status) => Err(Failure::AgentEnded(status)),
        None => Ok(()),
    }
}

/// Says what is done with what is observed.
fn tell(config: &Config, pipeline: &Pipeline) {
    if let Some(traces) = &config.traces {
        tell_destination("traces", &traces.otlp);
    }
    if let Some(metrics) = &config.metrics {
        tell_destination("metrics", &metrics.otlp);
    }
    match &config.spool {
        Some(of) if config.traces.is_some() || config.metrics.is_some() => {
            tracing::info!(folder = %of.path.display(), "what a destination cannot take is kept on disk");
        }
        Some(_) => tracing::warn!("spantap.spool.path has no effect: nothing is sent by OTLP"),
        None => {}
    }
    if let Some(address) = pipeline.scrape_address() {
        tracing::info!(%address, "metrics can be scraped by Prometheus");
    }
    if let Some(address) = pipeline.admin_address() {
        tracing::info!(%address, "admin endpoint: /healthz, /readyz, /metrics");
    }
    tracing::info!(socket = %config.socket.display(), "waiting for the agent");
}

fn tell_destination(signal: &str, otlp: &Otlp) {
    tracing::info!(endpoint = %otlp.shown_endpoint(), protocol = otlp.protocol.name(), "{signal} go by OTLP");
    // What was read with privilege cannot be read again without.
    for path in otlp.header_source.iter().flat_map(|source| source.files()) {
        if let Err(error) = std::fs::File::open(path) {
            tracing::warn!(
                path = %path.display(),
                "{signal}: the credentials were read at start and CANNOT be read again when they are refused: {error}; let \
                 the user that forwards read the file, or start Spantap again after a change"
            );
        }
    }
}

fn show(summary: &Summary, intake: &Intake) {
    tracing::info!(
        requests_seen = intake.requests_seen(),
        server = summary.server_exchanges,
        client = summary.client_exchanges,
        spans_exported = summary.traces.exported,
        spans_recovered = summary.traces.recovered,
        spans_in_spool = summary.traces.spooled,
        spans_lost = summary.traces.lost.iter().map(|(_, count)| count).sum::<u64>(),
        data_points_exported = summary.metrics.exported,
        adds_up = summary.adds_up() && intake.adds_up(),
        "summary: exchanges reported and exported"
    );
    for (reason, count) in &summary.losses {
        tracing::info!(reason = reason.name(), count, unit = reason.unit(), "lost");
    }
}

/// Waits for the agent's end; it may be another user's process by now, so it is not ours to kill.
async fn reap(child: &mut Child, deadline: Instant) {
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        sleep_until((Instant::now() + TICK).min(deadline)).await;
    }
    tracing::warn!("spantap-agent has not ended yet");
}
