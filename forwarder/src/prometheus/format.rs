//! Which of the two text formats a scraper gets.
//!
//! In: `Accept`. Out: a [`Format`] and its `Content-Type`.

use crate::serve::weight;

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

impl Format {
    /// The format that `accept` prefers; text if it says nothing, or nothing that is served.
    pub fn negotiate(accept: &str) -> Self {
        let quality = |wanted: fn(&str, &str) -> bool| {
            accept
                .split(',')
                .take(32)
                .filter(|range| {
                    let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
                    wanted(name.trim(), parameters)
                })
                .map(weight)
                .fold(0.0, f32::max)
        };
        let open = quality(|name, parameters| name.eq_ignore_ascii_case(OPEN_METRICS) && is_version_1(parameters));
        let named = quality(|name, _| name.eq_ignore_ascii_case("text/plain") || name.eq_ignore_ascii_case("text/*"));
        let any = quality(|name, _| name == "*/*");
        // Where both are as welcome, the one that says more.
        if open > 0.0 && open >= named.max(any) { Self::OpenMetrics } else { Self::Text }
    }

    /// `Content-Type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Whether the parameters of a media range ask for what is written: 1.0.0, or its draft, or any.
fn is_version_1(parameters: &str) -> bool {
    let mut given = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let version = given.find(|(name, _)| name.trim().eq_ignore_ascii_case("version"));
    version.is_none_or(|(_, version)| matches!(version.trim().trim_matches('"'), "1.0.0" | "0.0.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation() {
        for (accept, want) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("application/json", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            // Prometheus 3 and 2.42, as they ask.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;\
                 version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,\
                 */*;q=0.2",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("text/plain;q=0.9, application/openmetrics-text; q=0.8", Format::Text),
            ("text/plain, application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=2.0.0, */*;q=0.1", Format::Text),
            ("application/openmetrics-text;q=x", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=7", Format::Text),
        ] {
            assert_eq!(Format::negotiate(accept), want, "{accept}");
        }
    }
}
