//! Links between programs of which one asks the other through a port that Docker publishes, or past it.
//!
//! The truth is in the path: the number in the path that a program is asked for is in the path that it asks for.
#![allow(missing_docs)]

use std::{fs, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use spantap_tests::{
    admin, collector, compiled,
    containers::{self, Engine},
    host,
    loops::{self, Score},
    namespaces::Host,
    observed::{self, Observed},
    process::Process,
    relays, servers,
    spantap::Setup,
    suite::Suite,
};

const ARRIVAL: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests one after the other over one connection, and at once over as many.
const REQUESTS: u64 = 100;
const AT_ONCE: u64 = 20;
/// An address of the host, and its containers'.
const ADDRESS: &str = "10.99.42.1";
const CONTAINERS: &str = "10.97.42";

fn main() -> ExitCode {
    let python = servers::python().err().map(|_| "no python3".to_owned());
    let tools = ["nsenter", "curl", "ip", "iptables"].map(host::lacks);
    let lacks = [host::lacks_root_and_btf(), collector::lacks_collector(), python].into_iter().chain(tools);
    Suite::new("links_docker", lacks.chain([containers::lacks_own_engine()]), world)
        .case("published_by_rules_alone", |world| published(world, false))
        .case("published_by_rules_and_a_proxy", |world| published(world, true))
        .run()
}

fn world() -> Result<Observed> {
    Observed::start(|collector| Ok(Setup::observing(&[&observed::subjects()?, &relays::scripts()], collector)))
}

/// Who asks, from where, what: port 9080 of the host is published, port 8081 is the container's own.
struct Way {
    name: &'static str,
    in_container: bool,
    host: &'static str,
    port: u16,
    /// Whether docker-proxy, if there is one, has these connections: then each is two.
    proxied: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "host-loopback", in_container: false, host: "127.0.0.1", port: 9080, proxied: true },
    Way { name: "host-address", in_container: false, host: ADDRESS, port: 9080, proxied: false },
    Way { name: "container-host", in_container: true, host: ADDRESS, port: 9080, proxied: true },
    Way { name: "container-bridge", in_container: true, host: "10.97.42.10", port: 8081, proxied: false },
];

/// The programs of this host in containers without any of their own.
fn composition(proxy: bool) -> Result<String> {
    let (python, subjects) = (servers::python()?, compiled::subjects());
    let python = python.display();
    // Where Python's own files are, if not among the system's.
    let home = host::real_program("python3", &["-c", "import sys; print(sys.base_prefix)"])?;
    let mounts = ["/usr", "/bin", "/lib", "/lib64", &home.display().to_string(), &subjects.display().to_string()]
        .map(|path| format!("\"{path}:{path}:ro\""))
        .join(", ");
    let mut text = format!("networks: {{default: {{ipam: {{config: [{{subnet: {CONTAINERS}.0/24}}]}}}}}}\nservices:\n");
    let mut service = |name: &str, last: usize, arguments: String, more: &str| {
        let relay = subjects.join("relay.py").display().to_string();
        text += &format!(
            "  {name}:\n    image: empty\n    volumes: [{mounts}]\n    command: [{python}, {relay}, {arguments}]\n    \
             environment: {{OTEL_SERVICE_NAME: {}}}\n    networks: {{default: {{ipv4_address: {CONTAINERS}.{last}}}}}\n    \
             stop_grace_period: 0s\n{more}",
            service(name, proxy)
        );
    };
    service("far", 10, "'8081', '0', '0', 0.0.0.0, 0.0.0.0".to_owned(), "    ports: ['9080:8081']\n");
    for (place, way) in WAYS.iter().enumerate().filter(|(_, way)| way.in_container) {
        service(way.name, 11 + place, format!("'8080', '{}', '0', 0.0.0.0, {}", way.port, way.host), "");
    }
    Ok(text)
}

fn published(world: &mut Observed, proxy: bool) -> Result<()> {
    let (host, outside) = (Host::start("docker", None)?, Host::start("outside", None)?);
    host.link(&outside, 42)?;
    let engine = Engine::start_on(&host, proxy)?;
    engine.empty_image()?;
    let file = host.folder().join("compose.yml");
    fs::write(&file, composition(proxy)?)?;
    let mut up = engine.compose();
    up.arg("--file").arg(&file).args(["--project-name", "ports", "--ansi", "never", "up"]);
    let mut up = Process::start("up", host.folder(), up)?;
    let mut near = Vec::new();
    let mut asked = Vec::new();
    for (place, way) in WAYS.iter().enumerate() {
        let port = 8100 + place;
        if way.in_container {
            asked.push(format!("{CONTAINERS}.{}:8080", 11 + place));
            continue;
        }
        let name = service(way.name, proxy);
        let mut command = host.command(servers::python()?);
        command.arg(compiled::subjects().join("relay.py")).env("OTEL_SERVICE_NAME", &name);
        command.args([&port.to_string(), &way.port.to_string(), "0", ADDRESS, way.host]);
        near.push(Process::start(&name, host.folder(), command)?);
        asked.push(format!("{ADDRESS}:{port}"));
    }
    let answers = |address: &str| host.run("curl", &["-sf", "-m", "5", &format!("http://{address}/in/ready")]).is_ok();
    up.wait_ready(PATIENCE, |_| asked.iter().all(|address| answers(address)))?;
    world.wait_observing()?;
    for (way, address) in WAYS.iter().zip(&asked) {
        let before = admin::unlinked(&world.spantap()?.own_metrics()?);
        let urls = |how: &str| format!("http://{address}/{}-{how}/in/[1-{REQUESTS}]", way.name);
        host.run("curl", &["-sf", "-m", "60", &urls("one")])?;
        host.run("curl", &["-sf", "-m", "60", "--parallel", "--parallel-max", &AT_ONCE.to_string(), &urls("many")])?;
        let score = judge(world, way, proxy)?;
        let reasons = admin::lost_between(&before, &admin::unlinked(&world.spantap()?.own_metrics()?));
        println!("{}, proxy {proxy}: right, wrong, unlinked: {score:?}; spans without a parent: {reasons:?}", way.name);
        ensure!(score.1 == 0, "wrong links: {score:?}");
        let due = if way.proxied && proxy { 0 } else { REQUESTS * 2 * 9 / 10 };
        // The other end may be recorded late, which is not waited for where it seems to be elsewhere.
        ensure!(score.0 >= due, "too few links: {score:?}, {reasons:?}");
    }
    Ok(())
}

fn judge(world: &mut Observed, way: &Way, proxy: bool) -> Result<Score> {
    let (near, far) = (service(way.name, proxy), service("far", proxy));
    let paths = ["one", "many"]
        .iter()
        .flat_map(|how| (1..=REQUESTS).map(move |number| format!("/{}-{how}/out/{number}", way.name)));
    world.collector.wait_until(ARRIVAL, |telemetry| loops::of_ends(telemetry, (&near, &far), paths.clone()))
}

fn service(name: &str, proxy: bool) -> String {
    format!("docker-{name}-{}", if proxy { "proxy" } else { "rules" })
}
