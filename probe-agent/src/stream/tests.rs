//! The stream against a hostile forwarder.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use spantap_proto::v1::ingest_server::{Ingest, IngestServer};
use tokio::{net::UnixListener, sync::mpsc, task::LocalSet};
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::*;

fn shared(batches: u8) -> Rc<Shared> {
    let mut queue = Queue::new(1024);
    for n in 0..batches {
        let sequence = queue.next_sequence();
        queue.push(sequence, Bytes::from(vec![0x12, 1, n]), true);
    }
    Rc::new(Shared::new(queue))
}

/// An agent that streams to `socket` while `other` runs.
async fn beside(shared: &Rc<Shared>, socket: PathBuf, other: impl Future<Output = ()>) {
    impatient(shared, socket, Patience::default(), other).await;
}

async fn impatient(shared: &Rc<Shared>, socket: PathBuf, patience: Patience, other: impl Future<Output = ()>) {
    let destination = Destination::new(socket, Vec::new());
    let agent = run(shared.clone(), destination, patience, v1::Hello::default, Bytes::new);
    LocalSet::new()
        .run_until(async {
            tokio::select! {
                () = agent => {}
                done = tokio::time::timeout(Duration::from_secs(60), other) => done.unwrap(),
            }
        })
        .await;
}

#[tokio::test]
async fn a_forwarder_that_ends_each_stream_is_not_asked_in_a_loop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ingest.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let shared = shared(3);
    beside(&shared, path, async {
        let begun = Instant::now();
        for answer in
            [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n", &[0xff; 100_000], b"\0\0\x04\x04\0\0\0\0\0\xff\xff\xff\xff", b""]
        {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = stream.into_std().unwrap();
            // It may have hung up already.
            let _ = stream.write_all(answer);
        }
        // 50, 100, 200, 400 ms between the five.
        assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    })
    .await;
    assert_eq!(shared.queue.borrow().bytes(), 9, "nothing was taken over");
}

#[tokio::test]
async fn a_forwarder_that_never_reads_gets_nothing_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ingest.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let shared = shared(200);
    let before = shared.queue.borrow().bytes();
    beside(&shared, path, async {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
        assert!(!shared.streaming.get(), "it has answered nothing");
    })
    .await;
    assert_eq!(shared.queue.borrow().bytes(), before);
}

const SHORT: Patience = Patience {
    answer: Duration::from_millis(400),
    ping: Duration::from_millis(200),
    acknowledgement: Duration::from_millis(800),
};

#[tokio::test]
async fn a_forwarder_that_accepts_and_never_answers_is_left_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ingest.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let shared = shared(3);
    impatient(&shared, path, SHORT, async {
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(listener.accept().await.unwrap());
        }
        // The agent hangs up on each.
        for (stream, _) in &silent[..2] {
            let mut bytes = [0; 4096];
            loop {
                stream.readable().await.unwrap();
                match stream.try_read(&mut bytes) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
                }
            }
        }
        assert!(!shared.streaming.get());
    })
    .await;
    assert_eq!(shared.queue.borrow().bytes(), 9, "nothing was taken over, nothing is let go");
}

/// What one stream to a server of this service ends with.
async fn served(shared: &Rc<Shared>, service: Liar) -> CallError {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(far));
    let server = Server::builder().add_service(IngestServer::new(service)).serve_with_incoming(incoming);
    let server = tokio::spawn(server);
    let ended = stream(shared, SHORT, near, &v1::Hello::default(), Bytes::new()).await;
    server.abort();
    ended.unwrap_err()
}

#[tokio::test]
async fn a_forwarder_that_answers_pings_alone_is_left() {
    let shared = shared(3);
    let error = served(&shared, Liar { honest: 0, says: Says::NothingAtAll }).await;
    assert!(error.to_string().contains("did not answer the hello"), "{error}");
    let error = served(&shared, Liar { honest: 0, says: Says::Nothing }).await;
    assert!(error.to_string().contains("acknowledged nothing"), "{error}");
    shared.queue.borrow_mut().rewind();
    assert_eq!(shared.queue.borrow().bytes(), 9);
}

#[tokio::test]
async fn a_forwarder_that_owes_nothing_may_be_silent() {
    let shared = shared(0);
    let other = async {
        shared.began.notified().await;
        // Several times as long as an acknowledgement may take.
        tokio::time::sleep(SHORT.acknowledgement * 3).await;
    };
    tokio::select! {
        error = served(&shared, Liar { honest: 0, says: Says::Nothing }) => panic!("{error}"),
        () = other => {}
    }
}

#[tokio::test]
async fn an_agent_that_is_replaced_is_told_and_does_not_come_back() {
    let shared = shared(0);
    let error = served(&shared, Liar { honest: 0, says: Says::Another }).await;
    assert!(is_ousted(&Err(error)));
    tokio::time::timeout(SHORT.answer, shared.replaced.notified()).await.expect("it was asked to finish");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ingest.sock");
    let listener = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let server = Server::builder().add_service(IngestServer::new(Liar { honest: 0, says: Says::Another }));
    let taken = Arc::new(AtomicU64::new(0));
    let counter = taken.clone();
    let incoming = listener.map(|stream| {
        counter.fetch_add(1, Ordering::Relaxed);
        stream
    });
    let again = shared.clone();
    beside(&shared, path, async {
        tokio::select! {
            served = server.serve_with_incoming(incoming) => served.unwrap(),
            () = async {
                while !again.ousted.get() {
                    again.emptied.notified().await;
                }
                // Several times as long as it would wait before it tried again.
                tokio::time::sleep(FIRST_PAUSE * 6).await;
            } => {}
        }
    })
    .await;
    assert_eq!(taken.load(Ordering::Relaxed), 1);
}

/// Acknowledges nonsense when a stream begins, then `honest` for each message; or says less.
struct Liar {
    honest: u64,
    says: Says,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    Nonsense,
    /// Takes the stream, acknowledges nothing.
    Nothing,
    /// Does not even take the stream.
    NothingAtAll,
    /// That another agent has come, then that it is heard.
    Another,
}

#[tonic::async_trait]
impl Ingest for Liar {
    type StreamStream = ReceiverStream<Result<Acknowledgement, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        if self.says == Says::NothingAtAll {
            return std::future::pending().await;
        }
        let (answer, answers) = mpsc::channel(16);
        let (mut messages, honest, says) = (request.into_inner(), self.honest, self.says);
        tokio::spawn(async move {
            if says == Says::Nothing {
                while let Ok(Some(_)) = messages.message().await {}
                return answer.closed().await;
            }
            if says == Says::Another {
                let _ = answer.send(Ok(Acknowledgement { sequence: 0, finish: true })).await;
                let _ = answer.send(Err(Status::aborted("another"))).await;
                return;
            }
            // Before anything can have been sent: it was never sent, so it is not let go.
            for sequence in [u64::MAX, 0] {
                let _ = answer.send(Ok(Acknowledgement { sequence, finish: false })).await;
            }
            while let Ok(Some(_)) = messages.message().await {
                let _ = answer.send(Ok(Acknowledgement { sequence: honest, finish: false })).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn health(&self, _: Request<v1::HealthRequest>) -> Result<Response<v1::HealthResponse>, Status> {
        Err(Status::unimplemented("a liar"))
    }
}

#[tokio::test]
async fn acknowledgements_of_nonsense_let_go_only_what_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ingest.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = Server::builder().add_service(IngestServer::new(Liar { honest: 0, says: Says::Nonsense }));
    let server = tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    let shared = shared(50);
    beside(&shared, path, async {
        while !shared.streaming.get() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        shared.emptied.notified().await;
        // What comes now is sent later than the nonsense was said.
        let sequence = shared.queue.borrow_mut().next_sequence();
        shared.queue.borrow_mut().push(sequence, Bytes::from_static(&[0x12, 1, 1]), true);
        let held = shared.queue.borrow().bytes();
        assert!((3..=51 * 3).contains(&held), "{held}");
        shared.filled.notify_one();
        shared.emptied.notified().await;
        assert!(!shared.queue.borrow().is_empty(), "never acknowledged");
    })
    .await;
    server.abort();
}
