//! The configured headers of a destination, credentials among them.
//!
//! In: names and values, and perhaps files to read them from again. Out: headers for each request; new ones, when the
//! destination refused the old ones and the files hold others by now. Values never leave here but on the wire.

use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use spantap_config::{HeaderSource, Secret};

use super::{client::ClientError, log::RateLimit, transport};

/// Kind of what is said of reading again.
const READ: &str = "read";

/// Headers that are sent with every request.
#[derive(Debug)]
pub(super) struct Credentials {
    headers: Mutex<HeaderMap>,
    source: Option<HeaderSource>,
    said: Mutex<RateLimit>,
}

impl Credentials {
    /// Checks the headers.
    pub(super) fn new(headers: &[(String, Secret)], source: Option<HeaderSource>) -> Result<Self, ClientError> {
        Ok(Self { headers: Mutex::new(map(headers)?), source, said: Mutex::default() })
    }

    /// Headers for a request.
    pub(super) fn headers(&self) -> HeaderMap {
        lock(&self.headers).clone()
    }

    /// Reads the headers again after a refusal; true if there are others now. Says what came of it when that changes.
    pub(super) async fn changed(&self, endpoint: &str) -> bool {
        let Some(source) = self.source.clone() else { return false };
        let files = source.files().iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        // From the disk, which may be far.
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let new = match read {
            Ok(Ok(headers)) => map(&headers).map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let new = match new {
            Ok(new) => new,
            Err(error) => {
                if lock(&self.said).is_news(READ, &error) {
                    tracing::warn!(endpoint, "credentials are refused, and cannot be read again: {error}");
                }
                return false;
            }
        };
        let mut present = lock(&self.headers);
        let changed = *present != new;
        *present = new;
        drop(present);
        if changed {
            lock(&self.said).over(READ);
            tracing::info!(endpoint, files, "credentials are refused; what the files hold now is tried");
        } else if lock(&self.said).is_news(READ, "same") {
            tracing::warn!(endpoint, files, "credentials are refused, and the files still hold the same");
        }
        changed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn map(headers: &[(String, Secret)]) -> Result<HeaderMap, ClientError> {
    let mut map = HeaderMap::new();
    map.insert(USER_AGENT, HeaderValue::from_static(transport::USER_AGENT));
    for (name, secret) in headers {
        let bad = || ClientError::Header { name: name.clone() };
        let header: HeaderName = name.parse().map_err(|_| bad())?;
        // Who exports stays visible; a distribution puts its name in front (exporter specification, "User Agent").
        let text = match &header {
            header if header == USER_AGENT => format!("{} {}", secret.0, transport::USER_AGENT),
            _ => secret.0.clone(),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| bad())?;
        value.set_sensitive(true);
        map.insert(header, value);
    }
    Ok(map)
}
