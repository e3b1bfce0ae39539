//! The stream against a hostile forwarder.
#![allow(clippy::unwrap_used)]

use std::{io::Write as _, time::Instant};

use spantap_proto::v1::ingest_server::{Ingest, IngestServer};
use tokio::{net::UnixListener, task::LocalSet};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Response, Streaming, transport::Server};

use super::*;

fn shared(batches: u8) -> Rc<Shared> {
    let mut queue = Queue::new(1024);
    for n in 0..batches {
        let sequence = queue.next_sequence();
        queue.push(sequence, Bytes::from(vec![0x12, 1, n]), true);
    }
    Rc::new(Shared {
        queue: RefCell::new(queue),
        filled: Notify::new(),
        emptied: Notify::new(),
        began: Notify::new(),
        streaming: Cell::new(false),
    })
}

/// An agent that streams to `socket` while `other` runs.
async fn beside(shared: &Rc<Shared>, socket: PathBuf, other: impl Future<Output = ()>) {
    let destination = Destination { socket, uids: Vec::new() };
    let agent = run(shared.clone(), destination, v1::Hello::default, Bytes::new);
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

/// Acknowledges nonsense when a stream begins, then `honest` for each message.
struct Liar {
    honest: u64,
}

#[tonic::async_trait]
impl Ingest for Liar {
    type StreamStream = ReceiverStream<Result<Acknowledgement, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (answer, answers) = mpsc::channel(16);
        let (mut messages, honest) = (request.into_inner(), self.honest);
        tokio::spawn(async move {
            // Before anything can have been sent: it was never sent, so it is not let go.
            for sequence in [u64::MAX, 0] {
                let _ = answer.send(Ok(Acknowledgement { sequence })).await;
            }
            while let Ok(Some(_)) = messages.message().await {
                let _ = answer.send(Ok(Acknowledgement { sequence: honest })).await;
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
    let server = Server::builder().add_service(IngestServer::new(Liar { honest: 0 }));
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
