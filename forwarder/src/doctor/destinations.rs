//! Each configured destination, asked by an export of nothing.
//!
//! In: the configuration. Out: a check for each signal, with what the exporters of the program itself got as an answer.
//! All are asked at the same time, so that a dead one costs its own time limit and no more.

use std::time::{Duration, Instant};

use bytes::Bytes;
use spantap_config::{Config, Console, Fallback, Otlp, OtlpProtocol};
use spantap_doctor::{Check, Group, Lack};

use super::diagnosis::{self, Asked};
use crate::{
    export::client::{Client, ClientError, Silence},
    run::{collector_listens, words_of},
};

/// How long a destination may take to answer, whatever `timeout` its exporter has.
const PATIENCE: Duration = Duration::from_secs(4);

/// Looks. `as_forwarder`: this process is the user that forwards; else nothing is sent, as a start would not.
pub(super) fn look(config: &Config, as_forwarder: bool) -> Vec<Check> {
    let mut checks: Vec<Check> = choice(config, collector_listens).into_iter().collect();
    let fallback = config.fallback.as_deref().filter(|of| !config.has_exporter() && collector_listens(of));
    let traces = config.traces.as_ref().or_else(|| fallback?.traces.as_ref()).map(|traces| &traces.otlp);
    let metrics = config.metrics.as_ref().or_else(|| fallback?.metrics.as_ref()).map(|metrics| &metrics.otlp);
    let signals: Vec<(&'static str, &'static str, &Otlp)> = [
        traces.map(|otlp| ("destinations.traces", "otel_traces_export", otlp)),
        metrics.map(|otlp| ("destinations.metrics", "otel_metrics_export", otlp)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if signals.is_empty() {
        return checks;
    }
    if !as_forwarder {
        checks.extend(signals.into_iter().map(|(id, ..)| {
            Check::unknown(
                Group::Destinations,
                id,
                "not asked: privilege could not be given up",
                "see privilege.forwarder_user",
            )
        }));
        return checks;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let finding = format!("not asked: {error}");
            for (id, ..) in signals {
                checks.push(Check::unknown(Group::Destinations, id, &finding, "try again"));
            }
            return checks;
        }
    };
    checks.extend(runtime.block_on(async {
        let tasks: Vec<_> = signals
            .into_iter()
            .map(|(id, section, otlp)| {
                let otlp = otlp.clone();
                tokio::spawn(async move { destination(id, section, &otlp).await })
            })
            .collect();
        let mut checks = Vec::new();
        for task in tasks {
            checks.extend(task.await);
        }
        checks
    }));
    // A name server that does not answer holds a thread longer than anyone waits for it.
    runtime.shutdown_background();
    checks
}

/// What is done with what is observed, where that is not plain from the destinations.
fn choice(config: &Config, collector_listens: impl Fn(&Fallback) -> bool) -> Option<Check> {
    let id = "destinations.choice";
    let ok = |finding: String| Some(Check::ok(Group::Destinations, id, finding));
    match (&config.fallback, config.console) {
        (_, Console::Off) if config.has_exporter() => None,
        (_, Console::Off) => match &config.fallback {
            Some(of) if collector_listens(of) => {
                let ports = words_of(&of.ports());
                ok(format!("no exporter is configured: it sends to localhost:{ports}, where something listens"))
            }
            Some(of) => {
                let ports = words_of(&of.ports());
                ok(format!(
                    "no exporter is configured and nothing listens on localhost:{ports}: it prints to the terminal"
                ))
            }
            None => Some(Check::degraded(
                Group::Destinations,
                id,
                "every exporter is switched off: exchanges are counted only",
                "set otel_traces_export.endpoint, prometheus_export.port or spantap.console",
            )),
        },
        _ => ok("a line for each exchange on standard output (spantap.console)".to_owned()),
    }
}

async fn destination(id: &str, section: &str, otlp: &Otlp) -> Check {
    let client = match Client::new(otlp) {
        Ok(client) => client,
        Err(error) => return unusable(id, section, &error),
    };
    let limit = client.timeout().map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
    let begin = Instant::now();
    // An empty message of protobuf has no bytes at all.
    let outcome = match client.pack(Bytes::new()).await {
        Some(packed) => tokio::time::timeout(limit, client.ask(&packed, None)).await,
        None => return Check::unknown(Group::Destinations, id, "nothing could not be packed", "report this"),
    };
    let asked = Asked {
        shown: client.shown().to_owned(),
        headers: client.header_names().to_owned(),
        verified: !otlp.insecure_skip_verify,
        grpc: otlp.protocol == OtlpProtocol::Grpc,
        took: begin.elapsed(),
    };
    match outcome {
        Ok(Ok(said)) => diagnosis::answered(id, &asked, &said),
        Ok(Err(Silence::TooLong(status))) => diagnosis::too_long(id, &asked, status),
        Ok(Err(Silence::Failed(error))) => diagnosis::failed(id, &asked, &error),
        Err(_) => diagnosis::silent(id, &asked, limit),
    }
}

fn unusable(id: &str, section: &str, error: &ClientError) -> Check {
    let fix = match error {
        ClientError::File { .. } => "see to it that the user that forwards may read it (root's own files it may not)",
        ClientError::Pem { .. } => "it has to hold PEM: -----BEGIN …",
        _ => "correct it; `spantap check` reads it again",
    };
    let finding = format!("{section}: {error}");
    Check::failed(Group::Destinations, id, Lack::Configuration, finding, fix)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use spantap_config::Environment;
    use spantap_doctor::State;

    use super::*;

    fn of(yaml: &str, listens: bool) -> Option<Check> {
        let config = Config::parse("x.yml".as_ref(), yaml, &Environment::default()).unwrap().config;
        choice(&config, |_| listens)
    }

    #[test]
    fn what_is_chosen_is_told() {
        assert!(of("", true).unwrap().finding.contains("localhost:4318, where"));
        assert!(of("", false).unwrap().finding.contains("prints to the terminal"));
        assert!(of("spantap: {console: json}", false).unwrap().finding.contains("standard output"));
        assert_eq!(of("otel_traces_export: {endpoint: 'http://h:1'}", true), None);
        assert_eq!(of("prometheus_export: {port: 9464}", true), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_mistake_of_the_configuration() {
        let mut otlp = crate::sample::otlp("https://collector.example/v1/traces".into());
        otlp.certificate = Some("/no/such/ca.pem".into());
        let error = Client::new(&otlp).unwrap_err();
        let check = unusable("destinations.traces", "otel_traces_export", &error);
        assert_eq!((check.state, check.exit_code), (State::Failed, Some(Lack::Configuration)));
        assert!(check.finding.contains("otel_traces_export: cannot read /no/such/ca.pem"), "{check:?}");
    }
}
