//! What reading TLS costs: nginx, Node and Go answer over it, wrk asks; the server alone is observed.
//!
//! In: numbers of rounds and seconds. Out: a table for each server. One whose TLS is not read shows no exchanges, and what its connections
//! count as.

use anyhow::Result;

use super::{
    Extent, measure,
    report::Report,
    round::{Scene, Signals},
};
use crate::{
    certificate::Certificate,
    host,
    servers::{Server, nginx_over_tls},
};

/// Measures each server that this machine has.
pub(super) fn run(extent: Extent, markdown: bool) -> Result<()> {
    if let Some(reason) = host::lacks("openssl").or(host::lacks("curl")) {
        eprintln!("bench: SKIP: HTTPS: {reason}");
        return Ok(());
    }
    let certificate = Certificate::make()?;
    let (server, plain) = nginx_over_tls(&certificate)?;
    // The questions for nginx's count are asked in plain text, of the same processes.
    let worker = measure::children(server.process.pid());
    measured(extent, markdown, "nginx `return 200`", &server, Some(plain), worker)?;
    for (name, tool, start) in [
        ("Node", "node", Server::node_over_tls as fn(&Certificate) -> Result<Server>),
        ("Go", "go", Server::go_over_tls),
    ] {
        if let Some(reason) = host::lacks(tool) {
            eprintln!("bench: SKIP: HTTPS of {name}: {reason}");
            continue;
        }
        let server = start(&certificate)?;
        let pid = server.process.pid();
        measured(extent, markdown, &format!("{name} server"), &server, None, vec![pid])?;
    }
    Ok(())
}

fn measured(
    extent: Extent,
    markdown: bool,
    name: &str,
    server: &Server,
    counter: Option<u16>,
    watched: Vec<u32>,
) -> Result<()> {
    let scene = Scene {
        url: format!("https://127.0.0.1:{}/", server.port),
        counter,
        watched: vec![watched],
        entries: vec![format!("open_ports: {}", server.port)],
        spans_per_request: 1,
        own_questions_are_seen: counter.is_some(),
    };
    let mut report = Report::new(&format!("{name} over TLS, keep-alive, the server observed"));
    for round in 1..=extent.rounds {
        eprintln!("bench: {name} over TLS, round {round} of {}", extent.rounds);
        let without = scene.without(extent.seconds)?;
        report.add(without, [("spans and metrics", scene.with(extent.seconds, Signals::All, false)?)]);
    }
    println!("{}", report.print(markdown));
    Ok(())
}
