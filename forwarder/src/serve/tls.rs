//! TLS of an endpoint.
//!
//! In: PEM files of a certificate chain and its key. Out: an acceptor. The files are read once, before privilege is given up,
//! so that the key may be readable by root alone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// Files that do not make a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not readable, or not PEM.
    #[error("{path} holds no usable {what}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// No certificate, or key and certificate that do not belong together.
    #[error("{path} cannot be used: {source}", path = path.display())]
    Pair {
        /// The file of the certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// An acceptor with the chain in `certificate` and the key in `key`.
///
/// # Errors
/// If the files can not be read, or do not belong together.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let file = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::File { path, what, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(file(certificate, "certificate"))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(file(key, "key"))?;
    let pair = |source| TlsError::Pair { path: certificate.to_owned(), source };
    let mut server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(pair)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}
