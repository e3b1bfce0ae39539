//! `spantap health`: whether a running forwarder is ready.
//!
//! In: the admin address of the configuration. Out: a line, or the failure with the reasons that `/readyz` gives.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use spantap_config::Config;

use crate::{export::client::describe, run::Failure};

/// For connecting and the answer together.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks `/readyz`.
///
/// # Errors
/// [`Failure::Unhealthy`] with the reason.
pub async fn ask(config: &Config) -> Result<(), Failure> {
    let Some(admin) = config.admin else {
        return Err(Failure::Unhealthy("there is no admin endpoint to ask: spantap.admin is off".to_owned()));
    };
    let url = format!("http://{}/readyz", reachable(admin));
    let unhealthy = |reason: String| Failure::Unhealthy(format!("{url}: {reason}"));
    // The client wants to know who encrypts, even where nobody does; an error means that it knows.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A proxy has no way to an address of this host.
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(ANSWER).build();
    let asked = async { client?.get(&url).send().await };
    let answer = asked.await.map_err(|error| unhealthy(describe(&error)))?;
    let healthy = answer.status().is_success();
    let body = answer.text().await.map_err(|error| unhealthy(describe(&error)))?;
    if !healthy {
        return Err(unhealthy(body.trim().to_owned()));
    }
    println!("healthy: {}", body.trim());
    Ok(())
}

/// Where one that listens on every address of this host can be asked.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_at_loopback() {
        let asked = |text: &str| text.parse().map(reachable).map(|address| address.to_string());
        assert_eq!(asked("0.0.0.0:9465"), Ok("127.0.0.1:9465".to_owned()));
        assert_eq!(asked("[::]:9465"), Ok("[::1]:9465".to_owned()));
        assert_eq!(asked("10.1.2.3:80"), Ok("10.1.2.3:80".to_owned()));
    }
}
