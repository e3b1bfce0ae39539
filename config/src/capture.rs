//! In: `spantap.headers`. Out: names of header fields that become attributes of spans; those that carry credentials only
//! where they were asked for twice.

use crate::{error::ConfigError, settings::Settings, types::Headers};

/// Fields that commonly carry credentials or sessions. To name one in a list is not enough.
#[rustfmt::skip]
const SENSITIVE: &[&str] = &[
    "authorization", "cookie", "set-cookie", "proxy-authorization", "x-api-key", "api-key", "apikey", "x-auth-token", "x-access-token",
    "x-csrf-token", "x-xsrf-token", "x-amz-security-token", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion", "x-vault-token",
    "authentication-info", "proxy-authentication-info", "x-forwarded-access-token", "x-forwarded-client-cert",
];

/// Names of one list at most: each field of each head is looked up.
const MOST: usize = 32;

/// Reads both lists.
pub(crate) fn headers(settings: &Settings<'_>) -> Result<Headers, ConfigError> {
    let allowed = names(settings, "spantap.headers.allow_sensitive", &[], true)?;
    Ok(Headers {
        request: names(settings, "spantap.headers.request", &allowed, false)?,
        response: names(settings, "spantap.headers.response", &allowed, false)?,
    })
}

fn names(
    settings: &Settings<'_>,
    key: &'static str,
    allowed: &[String],
    any: bool,
) -> Result<Vec<String>, ConfigError> {
    let Some(given) = settings.get(key) else { return Ok(Vec::new()) };
    let mut names: Vec<String> = Vec::new();
    for item in given.items()? {
        let name = item.some_text()?.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(item.invalid("the name of a header field such as x-request-id; patterns are not served"));
        }
        if !any && SENSITIVE.contains(&name.as_str()) && !allowed.contains(&name) {
            return Err(item.unsupported(format!(
                "{name} carries credentials; to have them in spans all the same, name it in spantap.headers.allow_sensitive, too"
            )));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > MOST {
        return Err(given.invalid_as(&format!("{} names", names.len()), &format!("at most {MOST}")));
    }
    Ok(names)
}
