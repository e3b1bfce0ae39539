//! Building and running the forwarder.
//!
//! In: command line, environment, configuration file. Out: what the exporters send, until SIGTERM or SIGINT, or until
//! the agent that was started here ends; then everything that was observed, within the shutdown timeout, and a summary.

#[doc(hidden)] // for the fuzz targets
pub mod intake;

use std::{io, net::TcpStream, os::unix::net::UnixListener, process::Child, sync::Arc, time::Duration};

use spantap_config::{Config, Console, Environment, Loaded};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};

use self::intake::Intake;
use crate::{
    agent::{self, AgentError},
    cli::{Arguments, Command},
    confinement::{self, ConfinementError},
    doctor,
    endpoints::{EndpointError, Endpoints},
    health,
    ingest::{self, Allowed, BindError},
    loss::Losses,
    pipeline::{self, Pipeline, StartError},
    privilege::{self, PrivilegeError, Target},
    telemetry::summary::Summary,
};

/// How often time is told to the parts that wait for it.
const TICK: Duration = Duration::from_millis(50);

/// Why the program ended; tells the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Bad usage.
    #[error("{0}")]
    Usage(String),
    /// Bad configuration.
    #[error("{0}")]
    Configuration(String),
    /// The ingest socket.
    #[error("{0}")]
    Socket(#[from] BindError),
    /// The ingest socket, where the whole job was asked for by somebody who may not do it.
    #[error(
        "{0}; and to observe programs needs privilege: run the whole as root (sudo spantap), or `spantap forward` alone"
    )]
    NotRoot(#[source] BindError),
    /// The scrape or the admin endpoint.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
    /// The agent as a child.
    #[error("{0}")]
    Agent(#[from] AgentError),
    /// The agent that was started here has ended; it has said why.
    #[error("spantap-agent ended ({0}); see its message above")]
    AgentEnded(std::process::ExitStatus),
    /// Giving up privilege.
    #[error("{0}")]
    Privilege(#[from] PrivilegeError),
    /// Confinement.
    #[error("cannot be confined: {0}")]
    Confinement(#[from] ConfinementError),
    /// Exporters.
    #[error("{0}")]
    Start(#[from] StartError),
    /// Asked for its health, which is bad.
    #[error("{0}")]
    Unhealthy(String),
    /// Anything else while running.
    #[error("{0}")]
    Running(#[from] io::Error),
    /// The ingest server.
    #[error("{0}")]
    Ingest(#[from] ingest::ServeError),
}

impl Failure {
    /// Exit code by the contract of the command line (sysexits.h).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Configuration(_) => 64,
            Self::Start(StartError::Traces(_) | StartError::Metrics(_)) => 64,
            Self::Endpoint(EndpointError::Tls(_)) | Self::Start(StartError::Endpoint(EndpointError::Tls(_))) => 64,
            Self::Privilege(_) | Self::NotRoot(_) | Self::Socket(BindError::Owner { .. }) => 77,
            Self::Socket(_)
            | Self::Endpoint(_)
            | Self::Start(StartError::Endpoint(_))
            | Self::Agent(_)
            | Self::Confinement(_) => 69,
            // What the agent misses is what we miss.
            Self::AgentEnded(status) => match status.code() {
                Some(code @ (64 | 69 | 77)) => code as u8,
                _ => 1,
            },
            Self::Running(_) | Self::Ingest(_) | Self::Unhealthy(_) => 1,
        }
    }
}

/// Configuration, build, run, drain.
///
/// # Errors
/// See [`Failure`].
pub fn main() -> Result<(), Failure> {
    let arguments = Arguments::read()?;
    if let Some(Command::Doctor { json }) = arguments.command {
        std::process::exit(doctor::run(arguments.config.as_deref(), json).into());
    }
    let loaded = Config::load(arguments.config.as_deref(), &Environment::of_process())
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
    let agent = match arguments.command {
        None => Some(agent::start(loaded.source.as_deref(), &config.socket, arguments.log_format.as_deref())?),
        Some(_) => None,
    };
    privilege::give_up(target.as_ref())?;
    choose_exporter(&mut config);
    runtime()?.block_on(run(config, listener, endpoints, agent))
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
    if collector_listens() {
        tracing::info!("no exporter is configured; sending to http://localhost:4318, where something listens");
        config.traces = fallback.traces;
        config.metrics = fallback.metrics;
    } else {
        tracing::info!("no exporter is configured and nothing listens on localhost:4318; printing to the terminal");
        config.console = Console::Text;
    }
}

/// Whether something listens where a Collector on this host does.
pub(crate) fn collector_listens() -> bool {
    TcpStream::connect_timeout(&([127, 0, 0, 1], 4318).into(), Duration::from_millis(300)).is_ok()
}

async fn run(
    config: Config,
    listener: UnixListener,
    endpoints: Endpoints,
    mut agent: Option<Child>,
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let losses = Arc::new(Losses::default());
    let mut pipeline = match Pipeline::with(endpoints, &config, losses.clone()) {
        Ok(pipeline) => pipeline,
        Err(error) => {
            // The agent goes first, so that the reason is the last that is said.
            if let Some(child) = &mut agent {
                drop(child.stdin.take());
                reap(child, Instant::now() + config.shutdown_timeout).await;
            }
            return Err(error.into());
        }
    };
    // All that needs more is done; from here on bytes of other programs are read.
    confinement::enter()?;
    let mut intake = Intake::new(losses);
    tell(&config, &pipeline);

    let (arrivals, mut arriving) = ingest::channel();
    let (stop_server, stopped) = oneshot::channel();
    let mut allowed = Allowed { uids: vec![nix::unistd::getuid().as_raw()] };
    allowed.uids.extend(&config.forwarder.agent_uids);
    let server = tokio::spawn(ingest::serve(listener, allowed, arrivals, stopped));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
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

    let deadline = Instant::now() + config.shutdown_timeout;
    // The agent hands over what it holds and ends the stream; half of the time is kept for the exporters.
    if let Some(child) = &mut agent {
        drop(child.stdin.take());
    }
    let handed_over = match ended {
        None if agent.is_some() => Instant::now() + config.shutdown_timeout / 2,
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
        tracing::info!(endpoint = traces.otlp.shown_endpoint(), "traces go by OTLP");
    }
    if let Some(metrics) = &config.metrics {
        tracing::info!(endpoint = metrics.otlp.shown_endpoint(), "metrics go by OTLP");
    }
    if let Some(address) = pipeline.scrape_address() {
        tracing::info!(%address, "metrics can be scraped by Prometheus");
    }
    if let Some(address) = pipeline.admin_address() {
        tracing::info!(%address, "admin endpoint: /healthz, /readyz, /metrics");
    }
    tracing::info!(socket = %config.socket.display(), "waiting for the agent");
}

fn show(summary: &Summary, intake: &Intake) {
    tracing::info!(
        requests_seen = intake.requests_seen(),
        server = summary.server_exchanges,
        client = summary.client_exchanges,
        spans_exported = summary.traces.exported,
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
