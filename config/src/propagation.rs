//! In: `ebpf.context_propagation`, `spantap.accept_wrong_fionread`. Out: whether and how requests are given a `traceparent`.
//!
//! Beyla's words: `headers` is what is served; `tcp` puts the context into an option of TCP, which nothing but Beyla reads, and is
//! not served; `all` is both; `disabled` is the default; `ip` has no effect there any more.

use crate::{
    error::ConfigError,
    settings::Settings,
    types::{Propagation, Sampler},
};

const KEY: &str = "ebpf.context_propagation";
const FIONREAD: &str = "spantap.accept_wrong_fionread";

/// Reads both keys.
pub(crate) fn propagation(settings: &mut Settings<'_>, sampler: Sampler) -> Result<Propagation, ConfigError> {
    let accept_wrong_fionread = match settings.get(FIONREAD) {
        None => false,
        Some(given) => match given.text()?.trim().to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(given.invalid("true or false")),
        },
    };
    let threshold = sampler.threshold();
    let Some(given) = settings.get(KEY) else {
        return Ok(Propagation { headers: false, accept_wrong_fionread, threshold });
    };
    let text = given.text()?.trim().to_ascii_lowercase();
    let (mut headers, mut other) = (false, false);
    for word in text.split(',').map(str::trim) {
        match word {
            "headers" => headers = true,
            "tcp" => other = true,
            "all" => (headers, other) = (true, true),
            "ip" => other = true,
            // YAML 1.1 calls `off` a truth value; people write `false` for it.
            "disabled" | "off" | "false" | "" => {}
            _ => {
                return Err(given.invalid(
                    "headers or disabled (of Beyla's other words, tcp has no effect here and all is headers)",
                ));
            }
        }
    }
    if other {
        let what = if headers { "of this, headers is served" } else { "not served, no effect; headers is" };
        settings.warn(given.place(), format!("{KEY}: {text}: {what}"));
    }
    Ok(Propagation { headers, accept_wrong_fionread, threshold })
}
