//! The other protocols against scripted receivers: OTLP/gRPC and OTLP/JSON, Unix sockets, credentials that change.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/grpc.rs"]
mod grpc;
#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/sample.rs"]
mod sample;

use std::{fs, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use grpc::{Call, GrpcReceiver};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use receiver::{Receiver, Step, ok, until};
use spantap::{
    exchange::Side,
    loss::Reason,
    pipeline::Pipeline,
    telemetry::summary::{DestinationSummary, Summary},
};
use spantap_config::{Compression, Config, Environment, Otlp, OtlpProtocol, Secret};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(30);
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

fn pipeline(change: impl FnOnce(&mut Otlp)) -> Pipeline {
    let mut traces = sample::otlp_traces(String::new());
    change(&mut traces.otlp);
    Pipeline::new(&Config { traces: Some(traces), ..sample::config() }, Arc::default()).unwrap()
}

fn report(pipeline: &mut Pipeline, n: usize) {
    for _ in 0..n {
        pipeline.exchange(&sample::exchange(Side::Server), &sample::clock());
    }
}

async fn five_spans(change: impl FnOnce(&mut Otlp)) -> Summary {
    let mut pipeline = pipeline(change);
    report(&mut pipeline, 5);
    let summary = pipeline.drain(Instant::now() + LONG).await;
    assert!(summary.adds_up(), "{summary:?}");
    summary
}

async fn by_grpc(script: Vec<Call>) -> (GrpcReceiver, Summary) {
    let (receiver, url) = GrpcReceiver::start(script).await;
    let summary = five_spans(|otlp| {
        otlp.protocol = OtlpProtocol::Grpc;
        otlp.endpoint = format!("{url}{METHOD}");
    })
    .await;
    (receiver, summary)
}

fn lost(books: &DestinationSummary, reason: Reason) -> u64 {
    books.lost.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n)
}

fn taken() -> Call {
    Call::Ok(Vec::new())
}

#[tokio::test]
async fn a_call_as_the_specification_wants_it() {
    for compression in [Compression::None, Compression::Gzip] {
        let (receiver, url) = GrpcReceiver::start(vec![taken()]).await;
        let summary = five_spans(|otlp| {
            otlp.protocol = OtlpProtocol::Grpc;
            otlp.endpoint = format!("{url}{METHOD}");
            otlp.compression = compression;
            otlp.headers = vec![
                ("authorization".into(), Secret("Basic abc".into())),
                ("user-agent".into(), Secret("shop/1".into())),
            ];
        })
        .await;
        assert_eq!((summary.traces.exported, summary.losses.len()), (5, 0));
        let [call] = receiver.called().try_into().unwrap();
        let header = |name: &str| call.headers.get(name).map(String::as_str);
        assert_eq!((call.path.as_str(), call.spans), (METHOD, 5));
        assert_eq!(header("content-type"), Some("application/grpc"));
        assert_eq!((header("te"), header("authorization")), (Some("trailers"), Some("Basic abc")));
        assert_eq!(header("grpc-timeout"), Some("2000m"));
        let own = concat!("shop/1 spantap-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));
        assert_eq!(header("user-agent"), Some(own));
        let gzip = compression == Compression::Gzip;
        assert_eq!((call.compressed, header("grpc-encoding").is_some()), (gzip, gzip));
    }
}

/// `google.rpc.Status` with a `RetryInfo` of so many seconds.
fn retry_info(seconds: u8) -> Option<String> {
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let info = [0x0a, 2, 0x08, seconds];
    let any = [&[0x0a, url.len() as u8], url.as_slice(), &[0x12, info.len() as u8], &info].concat();
    Some(STANDARD.encode([&[0x1a, any.len() as u8], any.as_slice()].concat()))
}

#[tokio::test]
async fn transient_failures_are_tried_again() {
    for step in [Call::Status(14, None), Call::Status(4, None), Call::Reset, Call::Http(503), Call::Hang] {
        let what = format!("{step:?}");
        let (receiver, summary) = by_grpc(vec![step, taken()]).await;
        assert_eq!((summary.traces.exported, summary.losses.len(), receiver.called().len()), (5, 0, 2), "{what}");
    }
}

#[tokio::test]
async fn the_pause_that_is_asked_for_is_kept() {
    let (receiver, summary) = by_grpc(vec![Call::Status(8, retry_info(1)), taken()]).await;
    assert_eq!(summary.traces.exported, 5);
    let calls = receiver.called();
    assert!(calls[1].at - calls[0].at >= Duration::from_millis(950));
}

#[tokio::test]
async fn refusals_are_final_and_counted() {
    for step in [
        Call::Status(3, None),
        Call::Status(8, None),
        Call::Status(12, None),
        Call::Status(13, None),
        Call::Status(16, None),
        Call::Http(404),
    ] {
        let what = format!("{step:?}");
        let (receiver, summary) = by_grpc(vec![step]).await;
        assert_eq!((receiver.called().len(), lost(&summary.traces, Reason::ExportRefused)), (1, 5), "{what}");
    }
}

#[tokio::test]
async fn partial_success_is_counted_and_not_repeated() {
    let (receiver, summary) = by_grpc(vec![Call::Ok(b"\x0a\x07\x08\x02\x12\x03old".to_vec())]).await;
    assert_eq!((summary.traces.exported, lost(&summary.traces, Reason::ExportPartial)), (3, 2));
    assert_eq!(receiver.called().len(), 1);
}

#[tokio::test]
async fn json_as_the_specification_wants_it() {
    for compression in [Compression::None, Compression::Gzip] {
        let body = b"{\"partialSuccess\":{\"rejectedSpans\":\"2\",\"errorMessage\":\"old\"}}".to_vec();
        let receiver = Receiver::start(vec![Step::Answer(200, "content-type: application/json\r\n", body)]).await;
        let summary = five_spans(|otlp| {
            otlp.protocol = OtlpProtocol::HttpJson;
            otlp.endpoint = receiver.url("/v1/traces");
            otlp.compression = compression;
        })
        .await;
        assert_eq!((summary.traces.exported, lost(&summary.traces, Reason::ExportPartial)), (3, 2));
        let [request] = receiver.received().try_into().unwrap();
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.headers.contains_key("content-encoding"), compression == Compression::Gzip);
        let request: ExportTraceServiceRequest = serde_json::from_slice(&request.plain()).unwrap();
        assert_eq!(request.resource_spans[0].scope_spans[0].spans.len(), 5);
    }
}

#[tokio::test]
async fn a_response_that_grows_beyond_the_limit_is_refused() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![0; 5 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 64 << 10);
    let receiver = Receiver::start(vec![Step::Answer(503, "content-encoding: gzip\r\n", bomb), ok()]).await;
    let summary = five_spans(|otlp| otlp.endpoint = receiver.url("/v1/traces")).await;
    assert_eq!((lost(&summary.traces, Reason::ExportRefused), receiver.received().len()), (5, 1));
}

#[tokio::test]
async fn a_socket_takes_both() {
    let folder = tempfile::tempdir().unwrap();
    let (rpc, web) = (folder.path().join("grpc"), folder.path().join("http"));
    let receiver = GrpcReceiver::start_at(&rpc, vec![taken()]);
    let summary = five_spans(|otlp| {
        otlp.protocol = OtlpProtocol::Grpc;
        otlp.endpoint = format!("http://localhost{METHOD}");
        otlp.socket = Some(rpc);
    })
    .await;
    assert_eq!((summary.traces.exported, receiver.called().len()), (5, 1));
    let behind = Receiver::start(vec![ok()]).await;
    let listener = tokio::net::UnixListener::bind(&web).unwrap();
    let address = behind.address;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
        }
    });
    let summary = five_spans(|otlp| {
        otlp.endpoint = "http://localhost/v1/traces".into();
        otlp.socket = Some(web);
    })
    .await;
    assert_eq!((summary.traces.exported, behind.received().len()), (5, 1));
}

/// A pipeline whose token stands in a file, by the real configuration.
fn with_token(endpoint: &str, token: &std::path::Path) -> Pipeline {
    let yaml = format!(
        "otel_traces_export: {{endpoint: '{endpoint}', batch_timeout: 10ms}}\n\
         spantap: {{admin: off, otlp: {{headers: {{authorization: 'Bearer ${{file:{}}}'}}}}}}\n",
        token.display()
    );
    let loaded = Config::parse("c.yml".as_ref(), &yaml, &Environment::default()).unwrap();
    let mut config = Config { traces: loaded.config.traces, ..sample::config() };
    config.traces.as_mut().unwrap().backoff.initial = Duration::from_millis(5);
    Pipeline::new(&config, Arc::default()).unwrap()
}

async fn reported(pipeline: &mut Pipeline, what: &str, condition: impl Fn(&Pipeline) -> bool) {
    report(pipeline, 1);
    until(what, || {
        pipeline.tick();
        condition(pipeline)
    })
    .await;
}

#[tokio::test]
async fn refused_credentials_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "old\n").unwrap();
    let no = || Step::Answer(401, "", vec![]);
    let receiver = Receiver::start(vec![ok(), no()]).await;
    let mut pipeline = with_token(&receiver.url("/v1/traces"), &token);
    let sent = || receiver.received().iter().map(|r| r.headers["authorization"].clone()).collect::<Vec<_>>();
    let exported = |n| move |p: &Pipeline| p.telemetry().traces.exported.get() == n;
    reported(&mut pipeline, "taken", exported(1)).await;
    // Refused, and the file still holds the same.
    reported(&mut pipeline, "refused", |p| p.telemetry().traces.refusal().is_some()).await;
    until("asked again with the same", || sent().len() > 3).await;
    assert!(sent().iter().all(|value| value == "Bearer old"));
    fs::write(&token, "new\n").unwrap();
    receiver.behave(vec![no(), ok()]);
    reported(&mut pipeline, "mended", exported(3)).await;
    assert_eq!(sent().last().map(String::as_str), Some("Bearer new"));
    // Gone: what was read last goes on.
    fs::remove_file(&token).unwrap();
    reported(&mut pipeline, "taken", exported(4)).await;
    assert_eq!(sent().last().map(String::as_str), Some("Bearer new"));
    let summary = pipeline.drain(Instant::now() + LONG).await;
    assert_eq!((summary.traces.exported, summary.losses.len()), (4, 0));
}

#[tokio::test]
async fn refused_credentials_are_read_again_for_grpc() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "old\n").unwrap();
    let (receiver, url) = GrpcReceiver::start(vec![Call::Status(16, None), taken()]).await;
    // The port is any: the protocol has to be said.
    let yaml = format!(
        "otel_traces_export: {{endpoint: '{url}', protocol: grpc}}\n\
         spantap: {{otlp: {{headers: {{authorization: 'Bearer ${{file:{}}}'}}}}}}\n",
        token.display()
    );
    let loaded = Config::parse("c.yml".as_ref(), &yaml, &Environment::default()).unwrap();
    fs::write(&token, "new\n").unwrap();
    let config = Config { traces: loaded.config.traces, ..sample::config() };
    let mut pipeline = Pipeline::new(&config, Arc::default()).unwrap();
    report(&mut pipeline, 1);
    let summary = pipeline.drain(Instant::now() + LONG).await;
    assert_eq!((summary.traces.exported, summary.losses.len()), (1, 0));
    let sent: Vec<_> = receiver.called().into_iter().map(|call| call.headers["authorization"].clone()).collect();
    assert_eq!(sent, ["Bearer old", "Bearer new"]);
}
