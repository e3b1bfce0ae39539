//! The scrape endpoint: the same series as the OTLP export, as Prometheus text or OpenMetrics.
//!
//! In: a registry. Out: replies at the configured path. Scrapers should set `honor_labels: true`: `job` and `instance` name
//! the observed process, not Spantap.

pub mod text;

use std::sync::{Arc, Mutex};

use self::text::{Format, render};
use crate::{
    metric::registry::Registry,
    observation::Rules,
    pipeline::lock,
    serve::{Handler, Reply},
    telemetry::Telemetry,
};

/// The endpoint's answers.
pub fn handler(path: String, registry: Arc<Mutex<Registry>>, rules: Arc<Rules>, telemetry: Arc<Telemetry>) -> Handler {
    Arc::new(move |query| {
        if query.path != path {
            return Reply::text(404, format!("served here: {path}\n"));
        }
        telemetry.scrapes.add(1);
        let format = Format::negotiate(query.accept);
        Reply {
            status: 200,
            content_type: format.content_type(),
            body: render(format, &lock(&registry), &rules).into(),
        }
    })
}
