//! The admin endpoint: `/healthz`, `/readyz`, `/metrics` of Spantap itself.
//!
//! In: [`Telemetry`]. Out: replies; see docs/telemetry.md.

use std::sync::Arc;

use crate::{
    prometheus::{format::Format, text::render_own},
    serve::{Handler, Query, Reply},
    telemetry::{Telemetry, snapshot},
};

/// The endpoint's answers.
pub fn handler(telemetry: Arc<Telemetry>) -> Handler {
    Arc::new(move |query| answer(&telemetry, query))
}

fn answer(telemetry: &Telemetry, query: Query<'_>) -> Reply {
    match query.path {
        "/healthz" => Reply::text(200, "ok\n"),
        "/readyz" => match telemetry.not_ready().as_slice() {
            [] => Reply::text(200, "ready\n"),
            reasons => Reply::text(503, format!("not ready: {}\n", reasons.join("; "))),
        },
        "/metrics" => {
            let format = Format::negotiate(query.accept);
            Reply {
                status: 200,
                content_type: format.content_type(),
                body: render_own(format, &snapshot::measures(telemetry)).into(),
            }
        }
        _ => Reply::text(404, "served here: /healthz /readyz /metrics\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::body::Content;

    fn get(telemetry: &Telemetry, path: &str) -> (u16, String) {
        let reply = answer(telemetry, Query { path, accept: "" });
        let Content::Text(body) = reply.body else { panic!("{reply:?}") };
        (reply.status, body)
    }

    #[test]
    fn readiness_says_why_not() {
        let t = Telemetry::new(Arc::default());
        assert_eq!(get(&t, "/readyz"), (503, "not ready: no agent is connected\n".into()));
        t.agent.set_connected(true);
        assert_eq!(get(&t, "/readyz"), (200, "ready\n".into()));
        t.traces.set_refusal(Some("status 401".into()));
        assert_eq!(get(&t, "/readyz"), (503, "not ready: the destination of traces refuses: status 401\n".into()));
        assert_eq!(get(&t, "/healthz"), (200, "ok\n".into()));
        assert_eq!(get(&t, "/").0, 404);
    }

    #[test]
    fn own_metrics_are_shown() {
        let t = Telemetry::new(Arc::default());
        t.losses.count(crate::loss::Reason::Encrypted, 7);
        let body = get(&t, "/metrics").1;
        assert!(body.contains("spantap_losses_total{reason=\"encrypted\",unit=\"connection\"} 7\n"), "{body}");
        assert!(body.contains("spantap_agent_connected 0\n"), "{body}");
    }
}
