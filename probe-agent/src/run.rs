//! Building and running the agent.
//!
//! In: command line, environment, configuration file. Out: a stream to the forwarder until SIGTERM or SIGINT, then
//! everything that was already observed, within the shutdown timeout.

use std::{
    cell::RefCell,
    future::pending,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use spantap_config::{Config, Environment, ExperimentalLinks};
use spantap_proto::{PROTOCOL_VERSION, v1};
use tokio::{
    io::{AsyncReadExt as _, Interest, unix::AsyncFd},
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
    time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep, sleep_until, timeout},
};

use crate::{
    cli::{Arguments, Command},
    clock,
    connect::Destination,
    discovery::{Limits, ProcFs, Processes, Walk, interesting_ports, provisional_exec},
    doctor,
    drain::Drain,
    encode::BatchWriter,
    failure::Failure,
    health, locked_memory, memory, privilege,
    probes::{Probes, Setup},
    queue::Queue,
    reload::Reloader,
    seccomp,
    stream::{self, Patience, Shared},
    supervisor,
    tls::{self, Helper, Tls},
    usage::{self, Usage},
};

/// Records below the wake-up level are fetched this often.
const FETCH: Duration = Duration::from_millis(50);
/// Losses and figures are told this often.
const REPORT: Duration = Duration::from_secs(1);
/// The forwarder that started this agent is taken for gone after so long without a stream, when stopping.
const FORSAKEN: Duration = Duration::from_secs(1);

/// How long an agent that takes the place of another waits until TLS libraries are read. What it sees meanwhile it has to keep.
const TLS_READY: Duration = Duration::from_secs(3);

/// Reason of a feature that nobody wants.
pub(crate) const TURNED_OFF: &str = "turned off by spantap.tls";

/// Configuration, build, run, drain.
pub fn main() -> Result<(), Failure> {
    let arguments = Arguments::read()?;
    if let Some(Command::Doctor { json }) = arguments.command {
        let code = doctor::run(arguments.config.as_deref(), json, &arguments.exclude_pid);
        std::process::exit(code.into());
    }
    if let Some(programs) = &arguments.attach_tls {
        return tls::attach(programs);
    }
    // Credentials are the forwarder's alone.
    let environment = Environment::of_process().without_files();
    let loaded = Config::load(arguments.config.as_deref(), &environment)
        .map_err(|error| Failure::Configuration(error.to_string()))?;
    let config = loaded.config;
    let source = loaded.source;
    spantap_config::log::start(config.log, arguments.log_format.as_deref()).map_err(Failure::Configuration)?;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    if arguments.command == Some(Command::Health) {
        return runtime()?.block_on(health::ask(&destination(&config)));
    }
    if arguments.supervise {
        let wanted = privilege::Wanted { tls: config.agent.tls, propagation: config.agent.propagation.headers };
        return runtime()?.block_on(async { supervisor::run(wanted, stop_requests(true)?).await });
    }
    let since = clock::monotonic_ns();
    let parts = attach(&config, &arguments.exclude_pid)?;
    let reloader = Reloader::new(arguments.config, environment, source, config);
    runtime()?.block_on(LocalSet::new().run_until(run(reloader, arguments.stop_with_stdin, since, parts)))
}

/// Loads and attaches the probes, then gives up what only that took.
fn attach(config: &Config, exclude: &[u32]) -> Result<(Probes, Processes, Option<Helper>), Failure> {
    privilege::check().map_err(|missing| Failure::Privilege(missing.to_string()))?;
    let procfs = ProcFs::default();
    if procfs.is_initial_pid_namespace() == Some(false) {
        return Err(Failure::Unavailable(
            "the agent must run in the PID namespace of the host (docker: pid: host, Kubernetes: hostPID: true)"
                .to_owned(),
        ));
    }
    locked_memory::raise();
    let mut processes = Processes::new(procfs, &config.discovery, Limits::default());
    for pid in exclude.iter().copied() {
        processes.ignore(pid);
    }
    let mut probes = Probes::start(Setup {
        provisional_exec: provisional_exec(&config.discovery),
        ports: interesting_ports(&config.discovery).words(),
        links: links_with_room(config),
        ..Setup::of(&config.agent)
    })?;
    // Before the agent is confined: it takes CAP_NET_ADMIN, and tries itself over the loopback.
    if config.agent.propagation.headers {
        probes.propagate(config.agent.propagation);
    }
    let helper = attach_tls(config, &mut probes);
    if let Some(helper) = &helper {
        processes.ignore(helper.pid);
    }
    let socket = privilege::reach(&config.socket);
    let kept =
        privilege::drop_unneeded(&socket, helper.is_some()).map_err(|error| Failure::Privilege(error.to_string()))?;
    spantap_confinement::seal().map_err(|error| Failure::Privilege(format!("cannot be confined: {error}")))?;
    announce(&probes, &kept);
    memory::give_back();
    Ok((probes, processes, helper))
}

/// What is to be linked inside of programs.
pub(crate) fn links_of(config: &Config) -> Option<tls::Links> {
    config.links.then(|| tls::Links { tokio: config.links_experimental.contains(&ExperimentalLinks::Tokio) })
}

/// The same, if it can be: it takes what reading TLS takes.
pub(crate) fn links_with_room(config: &Config) -> Option<tls::Links> {
    links_of(config).filter(|_| config.agent.tls && privilege::may_attach_to_functions())
}

/// Loads what reads TLS, and starts the process that attaches it, if that is wanted and can be had.
pub(crate) fn attach_tls(config: &Config, probes: &mut Probes) -> Option<Helper> {
    let reason = if !config.agent.tls {
        TURNED_OFF.to_owned()
    } else if !privilege::may_attach_to_functions() {
        "attaching to TLS libraries takes CAP_SYS_ADMIN, which a process of its own would hold (docs/privileges.md)"
            .to_owned()
    } else {
        match probes.load_tls(links_of(config)).map(Helper::start) {
            Ok(Ok(helper)) => {
                probes.read_tls();
                return Some(helper);
            }
            Ok(Err(error)) => format!("the process that attaches to TLS libraries cannot be started: {error}"),
            Err(error) => error.to_string(),
        }
    };
    probes.without_tls(&reason, links_of(config));
    None
}

fn announce(probes: &Probes, kept: &[String]) {
    for reason in probes.passed_over() {
        tracing::info!(reason, "a better hook set was not taken");
    }
    tracing::info!(hook_set = probes.hook_set(), version = env!("CARGO_PKG_VERSION"), "probes are attached");
    for feature in probes.features() {
        if feature.on && !feature.reason.is_empty() {
            tracing::warn!(feature = feature.name, but = feature.reason, "on");
        } else if feature.on {
            tracing::info!(feature = feature.name, "on");
        } else if feature.reason == TURNED_OFF {
            tracing::info!(feature = feature.name, reason = feature.reason, "off");
        } else {
            tracing::warn!(feature = feature.name, reason = feature.reason, "off");
        }
    }
    tracing::debug!(instructions = ?probes.verified_instructions(), "verified");
    tracing::info!(capabilities = kept.join(" "), "gave up all other capabilities");
}

async fn run(
    mut reloader: Reloader,
    stop_with_stdin: bool,
    since: u64,
    (probes, processes, helper): (Probes, Processes, Option<Helper>),
) -> Result<(), Failure> {
    let config = reloader.running();
    let shared = Rc::new(Shared::new(Queue::new(config.agent.queue_bytes)));
    let hello = hello(probes.hook_set(), probes.features().to_vec(), since);
    let stop = stop_requests(stop_with_stdin)?;
    let mut hangup = signal(SignalKind::hangup())?;
    let destination = destination(config);
    let place = destination.clone();
    // All that needs more is done; from here on bytes of other programs are read.
    seccomp::install().map_err(|error| Failure::Unavailable(error.to_string()))?;
    tracing::info!("only the system calls of streaming are allowed from here on");

    let socket_fd = readiness(&probes.socket_events)?;
    let process_fd = readiness(&probes.process_events)?;
    let (results, table) = (probes.go_results(), probes.linked_table());
    let tls = helper.map(|helper| Tls::start(ProcFs::default(), (helper, results, table), links_of(config)));
    let tls = tls.transpose()?.unwrap_or_default();
    let drain = Rc::new(RefCell::new(Drain::new(probes, processes, tls, shared.clone())));
    drain.borrow_mut().scan(Walk::Thorough);

    let facts = {
        let drain = drain.clone();
        move || {
            let mut writer = BatchWriter::new(0);
            for process in drain.borrow().processes.iter() {
                writer.process(&process.into());
            }
            writer.finish(0, clock::anchor())
        }
    };
    let ready = drain.borrow().tls().map(Tls::settled);
    let stream = tokio::task::spawn_local({
        let (shared, place) = (shared.clone(), place.clone());
        async move {
            if let Some(ready) = ready {
                until_ready(&place, ready).await;
            }
            stream::run(shared, destination, Patience::default(), hello, facts).await;
        }
    });
    let calibration = tokio::task::spawn_local(calibrate(drain.clone()));

    let mut fetch = interval(FETCH);
    let mut report = interval(REPORT);
    let (mut scan, mut usage) = (walks(config), usage_of(config));
    let mut usage_step = interval(usage::STEP);
    for timer in [&mut fetch, &mut report, &mut usage_step] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    tokio::pin!(stop);
    let (mut full, mut replaced) = (false, false);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = shared.replaced.notified() => {
                tracing::warn!("another agent has come to the forwarder: this one observes no more, and hands over what it has observed");
                replaced = true;
                break;
            }
            _ = hangup.recv() => reloader.demand(),
            ready = process_fd.readable() => {
                ready?.clear_ready();
                drain.borrow_mut().process_events();
            }
            _ = shared.began.notified() => {
                drain.borrow_mut().probes.announce_again();
                drain.borrow_mut().report(true);
            }
            _ = scan.tick() => drain.borrow_mut().scan(Walk::Periodic),
            _ = usage_step.tick(), if usage.is_some() => {
                if let Some(usage) = &mut usage {
                    drain.borrow_mut().usage(usage);
                }
            }
            _ = report.tick() => {
                drain.borrow_mut().report(false);
                if reloader.is_due() && reloader.reload(&mut drain.borrow_mut()) {
                    (scan, usage) = (walks(reloader.running()), usage_of(reloader.running()));
                }
            }
            ready = socket_fd.readable(), if !full => {
                ready?.clear_ready();
                full = drain.borrow_mut().socket_events();
            }
            _ = fetch.tick(), if !full => full = drain.borrow_mut().socket_events(),
            _ = shared.emptied.notified(), if full => full = drain.borrow_mut().socket_events(),
        }
    }
    calibration.abort();
    tracing::debug!(counts = ?drain.borrow().processes.counts(), "what discovery could not do");
    finish(&drain, &shared, reloader.running().shutdown_timeout, stop_with_stdin).await;
    stream.abort();
    if replaced && stop_with_stdin {
        // Whoever started it starts another when it ends, which would take the place back. What is loaded goes, with the process
        // that attaches to TLS libraries.
        let _ = tokio::join!(stream, calibration);
        drop(drain);
        tracing::info!("another agent observes; this one waits for its end, or to be stopped");
        tokio::select! {
            () = &mut stop => {}
            () = health::until_nobody_streams(&place) => tracing::warn!("that agent is gone; ending, to be started again"),
        }
    }
    Ok(())
}

/// Whoever hears another agent hears that until this one reads TLS as well: from its hello on the other observes no more.
async fn until_ready(place: &Destination, ready: impl Future<Output = ()>) {
    if health::somebody_streams(place).await {
        tracing::info!("the forwarder hears another agent; taking its place once TLS libraries are read");
        if timeout(TLS_READY, ready).await.is_err() {
            tracing::warn!(limit = ?TLS_READY, "TLS libraries are not all read yet; taking its place all the same");
        }
    }
}

/// When `/proc` is looked through.
fn walks(config: &Config) -> Interval {
    let every = config.discovery.poll_interval.max(Duration::from_millis(100));
    let mut walks = interval_at(Instant::now() + every, every);
    walks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    walks
}

fn usage_of(config: &Config) -> Option<Usage> {
    config.agent.usage_interval.map(|interval| Usage::new(ProcFs::default(), interval))
}

/// Resolves at SIGTERM, SIGINT, or (if wanted) when standard input ends.
fn stop_requests(stop_with_stdin: bool) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = end_of_stdin(stop_with_stdin) => {}
        }
    })
}

/// Ends when standard input does, or never.
async fn end_of_stdin(wanted: bool) {
    if !wanted {
        return pending().await;
    }
    let Ok(mut input) = io::stdin().as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd) else {
        return pending().await;
    };
    let mut ignored = [0; 64];
    while !matches!(input.read(&mut ignored).await, Ok(0) | Err(_)) {}
}

/// Stops the kernel side, then hands over what it had recorded. Without a forwarder one is waited for only if there are
/// events for it, and not by its child: the next one brings an agent of its own. Whoever hears another agent takes nothing more.
async fn finish(drain: &RefCell<Drain>, shared: &Shared, limit: Duration, child: bool) {
    let deadline = Instant::now() + limit;
    drain.borrow_mut().stop();
    if shared.ousted.get() {
        let bytes = shared.queue.borrow().bytes();
        return tracing::warn!(bytes, "the forwarder hears another agent; what is left is lost");
    }
    let handed_over = async {
        while drain.borrow_mut().socket_events() {
            shared.emptied.notified().await;
        }
        drain.borrow_mut().report(true);
        while wanted(shared) {
            shared.emptied.notified().await;
        }
    };
    tokio::select! {
        () = handed_over => tracing::info!("everything observed was handed over"),
        () = ousted(shared) => tracing::warn!(
            bytes = shared.queue.borrow().bytes(),
            "the forwarder waited no longer for this agent; what is left is lost"
        ),
        () = forsaken(shared), if child => tracing::warn!(
            bytes = shared.queue.borrow().bytes(),
            "the forwarder that started this agent is gone; what is left is lost"
        ),
        () = sleep_until(deadline) => tracing::warn!(
            bytes = shared.queue.borrow().bytes(),
            "stopped before everything was handed over; what is left is lost"
        ),
    }
}

/// Resolves when the forwarder takes nothing more.
async fn ousted(shared: &Shared) {
    while !shared.ousted.get() {
        shared.replaced.notified().await;
    }
}

/// Resolves when there is no stream.
async fn forsaken(shared: &Shared) {
    sleep(FORSAKEN).await;
    while shared.streaming.get() {
        sleep(FORSAKEN).await;
    }
}

/// Whether something is held that somebody takes, or should.
fn wanted(shared: &Shared) -> bool {
    let queue = shared.queue.borrow();
    if shared.streaming.get() { !queue.is_empty() } else { queue.holds_events() }
}

/// Finds the length of a jiffy, which tells how long data waited in the kernel where packets' times do not.
async fn calibrate(drain: Rc<RefCell<Drain>>) {
    match timeout(Duration::from_secs(5), clock::jiffy_ns()).await {
        Ok(Some(tick)) => drain.borrow_mut().probes.set_tick(tick),
        _ => tracing::debug!("the kernel does not tell its jiffies; long waits may be told shorter than they were"),
    }
    pending::<()>().await;
}

fn destination(config: &Config) -> Destination {
    Destination::new(config.socket.clone(), config.agent.forwarder_uids.clone())
}

fn hello(hook_set: &'static str, features: Vec<v1::Feature>, since: u64) -> impl Fn() -> v1::Hello {
    let system = rustix::system::uname();
    let kernel_release = system.release().to_string_lossy().into_owned();
    let host_name = system.nodename().to_string_lossy().into_owned();
    let host_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    // Distinguishes runs on one host; the pid tells apart two that start in the same nanosecond.
    let agent_run = clock::monotonic_ns() ^ u64::from(std::process::id()) << 48;
    move || v1::Hello {
        protocol_version: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: kernel_release.clone(),
        hook_set: hook_set.to_owned(),
        features: features.clone(),
        clock: Some(clock::anchor()),
        agent_run,
        host_name: host_name.clone(),
        host_id: host_id.clone(),
        observing_since_ns: since,
    }
}

/// Readiness of a ring buffer, on a descriptor of its own so that the buffer itself stays free.
// The safe constructor is deprecated because a type may give another descriptor each time it is asked; OwnedFd does not,
// and the one that replaces it is unsafe.
#[allow(deprecated)]
fn readiness(ring: &impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(ring.as_fd().try_clone_to_owned()?, Interest::READABLE)
}
