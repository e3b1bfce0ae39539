//! TLS to a destination: whom it trusts, who it says it is, and what happens if that does not hold.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/sample.rs"]
mod sample;

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use receiver::{Receiver, ok, until};
use spantap::{exchange::Side, pipeline::Pipeline, telemetry::summary::Summary};
use spantap_config::{Config, Environment, Otlp};
use tempfile::TempDir;
use tokio::{io::copy_bidirectional, net::TcpListener, net::TcpStream, time::Instant};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
        server::WebPkiClientVerifier,
    },
};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, folder: TempDir::new().unwrap() }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn ca_file(&self) -> PathBuf {
        self.file("ca.pem", &self.issuer.pem())
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate, key)
    }

    fn client_files(&self) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue("spantap");
        (self.file("client.key", &key.serialize_pem()), self.file("client.pem", &certificate.pem()))
    }
}

/// A TLS front for `behind`, which asks for client certificates if so told; returns its URL.
async fn front(authority: &Authority, behind: &Receiver, ask_client: bool) -> String {
    let (certificate, key) = authority.issue("localhost");
    let chain = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if ask_client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.issuer.der().to_vec())).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), behind.address);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut tls) = acceptor.accept(stream).await {
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    let _ = copy_bidirectional(&mut tls, &mut plain).await;
                }
            });
        }
    });
    format!("https://localhost:{port}/v1/traces")
}

async fn one_span(url: String, within: Duration, change: impl FnOnce(&mut Otlp)) -> Summary {
    let mut traces = sample::otlp_traces(url);
    change(&mut traces.otlp);
    let config = Config { traces: Some(traces), ..sample::config() };
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    pipeline.exchange(&sample::exchange(Side::Server), &sample::clock());
    let summary = pipeline.drain(Instant::now() + within).await;
    assert!(summary.adds_up(), "{summary:?}");
    summary
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_configured_authority_is_trusted() {
    let (authority, receiver) = (Authority::new(), Receiver::start(vec![ok()]).await);
    let url = front(&authority, &receiver, false).await;
    let summary = one_span(url, LONG, |o| o.certificate = Some(authority.ca_file())).await;
    assert_eq!((summary.traces.exported, receiver.received().len()), (1, 1));
}

#[tokio::test]
async fn a_stranger_is_not() {
    let (authority, receiver) = (Authority::new(), Receiver::start(vec![ok()]).await);
    let url = front(&authority, &receiver, false).await;
    let other = Authority::new();
    let summary = one_span(url, SHORT, |o| o.certificate = Some(other.ca_file())).await;
    assert_eq!((summary.traces.exported, receiver.received().len()), (0, 0));
}

#[tokio::test]
async fn verification_can_be_turned_off() {
    let (authority, receiver) = (Authority::new(), Receiver::start(vec![ok()]).await);
    let url = front(&authority, &receiver, false).await;
    let summary = one_span(url, LONG, |o| o.insecure_skip_verify = true).await;
    assert_eq!((summary.traces.exported, receiver.received().len()), (1, 1));
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let (authority, receiver) = (Authority::new(), Receiver::start(vec![ok()]).await);
    let url = front(&authority, &receiver, true).await;
    let without = one_span(url.clone(), SHORT, |o| o.certificate = Some(authority.ca_file())).await;
    assert_eq!(without.traces.exported, 0);
    let with = one_span(url, LONG, |o| {
        o.certificate = Some(authority.ca_file());
        o.client_identity = Some(authority.client_files());
    })
    .await;
    assert_eq!((with.traces.exported, receiver.received().len()), (1, 1));
}

/// A file with another authority in the place of the wrong one: the next exporter reads it, and gets what waits.
#[tokio::test]
async fn an_authority_that_is_mended_takes_over_what_waits() {
    let (authority, receiver) = (Authority::new(), Receiver::start(vec![ok()]).await);
    let url = front(&authority, &receiver, false).await;
    let stranger = Authority::new();
    let path = stranger.ca_file();
    let read = || {
        let yaml = format!(
            "otel_traces_export: {{endpoint: '{url}', batch_timeout: 10ms}}\nshutdown_timeout: 300ms\n\
             spantap: {{otlp: {{certificate: '{}'}}}}\n",
            path.display()
        );
        let loaded = Config::parse("c.yml".as_ref(), &yaml, &Environment::default()).unwrap();
        assert_eq!(loaded.files, std::slice::from_ref(&path), "is looked at for changes");
        let config = loaded.config;
        Config { traces: config.traces, shutdown_timeout: config.shutdown_timeout, ..sample::config() }
    };
    let first = read();
    let mut pipeline = Pipeline::new(&first, Arc::default()).unwrap();
    pipeline.exchange(&sample::exchange(Side::Server), &sample::clock());
    until("tried", || {
        pipeline.tick();
        pipeline.telemetry().traces.requests_failed.get() > 0
    })
    .await;
    assert!(first.traces == read().traces, "nothing has changed");
    fs::write(&path, authority.issuer.pem()).unwrap();
    let second = read();
    pipeline.reload(&first, &second).unwrap();
    until("delivered", || pipeline.telemetry().traces.exported.get() == 1).await;
    let summary = pipeline.drain(Instant::now() + LONG).await;
    assert!(summary.adds_up() && summary.losses.is_empty(), "{summary:?}");
}
