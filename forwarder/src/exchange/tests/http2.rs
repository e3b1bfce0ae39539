//! Exports of telemetry by gRPC, and what looks like them.

use std::sync::{Arc, Mutex};

use http_body_util::Empty;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::{collection::vec, prelude::*};
use spantap_config::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::kit::*;
use crate::exchange::{Limits, Side};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const TAKEN: &[u8] = b"\x40\x0bgrpc-status\x010";
const REFUSED: &[u8] = b"\x40\x0bgrpc-status\x0212";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
/// END_STREAM and END_HEADERS.
const LAST: u8 = 5;
const WHOLE: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `:method`, `:scheme`, `:path`, which is put into the table, `te`.
fn asks(path: &str) -> Vec<u8> {
    let mut block = b"\x83\x86\x44".to_vec();
    block.push(path.len() as u8);
    block.extend(path.as_bytes());
    block.extend(b"\x40\x02te\x08trailers");
    block
}

fn call(stream: u32, path: &str, body: &[u8]) -> Vec<u8> {
    [frame(HEADERS, WHOLE, stream, &asks(path)), frame(DATA, 1, stream, body)].concat()
}

fn answer(stream: u32, status: &[u8]) -> Vec<u8> {
    let head = frame(HEADERS, WHOLE, stream, b"\x88");
    [head, frame(DATA, 0, stream, &[0; 5]), frame(HEADERS, LAST, stream, status)].concat()
}

fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0; 6])
}

/// A connection whose beginning was exchanged.
fn begun(client: bool) -> (Socket, Way, Way) {
    let (asking, answering) = if client { (Out, In) } else { (In, Out) };
    let mut s = Socket::new();
    s.moves(asking, &[PREFACE, &settings()].concat()).moves(answering, &settings());
    (s, asking, answering)
}

#[track_caller]
fn exports(s: &mut Socket, expected: &[Signal]) {
    let seen = s.seen();
    assert_eq!(seen.lines(), ["http2_not_read 1"]);
    let found: Vec<_> = seen.exports.iter().map(|(_, signal)| *signal).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_export_that_was_taken_is_told() {
    for (client, side) in [(true, Side::Client), (false, Side::Server)] {
        let (mut s, asking, answering) = begun(client);
        s.moves(asking, &call(1, TRACES, b"spans")).moves(answering, &answer(1, TAKEN));
        s.moves(asking, &call(3, METRICS, b"points")).moves(answering, &answer(3, TAKEN));
        assert_eq!(s.seen().exports, [(side, Signal::Traces), (side, Signal::Metrics)]);
    }
}

#[test]
fn what_was_not_taken_and_what_is_no_export_is_not_told() {
    let (mut s, asking, answering) = begun(true);
    s.moves(asking, &call(1, TRACES, b"spans")).moves(answering, &answer(1, REFUSED));
    s.moves(asking, &call(3, "/opentelemetry.proto.collector.logs.v1.LogsService/Export", b"lines"));
    s.moves(answering, &answer(3, TAKEN));
    s.moves(asking, &call(5, &TRACES[1..], b"spans")).moves(answering, &answer(5, TAKEN));
    // Never answered.
    s.moves(asking, &call(7, TRACES, b"spans"));
    exports(&mut s, &[]);
    // Once it is, fields are referred to by their place in the table.
    let (mut s, asking, answering) = begun(true);
    s.moves(asking, &call(1, TRACES, b"spans")).moves(answering, &answer(1, REFUSED));
    s.moves(asking, &[frame(HEADERS, WHOLE, 3, b"\x83\x86\xbf\xbe"), frame(DATA, 1, 3, b"spans")].concat());
    s.moves(answering, &[frame(PING, 0, 0, &[0; 8]), answer(3, b"\x7e\x010")].concat());
    exports(&mut s, &[Signal::Traces]);
    // A server was asked, whatever it said.
    let (mut s, asking, answering) = begun(false);
    s.moves(asking, &call(1, TRACES, b"spans")).moves(answering, &answer(1, REFUSED));
    exports(&mut s, &[Signal::Traces]);
}

#[test]
fn blocks_in_frames_of_all_kinds() {
    let block = asks(TRACES);
    let (first, second) = block.split_at(20);
    let padded = [&[3, 0, 0, 0, 0, 9][..], &block, &[0; 3]].concat();
    let asked = [
        frame(HEADERS, WHOLE | 0x28, 1, &padded),
        [frame(HEADERS, 0, 1, first), frame(CONTINUATION, 0, 1, &[]), frame(CONTINUATION, WHOLE, 1, second)].concat(),
        [frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, WHOLE, 1, &block)].concat(),
    ];
    for asked in asked {
        let (mut s, asking, answering) = begun(true);
        s.moves(asking, &asked).moves(answering, &answer(1, TAKEN));
        exports(&mut s, &[Signal::Traces]);
    }
    // Against the rules, or of no use to gRPC: nothing is known from there on.
    let strange = [
        [frame(HEADERS, 0, 1, first), frame(PING, 0, 0, &[0; 8]), frame(CONTINUATION, WHOLE, 1, second)].concat(),
        [frame(HEADERS, 0, 1, first), frame(CONTINUATION, WHOLE, 3, second)].concat(),
        frame(CONTINUATION, WHOLE, 1, &block),
        [frame(PUSH_PROMISE, WHOLE, 1, &[0; 5]), call(1, TRACES, b"")].concat(),
        [frame(HEADERS, WHOLE, 0, &block), call(1, TRACES, b"")].concat(),
        [frame(HEADERS, WHOLE, 1, b"\xff\xff\xff\xff\xff"), call(1, TRACES, b"")].concat(),
        [frame(HEADERS, WHOLE | 0x28, 1, &[200, 0, 0, 0]), frame(HEADERS, WHOLE, 3, b"\xbe")].concat(),
    ];
    for asked in strange {
        let (mut s, asking, answering) = begun(true);
        s.moves(asking, &asked).moves(answering, &answer(1, TAKEN));
        exports(&mut s, &[]);
    }
}

/// A send is told when its call returns, and by then its answer may have been read.
#[test]
fn a_response_that_is_told_first() {
    let (mut s, asking, answering) = begun(true);
    s.moves(asking, &call(1, TRACES, b"spans")).moves(answering, &answer(1, TAKEN));
    s.events.swap(2, 3);
    exports(&mut s, &[Signal::Traces]);
    // The first of all.
    let (mut s, asking, answering) = begun(true);
    s.moves(asking, &call(1, TRACES, b"spans")).moves(answering, &answer(1, TAKEN));
    s.events.swap(0, 1);
    s.events.swap(2, 3);
    exports(&mut s, &[Signal::Traces]);
}

#[test]
fn bytes_that_nobody_saw() {
    // Of a body.
    let (mut s, asking, answering) = begun(true);
    let body = vec![0; 100_000];
    let (first, second) = (call(1, "/other", &body), call(3, TRACES, b"spans"));
    s.moves(asking, &first[..200]).unseen(asking, first.len() as u64 - 200).moves(asking, &second);
    s.moves(answering, &answer(3, TAKEN));
    exports(&mut s, &[Signal::Traces]);
    // Of a frame's head.
    let (mut s, asking, answering) = begun(true);
    s.unseen(asking, 17).moves(asking, &call(1, TRACES, b"spans")).moves(answering, &answer(1, TAKEN));
    exports(&mut s, &[]);
    // Of a body and of all behind it.
    let (mut s, asking, answering) = begun(true);
    s.capture = 110;
    s.moves(asking, &call(1, TRACES, &body));
    s.moves(asking, &call(3, METRICS, b"points"));
    s.capture = 4096;
    s.moves(answering, &[answer(1, TAKEN), answer(3, TAKEN)].concat());
    exports(&mut s, &[Signal::Traces]);
    // Of the end of a block: the path stands before. Nothing later is known.
    let (mut s, asking, answering) = begun(true);
    s.capture = 75;
    s.moves(asking, &call(1, TRACES, &body));
    s.capture = 4096;
    s.moves(answering, &answer(1, TAKEN))
        .moves(asking, &call(3, METRICS, b"points"))
        .moves(answering, &answer(3, TAKEN));
    exports(&mut s, &[Signal::Traces]);
    // Of what was before: nobody knows where a frame begins, or what the table holds.
    let mut s = Socket::new();
    s.unseen(Out, 1000).unseen(In, 1000).moves(Out, &call(1, TRACES, b"spans")).moves(In, &answer(1, TAKEN));
    assert_eq!(s.seen().exports, []);
}

/// What is kept of such a connection is bounded, and given back.
#[test]
fn what_is_kept_is_bounded() {
    let (mut s, asking, answering) = begun(true);
    for n in 0..500_u32 {
        let block = [&b"\x40\x01a\x01b"[..], &asks(TRACES)].concat();
        s.moves(asking, &frame(HEADERS, WHOLE, 2 * n + 1, &block));
        s.moves(answering, &answer(2001 + 2 * n, TAKEN));
    }
    s.moves(asking, &frame(HEADERS, 0, 3001, &[0x83; 3000]));
    s.moves(asking, &frame(CONTINUATION, 0, 3001, &[0x83; 3000]));
    let mut bench = Bench::new(Limits::default());
    for mut event in std::mem::take(&mut s.events) {
        event.opaque = false;
        bench.feed([event]);
        assert!(bench.table.stats().bytes < 16 << 10, "{:?}", bench.table.stats());
    }
    s.moves(asking, b"\0").events[0].opaque = true;
    bench.feed(s.events);
    assert_eq!((bench.table.stats().connections, bench.table.stats().bytes), (0, 0));
    // Where there is no room it is not kept, and the connection is not counted again.
    let (mut s, asking, answering) = begun(true);
    s.moves(asking, &call(1, TRACES, b"spans")).moves(answering, &answer(1, TAKEN));
    let mut bench = Bench::new(Limits { bytes: 100, ..Limits::default() });
    bench.feed(s.events);
    assert_eq!((bench.table.stats().bytes, bench.seen.lines()), (0, vec!["http2_not_read 1".to_owned()]));
    assert_eq!(bench.seen.exports, []);
}

/// Copies what goes one way, and writes it down.
async fn relay(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, way: Way, log: Log) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        log.lock().unwrap().push((way, bytes[..count].to_vec()));
        to.write_all(&bytes[..count]).await.unwrap();
    }
}

type Log = Arc<Mutex<Vec<(Way, Vec<u8>)>>>;

/// Serves exports as if each were taken.
async fn serve(end: DuplexStream) {
    let service = hyper::service::service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, std::convert::Infallible>(
            Response::builder().header("grpc-status", "0").body(Empty::<bytes::Bytes>::new()).unwrap(),
        )
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(end), service)
        .await
        .ok();
}

/// What hyper, and so tonic, writes: texts by Huffman's code.
#[tokio::test]
async fn what_a_real_client_writes() {
    let log = Log::default();
    let ((client, near), (far, server)) = (tokio::io::duplex(4096), tokio::io::duplex(4096));
    let ((from_client, to_client), (from_server, to_server)) = (tokio::io::split(near), tokio::io::split(far));
    tokio::spawn(serve(server));
    tokio::spawn(relay(from_client, to_server, Out, log.clone()));
    tokio::spawn(relay(from_server, to_client, In, log.clone()));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    for path in ["/other", TRACES, METRICS] {
        let request = Request::post(format!("http://collector:4317{path}")).header("te", "trailers");
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "0");
    }
    let mut s = Socket::new();
    for (way, bytes) in log.lock().unwrap().iter() {
        s.moves(*way, bytes);
    }
    exports(&mut s, &[Signal::Traces, Signal::Metrics]);
}

/// A call: what it exports and whether it was taken, how large it is, and whether its body looks like an export.
fn calls() -> impl Strategy<Value = Vec<(Option<Signal>, bool, usize, bool)>> {
    let signal = prop_oneof![Just(None), Just(Some(Signal::Traces)), Just(Some(Signal::Metrics))];
    vec((signal, any::<bool>(), 0_usize..300, any::<bool>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// However the calls are cut, captured and lost: what is told was exported, and all that was seen is told.
    #[test]
    fn nothing_else_is_told(
        calls in calls(),
        cuts in vec(1_usize..200, 1..20),
        keep in vec(prop::bool::weighted(0.8), 60),
        capture in prop::sample::select(vec![30_usize, 80, 200, 4096]),
        (client, all, by_frames) in any::<(bool, bool, bool)>(),
    ) {
        let (mut s, asking, answering) = begun(client);
        let capture = if all { 1 << 20 } else { capture };
        let mut cuts = cuts.into_iter().cycle();
        let mut truth = Vec::new();
        for (n, (signal, taken, size, alike)) in calls.into_iter().enumerate() {
            let stream = 2 * n as u32 + 1;
            let body = if alike {
                [call(stream, TRACES, b""), answer(stream, TAKEN)].concat().repeat(1 + size / 200)
            } else {
                vec![1; size]
            };
            let path = signal.map_or("/other", |signal| if signal == Signal::Traces { TRACES } else { METRICS });
            truth.extend(signal.filter(|_| taken || !client));
            for (way, bytes) in
                [(asking, call(stream, path, &body)), (answering, answer(stream, if taken { TAKEN } else { REFUSED }))]
            {
                let mut rest = &bytes[..];
                // Or where frames begin, those in the body as well: to lose the head of the one around them.
                let head = 9 + asks(path).len();
                let (one, other) = (call(stream, TRACES, b"").len(), answer(stream, TAKEN).len());
                let mut frames = [head, 9].into_iter().chain([one, other].into_iter().cycle());
                while !rest.is_empty() {
                    let cut = if by_frames { frames.next() } else { cuts.next() };
                    let (piece, after) = rest.split_at(cut.unwrap().min(rest.len()));
                    s.capture = capture;
                    s.moves(way, piece);
                    rest = after;
                }
            }
        }
        if !all {
            let mut keep = keep.into_iter().cycle();
            s.events.retain(|_| keep.next().unwrap());
        }
        let found: Vec<_> = s.seen().exports.into_iter().map(|(_, signal)| signal).collect();
        if all {
            prop_assert_eq!(&found, &truth);
        }
        let mut truth = truth.into_iter();
        prop_assert!(found.iter().all(|signal| truth.any(|of| of == *signal)), "{:?}", found);
    }

    /// Whatever follows the preface.
    #[test]
    fn any_bytes(
        pieces in vec((any::<bool>(), vec(prop_oneof![Just(0_u8), Just(1), Just(4), Just(0x40), any::<u8>()], 1..200)), 0..40),
        frames: bool,
    ) {
        let (mut s, asking, answering) = begun(true);
        for (way, bytes) in pieces {
            let kind = bytes[0] % 10;
            let bytes = if frames { frame(kind, bytes.get(1).copied().unwrap_or(4), 1, &bytes) } else { bytes };
            s.moves(if way { asking } else { answering }, &bytes);
        }
        let seen = s.seen();
        prop_assert_eq!(seen.lines(), ["http2_not_read 1"]);
        prop_assert_eq!(seen.exports, []);
    }
}
