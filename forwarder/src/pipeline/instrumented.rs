//! Programs that export telemetry of their own: an SDK in them makes spans of the same requests.
//!
//! In: the exchanges of a process, and its exports by gRPC. Out: which signals it exports itself. What counts is what it was seen
//! to do, a POST to the path of OTLP/HTTP that was taken with 2xx (OTLP specification, "OTLP/HTTP Request") or a call of
//! OTLP/gRPC that ended with status 0, not its variables: an SDK that is switched off exports nothing. Who is asked for such an
//! export as well passes on what others export (a gateway) and has no spans of its own.

use spantap_config::Signal;

use crate::{exchange::Side, observation::Observation};

/// What one process exports itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// Spans.
    pub(super) traces: bool,
    /// Metrics.
    pub(super) metrics: bool,
    /// It takes what others export.
    gateway: bool,
}

/// What has just become known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It exports spans.
    Traces,
    /// It exports metrics.
    Metrics,
    /// It is a gateway after all.
    Gateway,
}

/// Whether a request may export spans.
pub(super) fn is_export(method: &[u8], path: &[u8]) -> bool {
    method == b"POST" && path.ends_with(b"/v1/traces")
}

impl Own {
    /// Looks at one exchange of the process.
    pub(super) fn learn(&mut self, seen: &Observation<'_>) -> Option<News> {
        let path = seen.raw_path;
        let (traces, metrics) = (path.ends_with(b"/v1/traces"), path.ends_with(b"/v1/metrics"));
        if !(traces || metrics) || &*seen.exchange.request.method != b"POST" {
            return None;
        }
        let taken = seen.status.is_some_and(|status| (200..300).contains(&status));
        if seen.exchange.side == Side::Client && !taken {
            return None;
        }
        self.exports(seen.exchange.side, if traces { Signal::Traces } else { Signal::Metrics })
    }

    /// It has exported what `signal` says, or as a server was asked to take it.
    pub(super) fn exports(&mut self, side: Side, signal: Signal) -> Option<News> {
        if self.gateway {
            return None;
        }
        if side == Side::Server {
            let was = self.traces || self.metrics;
            *self = Self { gateway: true, ..Self::default() };
            return was.then_some(News::Gateway);
        }
        let (known, news) = match signal {
            Signal::Traces => (&mut self.traces, News::Traces),
            Signal::Metrics => (&mut self.metrics, News::Metrics),
        };
        (!std::mem::replace(known, true)).then_some(news)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;
    use crate::{observation::Rules, sample};

    fn learn(own: &mut Own, side: Side, method: &'static str, target: &'static str, status: u16) -> Option<News> {
        let mut exchange = sample::exchange(side);
        exchange.request.method = Bytes::from_static(method.as_bytes());
        exchange.request.target = Bytes::from_static(target.as_bytes());
        exchange.response.as_mut().unwrap().status = status;
        own.learn(&Observation::new(&exchange, sample::clock(), &Rules::default()))
    }

    #[test]
    fn an_export_that_was_taken_counts_once_for_its_signal() {
        let mut own = Own::default();
        for (method, target, status) in [
            ("GET", "/v1/traces", 200),
            ("POST", "/v1/traces", 404),
            ("POST", "/v1/traces", 500),
            ("POST", "/v1/traces/7", 200),
            ("POST", "/v1/logs", 200),
        ] {
            assert_eq!(learn(&mut own, Side::Client, method, target, status), None, "{method} {target} {status}");
        }
        assert_eq!(own, Own::default());
        assert_eq!(learn(&mut own, Side::Client, "POST", "/otlp/v1/traces", 202), Some(News::Traces));
        assert_eq!(learn(&mut own, Side::Client, "POST", "/v1/traces?x=1", 200), None, "known already");
        assert!(own.traces && !own.metrics);
        assert_eq!(learn(&mut own, Side::Client, "POST", "http://c:4318/v1/metrics", 200), Some(News::Metrics));
        assert!(own.traces && own.metrics);
    }

    #[test]
    fn who_passes_on_what_others_export_is_no_exporter() {
        let mut own = Own::default();
        assert_eq!(learn(&mut own, Side::Client, "POST", "/v1/traces", 200), Some(News::Traces));
        assert_eq!(learn(&mut own, Side::Server, "POST", "/v1/traces", 200), Some(News::Gateway));
        assert_eq!(learn(&mut own, Side::Client, "POST", "/v1/traces", 200), None);
        assert!(!own.traces);
        // In whichever way it is asked and exports.
        assert_eq!(own.exports(Side::Client, Signal::Metrics), None);
        let mut own = Own::default();
        assert_eq!(own.exports(Side::Client, Signal::Metrics), Some(News::Metrics));
        assert_eq!(learn(&mut own, Side::Client, "POST", "/v1/metrics", 200), None, "known already");
        assert_eq!(own.exports(Side::Server, Signal::Traces), Some(News::Gateway));
        assert_eq!(own, Own { gateway: true, ..Own::default() });
    }
}
