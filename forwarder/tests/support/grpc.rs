//! A scripted OTLP/gRPC receiver on TCP or a Unix socket: each call gets the next step of the script, then the last one again.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    collections::HashMap,
    io::Read,
    path::Path,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    header::HeaderValue,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    time::Instant,
};

#[derive(Debug, Clone)]
pub enum Call {
    /// Taken; the response message.
    Ok(Vec<u8>),
    /// Refused: code, `grpc-status-details-bin`.
    Status(u16, Option<String>),
    /// A proxy's answer: HTTP status.
    Http(u16),
    /// The connection ends.
    Reset,
    /// No answer at all.
    Hang,
}

#[derive(Debug, Clone)]
pub struct Called {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub compressed: bool,
    pub spans: usize,
    pub at: Instant,
}

#[derive(Clone)]
pub struct GrpcReceiver {
    script: Arc<Mutex<Vec<Call>>>,
    called: Arc<Mutex<Vec<Called>>>,
}

impl GrpcReceiver {
    /// On a free port; its URL.
    pub async fn start(script: Vec<Call>) -> (Self, String) {
        let receiver = Self { script: Arc::new(Mutex::new(script)), called: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        (receiver, url)
    }

    /// On a Unix socket.
    pub fn start_at(path: &Path, script: Vec<Call>) -> Self {
        let receiver = Self { script: Arc::new(Mutex::new(script)), called: Arc::default() };
        let listener = UnixListener::bind(path).unwrap();
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        receiver
    }

    pub fn called(&self) -> Vec<Called> {
        self.called.lock().unwrap().clone()
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(move |request| self.clone().answer(request));
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, std::io::Error>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        assert_eq!(body.len(), 5 + length, "one whole message");
        let mut message = body[5..].to_vec();
        if body[0] == 1 {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(message.as_slice()).read_to_end(&mut plain).unwrap();
            message = plain;
        }
        let traces = ExportTraceServiceRequest::decode(message.as_slice()).unwrap();
        let spans = traces.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum();
        let headers = head.headers.iter().map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned())).collect();
        self.called.lock().unwrap().push(Called {
            path: head.uri.path().to_owned(),
            headers,
            compressed: body[0] == 1,
            spans,
            at: Instant::now(),
        });
        let step = {
            let mut script = self.script.lock().unwrap();
            if script.len() > 1 { script.remove(0) } else { script[0].clone() }
        };
        let mut trailers = HeaderMap::new();
        let (status, message) = match step {
            Call::Ok(message) => {
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                (200, Some(message))
            }
            Call::Status(code, details) => {
                trailers.insert("grpc-status", HeaderValue::from(code));
                trailers.insert("grpc-message", HeaderValue::from_static("as%20scripted"));
                if let Some(details) = details {
                    trailers.insert("grpc-status-details-bin", details.parse().unwrap());
                }
                (200, None)
            }
            Call::Http(status) => (status, None),
            Call::Reset => return Err(std::io::Error::other("as scripted")),
            Call::Hang => std::future::pending().await,
        };
        let frame = message.map(|message| {
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            [&[0], length.as_slice(), message.as_slice()].concat()
        });
        let body = Full::new(Bytes::from(frame.unwrap_or_default())).with_trailers(async move { Some(Ok(trailers)) });
        let body = body.map_err(|never| match never {}).boxed();
        let mut response = Response::new(body);
        *response.status_mut() = status.try_into().unwrap();
        if status == 200 {
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        }
        Ok(response)
    }
}
