//! Why there was no answer.
//!
//! In: the error of the HTTP client. Out: the step that failed, and a check with the way out.

use std::{error::Error, io};

use spantap_doctor::{Check, Group, Lack};

use super::Asked;
use crate::export::client::describe;

/// Where a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Name,
    Refused,
    NoSocket,
    Forbidden,
    Connect,
    UnknownAuthority,
    WrongName,
    Expired,
    NoTls,
    Tls,
    NoHttp,
    Other,
}

/// The request failed.
pub(in crate::doctor) fn failed(id: &str, asked: &Asked, error: &reqwest::Error) -> Check {
    judge(id, asked, step(error), &describe(error))
}

fn judge(id: &str, asked: &Asked, step: Step, said: &str) -> Check {
    let fix = match step {
        Step::Name => "the name is not known: correct it, or see /etc/resolv.conf (in a container: its network)",
        Step::Refused => {
            "nothing listens there: is the Collector running, and is 4318 (OTLP over HTTP) or 4317 (gRPC) its port?"
        }
        Step::NoSocket => "the socket is not there: is the Collector running, and is this the path that it listens on?",
        Step::Forbidden => "the user that forwards may not use the socket: let it write there",
        Step::NoHttp if asked.grpc => {
            "what listens there does not speak gRPC: 4318 is the port of OTLP over HTTP, gRPC has 4317; https:// where it \
             asks for TLS; or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        }
        Step::Connect => "make sure that address and port are right and that a route leads there",
        Step::UnknownAuthority => {
            "the certificate is signed by an authority that is not known: set OTEL_EXPORTER_OTLP_CERTIFICATE to its \
             certificate (PEM)"
        }
        Step::WrongName => "the certificate is for another name: use the name that it is for in the endpoint",
        Step::Expired => "the certificate is not valid now: renew it, or correct the clock",
        Step::NoTls => "no TLS is spoken there: use http:// or the port for TLS",
        Step::Tls => "see the certificate options (OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE, _CLIENT_KEY)",
        Step::NoHttp => {
            "what listens there does not speak HTTP/1.1: 4317 is the port of gRPC, OTLP over HTTP has 4318; https:// where \
             it asks for TLS; or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
        }
        Step::Other => "see the receiver's log; Spantap would start and try again",
    };
    let finding = format!("{}: {said}", asked.shown);
    Check::failed(Group::Destinations, id, Lack::Thing, finding, fix)
}

/// Tells by the types of the causes; where a cause is private to its crate, by its words.
fn step(error: &reqwest::Error) -> Step {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    let mut found = Step::Other;
    while let Some(cause) = next {
        if let Some(tls) = tls_error(cause) {
            return tls_step(tls);
        }
        match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => return Step::Refused,
            Some(io::ErrorKind::NotFound) => return Step::NoSocket,
            Some(io::ErrorKind::PermissionDenied) => return Step::Forbidden,
            _ => {}
        }
        let words = cause.to_string();
        if words.contains("dns error") || words.contains("lookup address") {
            return Step::Name;
        }
        // HTTP/2 wraps it so that its type is gone.
        if words.contains("received fatal alert") {
            return Step::Tls;
        }
        if words.contains("HTTP version")
            || words.contains("invalid HTTP")
            || words.contains("connection closed before")
            // It spoke before it was asked, as a server of HTTP/2 does.
            || words.contains("unexpected message")
            // HTTP/2 to a server that speaks HTTP/1.1.
            || words.contains("frame with invalid size")
            || words.contains("http2 error")
        {
            found = Step::NoHttp;
        }
        next = cause.source();
    }
    if found == Step::Other && error.is_connect() { Step::Connect } else { found }
}

/// The TLS library's error, which stands inside of I/O errors, of which `source` gives what is behind their inner one.
fn tls_error<'a>(mut cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    loop {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        cause = cause.downcast_ref::<io::Error>()?.get_ref()?;
    }
}

fn tls_step(error: &rustls::Error) -> Step {
    use rustls::{CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(certificate) => match certificate {
            Certificate::UnknownIssuer | Certificate::BadSignature => Step::UnknownAuthority,
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => Step::WrongName,
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. } => Step::Expired,
            _ => Step::Tls,
        },
        Error::InvalidMessage(_) => Step::NoTls,
        _ => Step::Tls,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        time::Duration,
    };

    use super::{super::asked, *};
    use crate::{
        export::client::{Client, Silence},
        sample,
    };

    /// What the real client says of a real failure.
    async fn step_of(endpoint: String) -> Step {
        let client = Client::new(&sample::otlp(endpoint)).unwrap();
        let packed = client.pack(bytes::Bytes::new()).await.unwrap();
        match client.ask(&packed, Some(Duration::from_secs(5))).await {
            Err(Silence::Failed(error)) => step(&error),
            other => panic!("{other:?}"),
        }
    }

    enum Speaks {
        First,
        WhenAsked,
    }

    /// Says its words to everybody, and keeps each connection until its peer ends it: an end with bytes unread would be
    /// a reset, which can overtake the words.
    fn speaker(when: Speaks, words: &'static [u8]) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if matches!(when, Speaks::WhenAsked) {
                    let _ = stream.read(&mut [0; 1]);
                }
                let _ = stream.write_all(words);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
        });
        port
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        // Bound and not listening: the port is refused, and nobody else gets it meanwhile.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = silent.local_addr().unwrap().port();
        assert_eq!(step_of(format!("http://127.0.0.1:{port}/v1/traces")).await, Step::Refused);
        // A label above 63 octets (RFC 1035, section 2.3.4) is no name, and no server has to be asked.
        let name = format!("{}.invalid", "n".repeat(64));
        assert_eq!(step_of(format!("http://{name}/v1/traces")).await, Step::Name);
        let plain = speaker(Speaks::First, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert_eq!(step_of(format!("https://127.0.0.1:{plain}/v1/traces")).await, Step::NoTls);
        // The settings frame with which an HTTP/2 server begins.
        for when in [Speaks::First, Speaks::WhenAsked] {
            let grpc = speaker(when, b"\0\0\0\x04\0\0\0\0\0");
            assert_eq!(step_of(format!("http://127.0.0.1:{grpc}/v1/traces")).await, Step::NoHttp);
        }
    }

    #[test]
    fn every_step_has_a_way_out_and_certificates_are_told_apart() {
        use rustls::{CertificateError as C, Error as E};
        for (error, expected) in [
            (E::InvalidCertificate(C::UnknownIssuer), Step::UnknownAuthority),
            (E::InvalidCertificate(C::NotValidForName), Step::WrongName),
            (E::InvalidCertificate(C::Expired), Step::Expired),
            (E::InvalidCertificate(C::NotValidYet), Step::Expired),
            (E::InvalidCertificate(C::Revoked), Step::Tls),
            (E::NoCertificatesPresented, Step::Tls),
        ] {
            assert_eq!(tls_step(&error), expected, "{error}");
        }
        for step in [
            Step::Name,
            Step::Refused,
            Step::NoSocket,
            Step::Forbidden,
            Step::Connect,
            Step::Tls,
            Step::NoHttp,
            Step::Other,
        ] {
            let check = judge("x", &asked(), step, "words");
            assert!(check.exit_code == Some(Lack::Thing) && check.fix.is_some(), "{check:?}");
        }
    }
}
