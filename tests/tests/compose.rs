//! `docker compose up` with the files as they stand: real engine, real images, traffic of the demo application, the
//! Collector's own output. Then who may do what, restarts under load, and that nothing is left behind.
#![allow(missing_docs)]

use std::{
    collections::BTreeSet,
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use spantap_tests::{
    admin, collector,
    containers::{self, Project, kernel, printed},
    host, http,
    suite::{self, Suite},
};

/// Until a span has gone all the way to the Collector's output.
const ARRIVAL: Duration = Duration::from_secs(40);
/// Until both images are built, on two cores, with nothing cached.
const BUILD: Duration = Duration::from_secs(30 * 60);
/// Sizes that the images may have.
const IMAGES: [(&str, u64); 2] = [("spantap-agent", 8_000_000), ("spantap", 15_000_000)];
/// Requests of a load whose size is known; each is served twice and made once in the shop.
const REQUESTS: u64 = 2000;

fn main() -> ExitCode {
    let lacks = [
        host::lacks_root_and_btf(),
        host::lacks("bpftool"),
        host::lacks("curl"),
        collector::lacks_collector(),
        containers::lacks_engine(),
    ];
    Suite::new("compose", lacks, World::start)
        .case("demo_shows_spans_and_metrics", World::demo)
        .case("images_are_small", World::images)
        .case("containers_are_healthy", World::healthy)
        .case("agent_keeps_two_capabilities_and_forwarder_none", World::privileges)
        .case("forwarder_restarts_under_load", World::forwarder_restarts)
        .case("agent_restarts_under_load", World::agent_restarts)
        .case("killed_agent_is_started_again", World::agent_killed)
        .case("older_engine_override_ends_with_the_same_privileges", World::older_engine)
        .case("options_are_on_and_keep_what_they_say", World::options)
        .case("down_leaves_nothing", World::down)
        .run()
}

struct World {
    project: Project,
    admin: u16,
    /// BPF objects that agents of this project held at some time.
    objects: BTreeSet<kernel::Object>,
}

impl suite::World for World {
    fn logs(&self) -> String {
        self.project.tail()
    }
}

impl World {
    fn start() -> Result<Self> {
        let admin = host::free_port()?;
        let mut project = Project::new(&[
            ("SPANTAP_ADMIN_PORT", admin.to_string()),
            ("SPANTAP_VERSION", "test".to_owned()),
            ("DEMO_RATE", "20/s".to_owned()),
        ])?;
        // What a run that was killed has left.
        project.down()?;
        let start = Instant::now();
        project.engine().base_images()?;
        eprintln!("compose: base images after {:.0} s", start.elapsed().as_secs_f64());
        project.run_for(&["build"], BUILD)?;
        eprintln!("compose: images built after {:.0} s", start.elapsed().as_secs_f64());
        let start = Instant::now();
        project.up()?;
        let mut world = Self { project, admin, objects: BTreeSet::new() };
        world.wait("the first span", |world| Ok(!world.spans().is_empty()))?;
        eprintln!(
            "compose: cold start to the first span in the Collector's output: {:.1} s",
            start.elapsed().as_secs_f64()
        );
        Ok(world)
    }

    fn wait(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let mut failure = None;
        host::wait_for(what, ARRIVAL, || match holds(self) {
            Ok(true) => Some(()),
            Ok(false) => None,
            Err(error) => {
                failure = Some(error);
                None
            }
        })
        .with_context(|| failure.map(|error| format!("{error:#}")).unwrap_or_default())
    }

    fn spans(&self) -> Vec<printed::Span> {
        printed::spans(self.project.output("collector").iter().map(String::as_str))
    }

    /// Spans of the shop's servers for this path so far.
    fn served(&self, path: &str) -> u64 {
        let of_path = |span: &&printed::Span| span.attributes.get("url.path").is_some_and(|p| p == path);
        self.spans().iter().filter(of_path).count() as u64
    }

    /// Text of Spantap's own metrics.
    fn own_metrics(&self) -> Result<String> {
        let answer = http::get(self.admin, "/metrics")?;
        ensure!(answer.status == 200, "the admin address answered {}", answer.status);
        Ok(answer.text())
    }

    fn ready(&self) -> Result<bool> {
        Ok(http::get(self.admin, "/readyz")?.status == 200)
    }

    fn demo(&mut self) -> Result<()> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
        let shop = self.project.container("shop")?;
        self.wait("spans of the shop", |world| {
            let spans = world.spans();
            let server =
                spans.iter().find(|s| s.is_server() && s.attributes.get("url.path").is_some_and(|p| p == "/missing"));
            let client = spans.iter().find(|s| s.is_client());
            let (server, client) = (server.context("no server span for /missing")?, client.context("no client span")?);
            for span in [server, client] {
                let is = |key: &str, expected: &str| span.resource.get(key).is_some_and(|value| value == expected);
                ensure!(is("service.name", "nginx") && is("host.name", &host) && is("container.id", &shop), "{span:?}");
            }
            ensure!(server.attributes.get("http.response.status_code").is_some_and(|code| code == "404"), "{server:?}");
            Ok(true)
        })?;
        self.wait("metrics of the shop", |world| {
            let output = world.project.output("collector");
            for metric in ["http.server.request.duration", "http.client.request.duration"] {
                let counts = printed::counts(output.iter().map(String::as_str), metric);
                ensure!(counts.values().any(|count| *count > 0), "no series of {metric}: {counts:?}");
            }
            Ok(true)
        })
    }

    fn images(&mut self) -> Result<()> {
        for (image, limit) in IMAGES {
            let service = if image == "spantap" { "forwarder" } else { "agent" };
            let said = self.project.run(&["images", "--format", "json", service])?;
            let list: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
            let size = list.pointer("/0/Size").and_then(Value::as_u64).with_context(|| said.clone())?;
            eprintln!("compose: image {image}: {size} bytes");
            ensure!(size > 1_000_000 && size <= limit, "{image} takes {size} bytes, at most {limit} are wanted");
        }
        Ok(())
    }

    fn healthy(&mut self) -> Result<()> {
        for service in ["forwarder", "agent"] {
            self.wait("health", |world| {
                let state = world.project.state(service)?;
                ensure!(state == ("running".to_owned(), "healthy".to_owned()), "{service} is {state:?}");
                Ok(true)
            })?;
        }
        Ok(())
    }

    fn privileges(&mut self) -> Result<()> {
        self.agent_keeps_little()?;
        let forwarder = self.project.pid("forwarder", "/spantap")?;
        let nothing = "0000000000000000";
        kernel::expect_status(
            forwarder,
            &[("CapEff", nothing), ("CapPrm", nothing), ("CapBnd", nothing), ("Uid", "65532"), ("Gid", "65532")],
        )?;
        // The agent has no network: its namespace holds a loopback that is down, and nothing else.
        let agent = self.project.pid("agent", "/spantap-agent")?;
        let devices = fs::read_to_string(format!("/proc/{agent}/net/dev"))?;
        let others: Vec<&str> = devices.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:")).collect();
        ensure!(others.is_empty(), "the agent has a network: {others:?}");
        let namespace = |of: &str, kind: &str| {
            let path = format!("/proc/{of}/ns/{kind}");
            fs::read_link(&path).context(path)
        };
        for kind in ["net", "pid", "ipc", "mnt", "uts"] {
            ensure!(
                namespace(&forwarder.to_string(), kind)? != namespace("self", kind)?,
                "the forwarder shares the host's {kind} namespace"
            );
        }
        Ok(())
    }

    fn agent_keeps_little(&mut self) -> Result<()> {
        // It gives up the rest once the probes are attached. CAP_SYS_PTRACE is bit 19, CAP_DAC_READ_SEARCH bit 2.
        self.agent_keeps("0000000000080004")
    }

    fn agent_keeps(&mut self, kept: &str) -> Result<()> {
        let agent = self.project.pid("agent", "/spantap-agent")?;
        self.wait("the agent to be confined", |_| {
            let status = kernel::expect_status(agent, &[("CapEff", kept), ("CapPrm", kept), ("Uid", "0")])?;
            // Its own filter beside the engine's.
            let filters =
                kernel::status_field(&status, "Seccomp_filters").and_then(|filters| filters.parse::<u32>().ok());
            ensure!(filters.is_some_and(|filters| filters >= 2), "{filters:?} filters of system calls");
            Ok(true)
        })?;
        self.remember_objects(agent)
    }

    /// Notes which BPF objects the agent holds, to look for them after its end.
    fn remember_objects(&mut self, agent: u32) -> Result<()> {
        self.objects.extend(kernel::held(agent)?);
        Ok(())
    }

    /// Makes exactly [`REQUESTS`] requests for `path`, and does `between` when a part of them is through.
    fn load(&mut self, path: &str, between: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let url = format!("http://shop:8080{path}?[1-{REQUESTS}]");
        let words = [
            "exec",
            "-T",
            "shopper",
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--rate",
            "200/s",
            "--output",
            "/dev/null",
            &url,
        ];
        let mut load = self.project.spawn("load", &words)?;
        let before = self.served(path);
        self.wait("spans of the load", |world| Ok(world.served(path) > before + 100))?;
        between(self)?;
        let status = load.wait(Duration::from_secs(120))?;
        ensure!(status.success(), "the watched program noticed: curl ended with {status}\n{}", load.tail());
        Ok(())
    }

    fn forwarder_restarts(&mut self) -> Result<()> {
        let path = "/forwarder";
        self.load(path, |world| world.project.run(&["restart", "forwarder"]).map(drop))?;
        self.wait("the forwarder to be ready again", |world| world.ready())?;
        let log = self.project.run(&["logs", "--no-color", "--no-log-prefix", "forwarder"])?;
        let lost_before = admin::summary(&log).context("no summary of the first forwarder")?.losses;
        // The agent kept what it saw meanwhile.
        self.wait("what was kept", |world| {
            let lost = admin::exchanges(&lost_before) + admin::exchanges(&admin::losses(&world.own_metrics()?));
            let reported = world.served(path);
            ensure!(reported + lost >= 2 * REQUESTS, "{} served, {reported} reported, {lost} lost", 2 * REQUESTS);
            Ok(true)
        })?;
        let (reported, lost_after) = (self.served(path), admin::losses(&self.own_metrics()?));
        let lost_after = admin::lost_between(&admin::Losses::new(), &lost_after);
        eprintln!(
            "compose: forwarder restarted: {} served, {reported} reported, lost {lost_before:?} then {lost_after:?}",
            2 * REQUESTS
        );
        ensure!(reported <= 2 * REQUESTS, "{reported} reported of {}: some twice", 2 * REQUESTS);
        Ok(())
    }

    fn agent_restarts(&mut self) -> Result<()> {
        let path = "/agent";
        let before = admin::losses(&self.own_metrics()?);
        self.load(path, |world| {
            world.project.run(&["restart", "agent"])?;
            let reported = world.served(path);
            world.wait("spans after the restart", |world| Ok(world.served(path) > reported + 100))
        })?;
        let own = self.own_metrics()?;
        let connected = admin::samples(&own).into_iter().find(|s| s.name == "spantap_agent_connected").map(|s| s.value);
        ensure!(connected == Some(1.0), "spantap_agent_connected is {connected:?}");
        let lost = admin::lost_between(&before, &admin::losses(&own));
        let reported = self.served(path);
        eprintln!(
            "compose: agent restarted: {} served, {reported} reported, lost {lost:?}; nobody watches while there is no agent",
            2 * REQUESTS
        );
        ensure!(reported <= 2 * REQUESTS, "{reported} reported of {}: some twice", 2 * REQUESTS);
        self.agent_keeps_little()
    }

    fn agent_killed(&mut self) -> Result<()> {
        let agent = self.project.pid("agent", "/spantap-agent")?;
        let pid = i32::try_from(agent).ok().and_then(Pid::from_raw).context("process id out of range")?;
        kill_process(pid, Signal::KILL)?;
        self.wait("the next agent", |world| {
            let next = world.project.pid("agent", "/spantap-agent")?;
            Ok(next != agent && world.ready()?)
        })?;
        let served = self.served("/missing");
        self.wait("spans of the next agent", |world| Ok(world.served("/missing") > served))?;
        self.agent_keeps_little()
    }

    fn older_engine(&mut self) -> Result<()> {
        let files = ["--file", "docker-compose.yml", "--file", "docker-compose.older-engine.yml"];
        self.project.run(&[&files[..], &["up", "--detach", "--no-build", "--no-deps", "agent"]].concat())?;
        self.wait("the agent to be ready", |world| world.ready())?;
        let served = self.served("/missing");
        self.wait("spans of this agent", |world| Ok(world.served("/missing") > served))?;
        self.agent_keeps_little()
    }

    fn options(&mut self) -> Result<()> {
        let files = ["docker-compose.yml", "docker-compose.tls.yml", "docker-compose.propagation.yml"];
        let files = files.iter().flat_map(|file| ["--file", file]).collect::<Vec<_>>();
        self.project.run(&[&files[..], &["up", "--detach", "--no-build", "--no-deps", "agent"]].concat())?;
        self.wait("the agent to be ready", |world| world.ready())?;
        self.wait("what this agent says of its features", |world| {
            let log = world.project.run(&["logs", "--no-color", "--no-log-prefix", "agent"])?;
            let told = |feature: &str| {
                let line = log.lines().rfind(|line| line.contains(&format!("feature=\"{feature}\"")));
                line.map(str::to_owned).with_context(|| format!("nothing is said of {feature}: {log}"))
            };
            let (tls, propagation) = (told("tls")?, told("context-propagation")?);
            ensure!(tls.contains(" on "), "{tls}");
            // Some kernels do it only if a flaw of theirs is accepted: then it was attached and tried, which is what takes privilege.
            ensure!(propagation.contains(" on ") || propagation.contains("FIONREAD"), "{propagation}");
            Ok(true)
        })?;
        // CAP_CHECKPOINT_RESTORE, bit 40, for TLS.
        self.agent_keeps("0000010000080004")
    }

    fn down(&mut self) -> Result<()> {
        let processes = [self.project.pid("agent", "/spantap-agent")?, self.project.pid("forwarder", "/spantap")?];
        let volume = format!("/proc/{}/root/run/spantap/ingest.sock", processes[1]);
        ensure!(fs::exists(&volume)?, "{volume} is not there: what would be left could not be told");
        self.project.down()?;
        for pid in processes {
            ensure!(!fs::exists(format!("/proc/{pid}"))?, "process {pid} is still there");
        }
        // The kernel frees them in its own time after the last descriptor is closed.
        self.wait("BPF objects to go", |world| {
            let left: Vec<kernel::Object> = kernel::shown()?.intersection(&world.objects).copied().collect();
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(true)
        })?;
        let left = self.project.run(&["ps", "--all", "--quiet"])?;
        ensure!(left.trim().is_empty(), "containers are left: {left}");
        let sockets = fs::read_to_string("/proc/net/unix")?;
        ensure!(!sockets.contains("/run/spantap/ingest.sock"), "the ingest socket is still there");
        let left = self.project.volumes()?;
        ensure!(left.trim().is_empty(), "volumes are left: {left}");
        Ok(())
    }
}
