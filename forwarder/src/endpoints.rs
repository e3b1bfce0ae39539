//! The addresses on which this host may ask: the scrape endpoint and the admin endpoint.
//!
//! In: the configuration. Out: listening sockets that nobody serves yet. They are opened before anything is started, so
//! that an address that is taken ends a start that has not begun.

use std::net::{Ipv4Addr, Ipv6Addr};

use spantap_config::{Config, Scrape};

use crate::serve::{
    Guard, Listening, ServeError,
    credentials::Credentials,
    tls::{self, TlsError},
};

/// An endpoint that can not be opened; says which key leads out.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The scrape endpoint.
    #[error("prometheus_export.port: {0}; set it (SPANTAP_PROMETHEUS_PORT) to another port")]
    Prometheus(#[source] ServeError),
    /// Certificate and key of the scrape endpoint.
    #[error("spantap.prometheus.tls_certificate, tls_key: {0}")]
    Tls(#[from] TlsError),
    /// The admin endpoint.
    #[error("spantap.admin: {0}; set it (SPANTAP_ADMIN) to another address, or to off")]
    Admin(#[source] ServeError),
}

/// Listening sockets, for those endpoints that are wanted.
#[derive(Debug)]
pub struct Endpoints {
    /// For Prometheus.
    pub scrape: Option<Listening>,
    /// For whoever looks after Spantap.
    pub admin: Option<Listening>,
}

impl Endpoints {
    /// Listens on what `config` asks for.
    ///
    /// # Errors
    /// If an address is taken or not of this host, or a certificate or key is not usable.
    pub fn open(config: &Config) -> Result<Self, EndpointError> {
        let scrape = |port| {
            // The first takes IPv4 as well; the second is for hosts without IPv6.
            Listening::on(&[(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()])
        };
        let scrape = match &config.prometheus {
            Some(of) => {
                let guard = guard(&of.scrape)?;
                Some(scrape(of.port).map_err(EndpointError::Prometheus)?.guarded(guard))
            }
            None => None,
        };
        Ok(Self {
            scrape,
            admin: config.admin.map(|at| Listening::on(&[at])).transpose().map_err(EndpointError::Admin)?,
        })
    }
}

/// Who may scrape, and the certificate and key that are shown to them.
///
/// # Errors
/// If the files are not usable.
pub fn guard(of: &Scrape) -> Result<Guard, TlsError> {
    Ok(Guard {
        credentials: of.basic_auth.as_ref().map(|(username, password)| Credentials::new(username, &password.0)),
        tls: of.tls.as_ref().map(|(certificate, key)| tls::acceptor(certificate, key)).transpose()?,
    })
}
