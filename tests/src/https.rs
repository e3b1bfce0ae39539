//! What must come of exchanges over TLS: each is told once, with the peer of its own connection, and nothing is lost.
//!
//! In: telemetry, losses, the port of a server. Out: spans, or the first thing that is wrong. The client's program asks for
//! `/PREFIX/<own port>/<number>`, so that each path tells whose connection it came on.

use std::{collections::BTreeSet, process::Command, sync::Arc, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    admin::Losses,
    collector::Collector,
    compiled, expect,
    servers::python,
    telemetry::{Kind, Span},
};

/// Runs the client's program: a thread for each of `connections`, on each `requests` times `at_once` requests in one write.
/// Every answer must have status 200. `numbers`: connections, requests, at once; `mode`: as the program says.
///
/// # Errors
/// With what the program said.
pub fn ask(port: u16, prefix: &str, numbers: [usize; 3], mode: &[&str]) -> Result<()> {
    let mut command = Command::new(python()?);
    command.arg(compiled::subjects().join("tls/client.py")).arg(port.to_string()).arg(prefix);
    succeeds(command.args(numbers.map(|number| number.to_string())).args(mode))
}

/// Runs a command to its end.
///
/// # Errors
/// With what it said, if it fails.
pub fn succeeds(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Waits for exactly `count` well-formed spans of this kind, port and beginning of the path, all of them https and answered with 200.
///
/// # Errors
/// With what is wrong after `limit`.
pub fn spans(
    collector: &mut Collector,
    limit: Duration,
    (kind, port): (Kind, u16),
    prefix: &str,
    count: usize,
) -> Result<Vec<Arc<Span>>> {
    collector.wait_until(limit, |telemetry| {
        let of = |span: &&Arc<Span>| {
            span.kind == kind
                && span.path().starts_with(prefix)
                && span.attributes.number("server.port") == Some(i64::from(port))
        };
        let found: Vec<_> = telemetry.spans.iter().filter(of).cloned().collect();
        ensure!(found.len() == count, "{} {kind:?} spans for {prefix} on port {port}, not {count}", found.len());
        for span in &found {
            expect::well_formed_over(span, "https")?;
            ensure!(span.status_code() == Some(200), "status {:?}", span.status_code());
            let full = span.attributes.text("url.full");
            ensure!(kind == Kind::Server || full.is_some_and(|full| full.starts_with("https://")), "{full:?}");
        }
        Ok(found)
    })
}

/// How many were lost for this reason.
pub fn lost(losses: &Losses, reason: &str) -> u64 {
    losses.get(reason).copied().unwrap_or_default()
}

/// That nothing of what was read counts as lost.
///
/// # Errors
/// With the reason that counts.
pub fn nothing_lost(before: &Losses, after: &Losses) -> Result<()> {
    for reason in [
        "encrypted",
        "tls_peer_unknown",
        "protocol_unknown",
        "parse_error",
        "tls_call_not_seen",
        "response_not_observed",
        "request_not_observed",
        "exchange_not_observed",
    ] {
        let (before, after) = (lost(before, reason), lost(after, reason));
        ensure!(before == after, "{reason}: {before} before, {after} after");
    }
    Ok(())
}

/// That the second part of each path is the port of the peer: no byte of one connection is credited to another.
///
/// # Errors
/// With the span that has another peer, or that comes twice.
pub fn own_peer(spans: &[Arc<Span>]) -> Result<()> {
    let mut paths = BTreeSet::new();
    for span in spans {
        let path = span.path();
        let port = path.split('/').nth(2).and_then(|port| port.parse::<i64>().ok());
        ensure!(
            port.is_some() && span.attributes.number("network.peer.port") == port,
            "{path}: peer {:?}",
            span.attributes
        );
        ensure!(span.attributes.text("network.peer.address") == Some("127.0.0.1"), "{path}: another peer address");
        ensure!(paths.insert(path.to_owned()), "{path} twice");
    }
    Ok(())
}
