//! Several hosts, each with an agent and a forwarder of its own, and one Collector that all of them send to.
//!
//! A host here is a namespace of network, host name and mounts. The kernel is one: each agent's probes see all hosts, and
//! what keeps them apart is the path of the server that each selects; process ids come from one range, so they differ
//! where those of real hosts might not.
#![allow(missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    admin,
    collector::{self, Collector},
    host,
    namespaces::Host,
    place::LIMIT,
    process::Process,
    spantap::{clear_environment, reachable_programs},
    suite::{Suite, World},
    telemetry::{Kind, Span, Telemetry},
};

const METRIC: &str = "http.server.request.duration";
/// Two hosts from one image: nobody gave the second a machine id of its own.
const CLONED: &str = "0123456789abcdef0123456789abcdef";

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    let lacks = [
        host::lacks_root_and_btf(),
        host::lacks("nginx"),
        host::lacks("curl"),
        host::lacks("ip"),
        host::lacks("unshare"),
        host::lacks("nsenter"),
        host::lacks("setpriv"),
        no_collector,
    ];
    Suite::new("many_hosts", lacks, Site::start)
        .case("each_host_is_told_by_its_name", names)
        .case("series_of_one_service_are_kept_apart", series)
        .case("forwarder_started_twice_stops", started_twice)
        .case("nothing_is_lost_at_the_end", nothing_is_lost)
        .run()
}

/// A host with its server and its Spantap.
struct Member {
    spantap: Option<Process>,
    nginx: Process,
    programs: PathBuf,
    configuration: PathBuf,
    /// Requests for `/counted`, and what is expected of `host.id`.
    requests: u64,
    id: &'static str,
    /// Last: what runs on it goes first.
    host: Host,
}

struct Site {
    collector: Collector,
    members: Vec<Member>,
    _gateway: Host,
}

impl World for Site {
    fn logs(&self) -> String {
        let logs = self.members.iter().filter_map(|member| Some(member.spantap.as_ref()?.tail()));
        logs.chain([self.collector.tail()]).collect::<Vec<_>>().join("\n")
    }
}

impl Site {
    fn start() -> Result<Self> {
        let gateway = Host::start("spantap-gateway", None)?;
        let mut collector = Collector::start_gateway(&gateway)?;
        let mut members = Vec::new();
        for (number, name, id, told, requests) in [
            (1, "spantap-host-a", CLONED, None, 30),
            (2, "spantap-host-b", CLONED, None, 50),
            (3, "spantap-host-c", CLONED, Some("the-third"), 70),
        ] {
            let host = Host::start(name, Some(id))?;
            host.link(&gateway, number)?;
            members.push(Member::start(host, number, told, requests)?);
        }
        for member in &members {
            member.wait_observing(&mut collector)?;
            member.curl(&format!("http://127.0.0.1/counted?[1-{}]", member.requests))?;
        }
        Ok(Self { collector, members, _gateway: gateway })
    }
}

impl Member {
    fn start(host: Host, number: u8, told: Option<&'static str>, requests: u64) -> Result<Self> {
        let folder = host.folder().to_path_buf();
        let nginx = folder.join("nginx");
        std::fs::copy(host::find("nginx").context("no nginx")?, &nginx)?;
        let settings = folder.join("nginx.conf");
        // The same port everywhere: each host has its own.
        std::fs::write(
            &settings,
            format!(
                "worker_processes 1; pid {0}/nginx.pid; error_log {0}/error.log; events {{}}\nhttp {{ access_log off; \
                 client_body_temp_path {0}/t1; proxy_temp_path {0}/t2; fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4; \
                 scgi_temp_path {0}/t5; server {{ listen 127.0.0.1:80; location / {{ return 200 hello; }} }} }}\n",
                folder.display()
            ),
        )?;
        let mut command = host.command(&nginx);
        command.arg("-p").arg(&folder).arg("-c").arg(settings).args(["-g", "daemon off;"]);
        let nginx = Process::start("nginx", &folder, command)?;

        let run = folder.join("run");
        std::fs::create_dir(&run)?;
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755))?;
        let override_id = told.map(|id| format!("attributes:\n  host_id:\n    override: {id}\n")).unwrap_or_default();
        let configuration = folder.join("spantap.yml");
        std::fs::write(
            &configuration,
            format!(
                "discovery:\n  instrument:\n    - exe_path: {0}/nginx\n\
                 otel_traces_export:\n  endpoint: http://10.99.{number}.2:4318\n  batch_timeout: 100ms\n\
                 otel_metrics_export:\n  endpoint: http://10.99.{number}.2:4318\n  interval: 500ms\n\
                 {override_id}spantap:\n  socket: {0}/run/ingest.sock\n",
                folder.display()
            ),
        )?;
        let programs = reachable_programs(&folder)?;
        let id = told.unwrap_or(CLONED);
        let mut member = Self { spantap: None, nginx, programs, configuration, requests, id, host };
        let command = member.command(&[], &[]);
        let mut spantap = Process::start("spantap", &folder, command)?;
        spantap.wait_ready(LIMIT, |_| {
            member.command(&[], &["health"]).output().is_ok_and(|healthy| healthy.status.success())
        })?;
        member.spantap = Some(spantap);
        Ok(member)
    }

    /// Spantap on this host.
    fn command(&self, before: &[&str], arguments: &[&str]) -> Command {
        let mut words = before.iter().map(PathBuf::from).chain([self.programs.join("spantap")]);
        let mut command = self.host.command(words.next().unwrap_or_default());
        command.args(words).args(arguments).arg("--config").arg(&self.configuration);
        clear_environment(&mut command);
        command
    }

    fn curl(&self, url: &str) -> Result<String> {
        self.host.run("curl", &["-s", "-S", "--max-time", "30", url])
    }

    fn wait_observing(&self, collector: &mut Collector) -> Result<()> {
        collector.wait_until(LIMIT, |telemetry| {
            self.curl("http://127.0.0.1/begin")?;
            let begun = |span: &&Arc<Span>| self.is(span) && span.path() == "/begin";
            telemetry.spans.iter().find(begun).map(drop).with_context(|| format!("no span of {}", self.host.name))
        })
    }

    fn is(&self, span: &Span) -> bool {
        span.resource.text("host.name") == Some(&self.host.name)
    }
}

fn names(site: &mut Site) -> Result<()> {
    let Site { collector, members, .. } = site;
    collector.wait_until(LIMIT, |telemetry| {
        let mut all = BTreeSet::new();
        for member in members.iter() {
            let counted = |span: &&Arc<Span>| member.is(span) && span.path() == "/counted" && span.kind == Kind::Server;
            let spans: Vec<_> = telemetry.spans.iter().filter(counted).collect();
            let (name, requests) = (&member.host.name, member.requests);
            ensure!(spans.len() as u64 == requests, "{} spans of {name}, not {requests}", spans.len());
            for span in &spans {
                ensure!(span.service() == "nginx", "service {}", span.service());
                ensure!(span.resource.text("host.id") == Some(member.id), "{name}: {:?}", span.resource);
                all.insert(span.resource.text("service.instance.id").context("no service.instance.id")?.to_owned());
            }
        }
        // One nginx worker on each.
        ensure!(all.len() == members.len(), "instances: {all:?}");
        // Nor did any host see what another one served, or invent a name.
        let strangers = telemetry.spans.iter().find(|span| !members.iter().any(|member| member.is(span)));
        ensure!(strangers.is_none(), "{strangers:?}");
        Ok(())
    })
}

/// Count of requests by host and instance.
fn counts(telemetry: &Telemetry) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    for point in telemetry.points(METRIC).filter(|point| point.service() == "nginx") {
        let text = |key| point.resource.text(key).unwrap_or_default().to_owned();
        *counts.entry((text("host.name"), text("service.instance.id"))).or_default() += point.count;
    }
    counts
}

fn series(site: &mut Site) -> Result<()> {
    let Site { collector, members, .. } = site;
    collector.wait_until(LIMIT, |telemetry| {
        let counts = counts(telemetry);
        ensure!(counts.len() == members.len(), "series: {counts:?}");
        for member in members.iter() {
            let name = &member.host.name;
            let counted: u64 = counts.iter().filter(|((host, _), _)| host == name).map(|(_, count)| count).sum();
            let spans = telemetry.spans.iter().filter(|span| member.is(span)).count() as u64;
            ensure!(counted == spans && spans > member.requests, "{name}: {counted} counted, {spans} spans");
        }
        Ok(())
    })
}

fn started_twice(site: &mut Site) -> Result<()> {
    let member = site.members.first().context("no host")?;
    let twice = |what: &str, command: &mut Command, mentions: &str| -> Result<()> {
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(69), "{what}: {}, not 69\n{said}", output.status);
        ensure!(said.contains(mentions), "{what}: nothing is said of {mentions:?}\n{said}");
        Ok(())
    };
    let third = ["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", "--"];
    twice("as root", &mut member.command(&[], &["forward"]), "another spantap listens on")?;
    twice("the whole again", &mut member.command(&[], &[]), "another spantap listens on")?;
    // The first is nobody's by now. This one could remove its socket: everybody may write into the folder.
    twice("as another user", &mut member.command(&third, &["forward"]), "is the socket of user 65534")?;
    let mut elsewhere = member.command(&[], &["forward"]);
    twice("elsewhere", elsewhere.env("SPANTAP_SOCKET", member.host.folder().join("run/other.sock")), "9465")?;

    let healthy = member.command(&[], &["health"]).output()?;
    ensure!(healthy.status.success(), "the first one was disturbed: {healthy:?}");
    member.curl("http://127.0.0.1/after")?;
    let Site { collector, members, .. } = site;
    let member = members.first().context("no host")?;
    collector.wait_until(LIMIT, |telemetry| {
        let after = telemetry.spans.iter().find(|span| member.is(span) && span.path() == "/after");
        after.map(drop).context("the first one observes nothing any more")
    })
}

fn nothing_is_lost(site: &mut Site) -> Result<()> {
    for member in &mut site.members {
        // Each admin address is 127.0.0.1:9465, its default: they are on different hosts.
        let own = member.curl("http://127.0.0.1:9465/metrics")?;
        ensure!(own.contains("spantap_exchanges"), "no metrics of its own: {own}");
        let losses = admin::losses(&own);
        ensure!(losses.values().all(|lost| *lost == 0) && admin::spans_lost(&own) == 0, "{losses:?}");
        let mut spantap = member.spantap.take().context("stopped already")?;
        let ended = spantap.stop(LIMIT)?;
        ensure!(ended.code() == Some(0), "ended with {ended}\n{}", spantap.tail());
        let books = admin::summary(&spantap.log()).context("no summary")?;
        ensure!(books.adds_up && books.server > member.requests && books.losses.is_empty(), "{books:?}");
        ensure!(member.nginx.stop(Duration::from_secs(10))?.success(), "nginx noticed: {}", member.nginx.tail());
    }
    Ok(())
}
