//! In: `grafana.otlp`. Out: the endpoint of Grafana Cloud's OTLP gateway and its authorization.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::Signal;
use crate::{
    error::{ConfigError, Place},
    settings::Settings,
    types::Secret,
};

/// What was configured.
#[derive(Debug)]
pub(super) struct Grafana {
    /// Base endpoint, if a zone was given.
    endpoint: Option<String>,
    authorization: Option<Secret>,
    traces: bool,
    metrics: bool,
    pub(super) place: Place,
}

impl Grafana {
    /// Whether the signal is submitted.
    pub(super) fn submits(&self, signal: Signal) -> bool {
        match signal {
            Signal::Traces => self.traces,
            Signal::Metrics => self.metrics,
        }
    }

    /// Base endpoint for a signal that has no other.
    pub(super) fn endpoint(&self) -> Result<&str, ConfigError> {
        self.endpoint.as_deref().ok_or_else(|| ConfigError::Invalid {
            place: self.place.clone(),
            key: "grafana.otlp.cloud_zone".to_owned(),
            found: "nothing".to_owned(),
            expected: "the zone of the Grafana Cloud stack, such as prod-eu-west-0, or an endpoint elsewhere"
                .to_owned(),
        })
    }

    /// Value of the `authorization` header, which goes to whatever endpoint the signal has, as in Beyla.
    pub(super) fn authorization(&self) -> Option<&Secret> {
        self.authorization.as_ref()
    }
}

/// Reads the section; `None` if nothing of it was given.
pub(super) fn grafana(settings: &mut Settings<'_>) -> Result<Option<Grafana>, ConfigError> {
    let zone = settings.get("grafana.otlp.cloud_zone");
    let instance = settings.get("grafana.otlp.cloud_instance_id");
    let key = settings.get("grafana.otlp.cloud_api_key");
    let submit = settings.get("grafana.otlp.cloud_submit");
    let (mut traces, mut metrics) = (true, false);
    if let Some(submit) = submit {
        (traces, metrics) = (false, false);
        for item in submit.items()? {
            match item.word(&[("traces", Signal::Traces), ("metrics", Signal::Metrics)])? {
                Signal::Traces => traces = true,
                Signal::Metrics => metrics = true,
            }
        }
    }
    let Some(place) = [&zone, &instance, &key].into_iter().flatten().next().map(|given| given.place()) else {
        return Ok(None);
    };
    let endpoint = match zone {
        Some(zone) => {
            let text = zone.some_text()?;
            // It becomes part of a host name: anything else could send the key somewhere else.
            if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(zone.invalid("letters, digits and hyphens, such as prod-eu-west-0"));
            }
            Some(format!("https://otlp-gateway-{text}.grafana.net/otlp"))
        }
        None => None,
    };
    let authorization = match (instance, key) {
        (Some(instance), Some(key)) => {
            let key = key.text().map_err(|_| key.invalid_as("something else", "the API key, a single text"))?;
            Some(Secret(format!("Basic {}", STANDARD.encode(format!("{}:{key}", instance.some_text()?)))))
        }
        (None, None) => None,
        (one, _) => {
            let missing = if one.is_some() { "cloud_api_key" } else { "cloud_instance_id" };
            settings.warn(place.clone(), format!("grafana.otlp.{missing}: missing, requests go without authorization"));
            None
        }
    };
    Ok(Some(Grafana { endpoint, authorization, traces, metrics, place }))
}
