//! The scrape endpoint: the same series as the OTLP export, as Prometheus text or OpenMetrics.
//!
//! In: a registry. Out: replies at the configured path. Scrapers should set `honor_labels: true`: `job` and `instance` name
//! the observed process, not Spantap.

pub mod format;
pub mod names;
pub mod page;
pub mod text;

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use self::{
    format::Format,
    page::{Page, Shown},
};
use crate::{
    metric::registry::Registry,
    observation::Rules,
    serve::{Handler, Reply, body::Content},
    telemetry::Telemetry,
};

/// Pages that are written at once; each holds a copy of the series.
const MAX_PAGES: usize = 4;

/// The endpoint's answers.
pub fn handler(
    path: String,
    shown: Shown,
    registry: Arc<Mutex<Registry>>,
    rules: Arc<Rules>,
    telemetry: Arc<Telemetry>,
) -> Handler {
    let room = Arc::new(Semaphore::new(MAX_PAGES));
    Arc::new(move |query| {
        if query.path != path {
            return Reply::text(404, format!("served here: {path}\n"));
        }
        let Ok(permit) = room.clone().try_acquire_owned() else {
            return Reply::text(503, format!("{MAX_PAGES} scrapes are under way already\n"));
        };
        telemetry.scrapes.add(1);
        let format = Format::negotiate(query.accept);
        let (registry, rules) = (registry.clone(), rules.clone());
        let mut page = None;
        let pieces = move || {
            // Held until the reply is over.
            let _ = &permit;
            let new = || Page::new(format, &registry, rules.clone(), shown);
            page.get_or_insert_with(new).piece()
        };
        Reply { status: 200, content_type: format.content_type(), body: Content::Pieces(Box::new(pieces)) }
    })
}
