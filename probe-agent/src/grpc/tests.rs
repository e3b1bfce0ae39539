//! The client against servers of `h2`, with mistakes that a forwarder could make or mean.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::BytesMut;
use h2::server;
use http::Response;
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

use super::*;

const METHOD: &str = "/spantap.v1.Ingest/Health";

type Handshake = server::Connection<DuplexStream, Bytes>;

/// A client's end, and a server whose window is `window` bytes.
async fn pair(window: u32) -> (Client, Handshake) {
    let (near, far) = duplex(64 * 1024);
    let mut server = server::Builder::new();
    server.initial_window_size(window);
    let (client, server) = tokio::join!(Client::open(near), server.handshake(far));
    (client.unwrap(), server.unwrap())
}

fn head(fields: &[(&'static str, &'static str)]) -> Response<()> {
    let mut response = Response::builder().header("content-type", "application/grpc");
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap()
}

fn trailers(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))])
}

/// What the client makes of an answer with this head, body and trailers.
async fn answer(head: Response<()>, body: &'static [u8], trailers: Option<HeaderMap>) -> Result<Bytes, CallError> {
    let (client, mut server) = pair(65_535).await;
    let serve = async move {
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        let ends = body.is_empty() && trailers.is_none();
        let mut send = respond.send_response(head, ends).unwrap();
        if !ends {
            send.send_data(Bytes::from_static(body), trailers.is_none()).unwrap();
        }
        if let Some(trailers) = trailers {
            send.send_trailers(trailers).unwrap();
        }
        // Nothing more comes; this moves the frames.
        while server.accept().await.is_some() {}
    };
    let asked = async {
        let (sender, waiting, _alive) = client.call(METHOD).await?;
        sender.finish();
        let mut answers = waiting.answers(16).await?;
        let first = answers.next().await?.ok_or(CallError::Protocol("no message"))?;
        answers.next().await.map(|second| {
            assert!(second.is_none());
            first
        })
    };
    tokio::select! {
        answer = asked => answer,
        () = serve => panic!("the server ended first"),
    }
}

#[tokio::test]
async fn a_long_message_passes_a_small_window_and_the_request_is_grpcs() {
    let (client, mut server) = pair(1000).await;
    let message = Bytes::from((0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    let serve = async {
        let (request, mut respond) = server.accept().await.unwrap().unwrap();
        let moved = tokio::spawn(async move { while server.accept().await.is_some() {} });
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, METHOD));
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let (mut body, mut taken) = (request.into_body(), BytesMut::new());
        while let Some(part) = body.data().await {
            let part = part.unwrap();
            body.flow_control().release_capacity(part.len()).unwrap();
            taken.extend_from_slice(&part);
        }
        let mut send = respond.send_response(head(&[]), false).unwrap();
        send.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, b'o', b'k']), false).unwrap();
        send.send_trailers(trailers("0")).unwrap();
        (taken, moved)
    };
    let asked = async {
        let (mut sender, waiting, alive) = client.call(METHOD).await.unwrap();
        sender.send(message.clone()).await.unwrap();
        sender.finish();
        let mut answers = waiting.answers(16).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), &b"ok"[..]);
        assert!(answers.next().await.unwrap().is_none());
        drop(alive);
    };
    let ((taken, moved), ()) = tokio::join!(serve, asked);
    moved.await.unwrap();
    assert_eq!(taken[..5], [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
    assert_eq!(taken[5..], message);
}

#[tokio::test]
async fn what_the_other_end_does_not_take_is_not_sent() {
    let (client, mut server) = pair(1000).await;
    let serve = async {
        let (request, _respond) = server.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while server.accept().await.is_some() {} });
        let (mut body, mut taken) = (request.into_body(), 0);
        while taken < 1000 {
            taken += body.data().await.unwrap().unwrap().len();
        }
        taken
    };
    let (mut sender, _waiting, _alive) = client.call(METHOD).await.unwrap();
    tokio::select! {
        sent = sender.send(Bytes::from(vec![0; 100_000])) => panic!("sent through a closed window: {sent:?}"),
        taken = serve => assert_eq!(taken, 1000),
    }
}

#[tokio::test]
async fn a_status_is_told_as_it_was_said() {
    let denied = head(&[("grpc-status", "7"), ("grpc-message", "not%20you")]);
    for (body, trailers) in [(&b""[..], None), (b"ignored", None)] {
        let refused = answer(head_of(&denied), body, trailers).await.unwrap_err();
        assert!(matches!(&refused, CallError::Refused(status) if status.code == Code::PERMISSION_DENIED), "{refused}");
        assert_eq!(refused.to_string(), "PERMISSION_DENIED: not you");
    }
    let late = answer(head(&[]), &[0, 0, 0, 0, 0], Some(trailers("14"))).await.unwrap_err();
    assert!(matches!(&late, CallError::Refused(status) if status.to_string() == "UNAVAILABLE: "), "{late}");
    assert_eq!(answer(head(&[]), &[0, 0, 0, 0, 1, 9], Some(trailers("0"))).await.unwrap(), &[9][..]);
}

fn head_of(response: &Response<()>) -> Response<()> {
    let mut copy = Response::new(());
    *copy.headers_mut() = response.headers().clone();
    copy
}

#[tokio::test]
async fn what_is_not_grpc_is_said_to_be() {
    let mut not_found = head(&[]);
    *not_found.status_mut() = http::StatusCode::NOT_FOUND;
    let html = Response::builder().header("content-type", "text/html").body(()).unwrap();
    for (head, body, trailers, expected) in [
        (not_found, &b""[..], None, "the HTTP status is not 200"),
        (html, b"", None, "the content type is not application/grpc"),
        (head(&[]), b"", None, "without a status"),
        (head(&[]), &[0, 0, 0, 0, 0], Some(HeaderMap::new()), "without a status"),
        (head(&[]), &[0, 0, 0, 0, 9, 1], Some(trailers("0")), "within a message"),
        (head(&[]), &[1, 0, 0, 0, 0], Some(trailers("0")), "compressed"),
        (head(&[]), &[0, 0, 0, 0, 17], None, "too long"),
        (head(&[("grpc-status", "0")]), b"", None, "no answer"),
        (head(&[]), b"", Some(trailers("x")), "no number"),
    ] {
        let error = answer(head, body, trailers).await.unwrap_err();
        assert!(matches!(&error, CallError::Protocol(what) if what.contains(expected)), "{expected}: {error:?}");
    }
}

#[tokio::test]
async fn interim_responses_without_end_are_not_taken() {
    let (near, mut far) = duplex(64 * 1024);
    let client = Client::open(near).await.unwrap();
    // HEADERS of stream 1 with ":status: 100", again and again (literal without indexing, name 8 of the static table).
    let interim = [0, 0, 5, 1, 4, 0, 0, 0, 1, 0x08, 3, b'1', b'0', b'0'];
    let (read, mut write) = tokio::io::split(&mut far);
    let mut read = read;
    let asked = async {
        let (_sender, waiting, _alive) = client.call(METHOD).await?;
        waiting.answers(16).await
    };
    let flood = async {
        use tokio::io::AsyncWriteExt as _;
        let mut preface = [0; 24];
        read.read_exact(&mut preface).await.unwrap();
        write.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        // The request first: what comes for a stream that is not there is another mistake.
        let mut frame = [0; 9];
        loop {
            read.read_exact(&mut frame).await.unwrap();
            let length = usize::from(frame[1]) << 8 | usize::from(frame[2]);
            let mut content = vec![0; length];
            read.read_exact(&mut content).await.unwrap();
            if frame[3] == 1 {
                break;
            }
        }
        while write.write_all(&interim).await.is_ok() {}
        pending::<()>().await;
    };
    let error = tokio::select! {
        answer = asked => answer.unwrap_err(),
        () = flood => unreachable!(),
    };
    assert!(matches!(error, CallError::Protocol("an interim response")), "{error:?}");
}

#[tokio::test]
async fn silence_is_noticed_and_life_too() {
    let (near, _far) = duplex(64 * 1024);
    let patience = Duration::from_millis(20);
    let (_sender, _waiting, mut alive) = Client::open(near).await.unwrap().call(METHOD).await.unwrap();
    let silent = alive.watch(patience, patience).await;
    assert!(matches!(silent, CallError::Silent { .. }), "{silent:?}");
    assert_eq!(
        silent.to_string(),
        "the other end took the connection, but for 0.02 s it answered nothing (HTTP/2 ping)"
    );

    let (client, mut server) = pair(65_535).await;
    let (_sender, _waiting, mut alive) = client.call(METHOD).await.unwrap();
    tokio::spawn(async move {
        let _request = server.accept().await;
        // Answers some pings, then hangs up.
        let _ = timeout(Duration::from_millis(200), server.accept()).await;
    });
    let gone = alive.watch(Duration::from_millis(1), Duration::from_secs(60)).await;
    assert!(matches!(gone, CallError::Broken(_)), "{gone:?}");
}
