//! The subjects of the main job answer as its tests take for granted, with nobody watching. Needs no privilege.
#![allow(missing_docs)]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use spantap_tests::{
    collector::{self, Collector},
    host, http, load,
    servers::{BIG, Server},
    suite::Suite,
};

fn main() -> ExitCode {
    let no_collector = collector::lacks_collector();
    Suite::new("servers_answer", [], || Ok(()))
        .case_unless(host::lacks("nginx").or(host::lacks("python3")), "nginx", |()| nginx())
        .case_unless(host::lacks("python3"), "python_asyncio", |()| hello(&Server::python_async()?))
        .case_unless(host::lacks("node"), "node", |()| hello(&Server::node()?))
        .case_unless(host::lacks("go"), "go", |()| hello(&Server::go()?))
        .case_unless(host::lacks("nginx"), "load_of_exact_size", |()| load_of_exact_size())
        .case_unless(no_collector, "collector_keeps_what_it_gets", |()| collector_keeps())
        .run()
}

fn hello(server: &Server) -> Result<()> {
    let other = Server::python_http()?;
    let answer = http::get(server.port, "/plain")?;
    ensure!((answer.status, answer.text().as_str()) == (200, "hello"), "{answer:?}");
    let answer = http::get(server.port, &format!("/call?port={}", other.port))?;
    ensure!((answer.status, answer.text().as_str()) == (200, "200"), "{answer:?}");
    Ok(())
}

fn nginx() -> Result<()> {
    let upstream = Server::python_http()?;
    let nginx = Server::nginx(1, Some(upstream.port))?;
    for (path, status, size) in [
        ("/", 200, 6),
        ("/files/small", 200, 20_000),
        ("/files/big", 200, BIG),
        ("/status/404", 404, 0),
        ("/proxy/hello", 200, 5),
    ] {
        let answer = http::get(nginx.port, path)?;
        ensure!(answer.status == status, "{path}: {}", answer.status);
        ensure!(status != 200 || answer.body.len() as u64 == size, "{path}: {} bytes", answer.body.len());
    }
    Ok(())
}

fn load_of_exact_size() -> Result<()> {
    let nginx = Server::nginx(2, None)?;
    load::make(nginx.port, "/", 10_000, 64)
}

fn collector_keeps() -> Result<()> {
    use std::io::{Read, Write};
    let mut collector = Collector::start()?;
    let span = r#"{"traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b7","name":"GET","kind":2,"startTimeUnixNano":"1","endTimeUnixNano":"2"}"#;
    let body = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"s"}}}}]}},"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#
    );
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", collector.port))?;
    let length = body.len();
    write!(
        stream,
        "POST /v1/traces HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.contains(" 200 "), "{answer}");
    collector.wait_until(std::time::Duration::from_secs(20), |telemetry| {
        ensure!(telemetry.spans_of("s").len() == 1, "the span has not come");
        Ok(())
    })?;
    collector.stop()
}
