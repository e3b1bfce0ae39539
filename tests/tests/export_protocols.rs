//! Every protocol and every kind of credentials to a real Collector; `collector-config/authenticating.yaml` is the one that asks
//! for them.
#![allow(missing_docs)]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use spantap_tests::{
    certificates::Certificates,
    collector::{self, Collector},
    expect, host, observed,
    pair::Pair,
    script::{Step, connect, read_head, send, serve},
    spantap::{Setup, Spantap},
    suite::Suite,
    telemetry::{Kind, Telemetry},
};

const ARRIVAL: Duration = Duration::from_secs(15);
/// Of this host, as all of 127/8, and not the one on which others listen.
const ADDRESS: &str = "127.0.0.77";
const PASSWORD: &str = "wonderland";
const TOKEN: &str = "s3cr3t-token";
/// printf spantap:wonderland | base64
const BASIC: &str = "Basic c3BhbnRhcDp3b25kZXJsYW5k";

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    let no_openssl = host::lacks("openssl");
    Suite::new("export_protocols", [host::lacks_root_and_btf(), no_collector], || Ok(()))
        .case("grpc", |()| plain("grpc"))
        .case("json", |()| plain("http/json"))
        .case("a_protocol_for_each_signal", |()| mixed())
        .case_unless(no_openssl.clone(), "collector_configurations_are_valid", |()| configurations())
        .case("proxies_of_the_environment", |()| proxies())
        .case_unless(no_openssl.clone(), "basic_over_tls", |()| basic_over_tls())
        .case_unless(no_openssl.clone(), "bearer_from_a_file", |()| bearer_from_a_file())
        .case_unless(no_openssl, "client_certificate_over_grpc", |()| client_certificate())
        .run()
}

fn arrives(collector: &mut Collector, name: &str) -> Result<()> {
    collector.wait_until(ARRIVAL, |telemetry| both_signals(telemetry, name))
}

fn both_signals(telemetry: &Telemetry, name: &str) -> Result<()> {
    for (side, kind) in [("server", Kind::Server), ("client", Kind::Client)] {
        let spans = telemetry.spans_of(&format!("{name}-{side}"));
        ensure!(spans.iter().filter(|span| span.kind == kind).count() > 3, "no {kind:?} spans of {name}");
        spans.iter().try_for_each(|span| expect::well_formed(span))?;
    }
    let count = telemetry.count("http.server.request.duration", &format!("{name}-server"));
    ensure!(count > 3, "histograms count {count}");
    Ok(())
}

/// Only the subjects are observed; endpoints come from the environment.
fn setup(endpoint: &str) -> Result<Setup> {
    let yaml = format!("discovery:\n  instrument:\n    - {}\n", observed::subjects()?);
    Ok(Setup::new(yaml)
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .environment("BEYLA_METRICS_INTERVAL", "300ms"))
}

/// Exchanges requests until `look` has seen enough, stops, and looks at the books and the log.
fn observe(spantap: Spantap, name: &str, look: impl FnOnce() -> Result<()>) -> Result<String> {
    let pair = Pair::prepare(name)?;
    let folder = host::folder()?;
    let ask = send(format!("GET /{name}/{{n}} HTTP/1.1\r\nHost: chatter.test\r\n\r\n"));
    let answer = send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let server = serve([Step::Repeat(2500, vec![read_head(), answer])]);
    let client = connect([Step::Repeat(2500, vec![ask, read_head(), Step::Pause(20)])]);
    pair.begin(&server, &client, folder.path())?;
    look()?;
    let log = spantap.stop()?;
    for secret in [PASSWORD, TOKEN, BASIC] {
        ensure!(!log.contains(secret), "a secret is in the log");
    }
    Ok(log)
}

fn plain(protocol: &str) -> Result<()> {
    let mut collector = Collector::start()?;
    let port = if protocol == "grpc" { collector.grpc } else { collector.port };
    let name = protocol.rsplit('/').next().unwrap_or_default();
    let spantap = setup(&format!("http://127.0.0.1:{port}"))?
        .environment("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .environment("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .start()?;
    let log = observe(spantap, name, || arrives(&mut collector, name))?;
    ensure!(log.contains(protocol), "the log does not name the protocol");
    Ok(())
}

fn mixed() -> Result<()> {
    let mut collector = Collector::start()?;
    let spantap = setup(&format!("http://127.0.0.1:{}", collector.port))?
        .environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("127.0.0.1:{}", collector.grpc))
        .environment("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
        .environment("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true")
        .environment("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json")
        .start()?;
    observe(spantap, "mixed", || arrives(&mut collector, "mixed")).map(drop)
}

/// Listens as an HTTP proxy that leads nowhere; the request lines that it got.
fn proxy() -> Result<(u16, Arc<Mutex<Vec<String>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(line.trim_end().to_owned());
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    Ok((port, asked))
}

fn proxies() -> Result<()> {
    let mut collector = Collector::start()?;
    let (port, asked) = proxy()?;
    let url = format!("http://127.0.0.1:{port}");
    let heard = |line: &str| asked.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == line);
    let far = |traces: &str, protocol: &str| -> Result<Spantap> {
        setup("https://metrics.invalid")?
            .environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces)
            .environment("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol)
            .environment("HTTP_PROXY", &url)
            .environment("HTTPS_PROXY", &url)
            .start()
    };
    let seen = |lines: &[&str]| {
        host::wait_for("the proxy to be asked", ARRIVAL, || lines.iter().all(|line| heard(line)).then_some(()))
    };
    let plain = "POST http://collector.invalid:4318/v1/traces HTTP/1.1";
    observe(far("http://collector.invalid:4318", "http/protobuf")?, "proxied", || {
        seen(&[plain, "CONNECT metrics.invalid:443 HTTP/1.1"])
    })?;
    observe(far("https://rpc.invalid:4317", "grpc")?, "tunnelled", || seen(&["CONNECT rpc.invalid:4317 HTTP/1.1"]))?;
    // What is on this host needs none.
    let spantap = setup(&collector.endpoint())?.environment("HTTP_PROXY", &url).start()?;
    observe(spantap, "direct", || arrives(&mut collector, "direct"))?;
    ensure!(!asked.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|line| line.contains("127.0.0.1")));
    Ok(())
}

fn collector_of(certificates: &Certificates) -> Result<Collector> {
    Collector::start_authenticating(ADDRESS, certificates.folder(), PASSWORD, TOKEN)
}

fn configurations() -> Result<()> {
    let certificates = Certificates::make(ADDRESS)?;
    let files = std::fs::read_dir(host::repository().join("collector-config"))?;
    let names = files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    let mut valid = 0;
    for name in names.iter().filter(|name| name.ends_with(".yaml") && *name != "builder.yaml") {
        Collector::validate(name, certificates.folder())?;
        valid += 1;
    }
    ensure!(valid >= 7, "only {valid} configurations were found");
    Ok(())
}

fn write(path: &str, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(Path::new(path), std::fs::Permissions::from_mode(0o644))?)
}

fn basic_over_tls() -> Result<()> {
    let certificates = Certificates::make(ADDRESS)?;
    let mut collector = collector_of(&certificates)?;
    let file = certificates.path("headers");
    write(&file, &format!("Authorization: {BASIC}\n"))?;
    let spantap = setup(&format!("https://{ADDRESS}:4318"))?
        .environment("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificates.path("ca.crt"))
        .environment("SPANTAP_OTLP_HEADERS_FILE", &file)
        .start()?;
    observe(spantap, "basic", || arrives(&mut collector, "basic")).map(drop)
}

/// The token is wrong at first, and is read again when it has been corrected, by a forwarder that is confined by then.
fn bearer_from_a_file() -> Result<()> {
    let certificates = Certificates::make(ADDRESS)?;
    let mut collector = collector_of(&certificates)?;
    let token = certificates.path("token");
    write(&token, "not-yet\n")?;
    let spantap = setup(&format!("https://{ADDRESS}:5318"))?
        .environment("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificates.path("ca.crt"))
        .own_key("otlp", &format!("{{headers: {{Authorization: 'Bearer ${{file:{token}}}'}}}}"))
        .never_ready()
        .start()?;
    let admin = spantap.admin;
    let log = observe(spantap, "bearer", || {
        host::wait_for("the wrong token to be refused", ARRIVAL, || {
            let page = spantap_tests::http::get(admin, "/readyz").ok()?;
            String::from_utf8_lossy(&page.body).contains("401").then_some(())
        })?;
        write(&token, &format!("{TOKEN}\n"))?;
        arrives(&mut collector, "bearer")
    })?;
    ensure!(log.contains("what the files hold now is tried"), "the log does not tell of the new token");
    let lines = log.lines().filter(|line| line.contains("export refused")).count();
    ensure!(lines <= 2, "{lines} lines about refusals: one a signal is enough");
    Ok(())
}

fn client_certificate() -> Result<()> {
    let certificates = Certificates::make(ADDRESS)?;
    let mut collector = collector_of(&certificates)?;
    let spantap = setup(&format!("https://{ADDRESS}:6317"))?
        .environment("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .environment("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificates.path("ca.crt"))
        .environment("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificates.path("client.crt"))
        .environment("OTEL_EXPORTER_OTLP_CLIENT_KEY", &certificates.path("client.key"))
        .start()?;
    observe(spantap, "mutual", || arrives(&mut collector, "mutual")).map(drop)
}
