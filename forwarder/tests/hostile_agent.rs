//! Hostile bytes on the real ingest socket of the real program: it lives, stays small, and answers a real agent's stream
//! afterwards.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use spantap_proto::{
    PROTOCOL_VERSION,
    v1::{self, AgentMessage, agent_message::Body, ingest_client::IngestClient},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Far more than it needs, far less than it would take to hold what is thrown at it.
const MOST_KIB: u64 = 100 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Longer than a connection may be silent, and a little.
const SILENCE: Duration = Duration::from_secs(20);

struct Forwarder {
    child: Child,
    folder: tempfile::TempDir,
}

impl Forwarder {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_spantap"));
        for (name, _) in std::env::vars_os() {
            if ["OTEL_", "BEYLA_", "SPANTAP_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
                command.env_remove(name);
            }
        }
        command.arg("forward").env("SPANTAP_SOCKET", folder.path().join("run/ingest.sock")).env("SPANTAP_ADMIN", "off");
        command.env("SPANTAP_CONSOLE", "text").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let forwarder = Forwarder { child: command.spawn().unwrap(), folder };
        let path = forwarder.path();
        wait("the socket", Duration::from_secs(20), || UnixStream::connect(&path).ok());
        forwarder
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run/ingest.sock")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Writes all of it, or as much as the other end takes.
    fn throw(&self, bytes: &[u8]) -> UnixStream {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        stream
    }

    /// Most memory that it has had, KiB.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn check(&mut self, after: &str) {
        assert!(self.child.try_wait().unwrap().is_none(), "it has ended after {after}");
        assert!(self.peak() < MOST_KIB, "{} KiB after {after}", self.peak());
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn channel(path: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://spantap.invalid").connect_with_connector(connector).await
}

fn hello() -> v1::Hello {
    v1::Hello { protocol_version: PROTOCOL_VERSION, agent_run: 1, ..Default::default() }
}

fn message(body: Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

/// A stream of these messages, until the first answer (an acknowledgement, or why not) or its end.
async fn stream(path: &Path, messages: Vec<AgentMessage>) -> Result<Option<u64>, tonic::Status> {
    let channel = channel(path).await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let mut client = IngestClient::new(channel).max_encoding_message_size(64 << 20);
    let (send, outgoing) = mpsc::channel(64);
    let sender = tokio::spawn(async move {
        for message in messages {
            if send.send(message).await.is_err() {
                return;
            }
        }
        // Kept open: a stream that ends is told apart from one that is not answered.
        send.closed().await;
    });
    let answer = async {
        let mut answers = client.stream(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(answers.message().await?.map(|acknowledgement| acknowledgement.sequence))
    };
    let answer = tokio::time::timeout(SILENCE, answer).await;
    sender.abort();
    answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer")))
}

/// What an agent does, to its end: the batch is acknowledged. Tries again while there is no room for its connection.
async fn works(forwarder: &mut Forwarder, after: &str) {
    let batch = v1::Batch { sequence: 7, ..Default::default() }.encode_to_vec();
    let good = vec![message(Body::Hello(hello().encode_to_vec().into())), message(Body::Batch(batch.into()))];
    let end = Instant::now() + SILENCE;
    loop {
        match stream(&forwarder.path(), good.clone()).await {
            Ok(Some(7)) => break,
            other => assert!(Instant::now() < end, "after {after}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    forwarder.check(after);
}

/// Bytes that look like nothing, the same at each run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

#[tokio::test]
async fn bytes_that_are_no_http2() {
    let mut forwarder = Forwarder::start();
    let noise = noise(1 << 20);
    for chunk in noise.chunks(100_000) {
        drop(forwarder.throw(chunk));
    }
    works(&mut forwarder, "noise").await;
    for chunk in noise.chunks(50_000) {
        drop(forwarder.throw(&[PREFACE, chunk].concat()));
    }
    works(&mut forwarder, "noise behind a preface").await;
    // Frames of right form: settings, pings and resets without end; a head that is continued without end.
    let ping = frame(6, 0, 0, &[0; 8]).repeat(200_000);
    drop(forwarder.throw(&[PREFACE, &ping].concat()));
    let reset: Vec<u8> = (0..50_000_u32)
        .flat_map(|n| {
            [frame(1, 4, 2 * n + 1, &[0x83, 0x86, 0x84, 0x41, 1, b'a']), frame(3, 0, 2 * n + 1, &[0; 4])].concat()
        })
        .collect();
    drop(forwarder.throw(&[PREFACE, &reset].concat()));
    let fields = [&[0x40, 10][..], b"xxxxxxxxxx", &[100], &[b'v'; 100]].concat().repeat(100);
    let endless = [frame(1, 0, 1, &fields), frame(9, 0, 1, &fields).repeat(3000)].concat();
    drop(forwarder.throw(&[PREFACE, &endless].concat()));
    works(&mut forwarder, "frames without end").await;
}

#[tokio::test]
async fn messages_of_the_wrong_kind_and_size() {
    let mut forwarder = Forwarder::start();
    let path = forwarder.path();
    let batch = |batch: &v1::Batch| message(Body::Batch(batch.encode_to_vec().into()));
    let good = message(Body::Hello(hello().encode_to_vec().into()));
    let first = |first: AgentMessage| stream(&path, vec![first]);
    for (what, wrong) in [
        ("no hello", batch(&v1::Batch::default())),
        ("nothing", AgentMessage { body: None }),
        ("a hello of noise", message(Body::Hello(noise(1000).into()))),
        ("another version", message(Body::Hello(v1::Hello { protocol_version: 99, ..hello() }.encode_to_vec().into()))),
        ("a long hello", message(Body::Hello(vec![0x2a; 3 << 20].into()))),
        ("a giant", message(Body::Hello(vec![0; 32 << 20].into()))),
    ] {
        let answer = first(wrong).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
        works(&mut forwarder, what).await;
    }
    // Two bytes each on the wire.
    let processes = v1::Batch { processes: vec![v1::Process::default(); 2_000_000], ..Default::default() };
    let names = (0..300_000).map(|n| (n.to_string(), String::new())).collect();
    let words = v1::Process { environment: names, ..Default::default() };
    let words = v1::Batch { processes: vec![words], ..Default::default() };
    let features = v1::Hello { features: vec![v1::Feature::default(); 2_000_000], ..hello() };
    assert!(first(message(Body::Hello(features.encode_to_vec().into()))).await.is_err());
    let noise = message(Body::Batch(Bytes::from(noise(100_000))));
    let mut many = vec![good];
    for _ in 0..5 {
        many.extend([batch(&processes), batch(&words), noise.clone()]);
    }
    many.push(batch(&v1::Batch { sequence: 9, ..Default::default() }));
    assert_eq!(stream(&path, many).await.unwrap(), Some(9), "what breaks the rules is left out, the rest is taken");
    works(&mut forwarder, "batches of many parts").await;
    // Many large processes, told under ever other ids.
    let mut many = vec![message(Body::Hello(hello().encode_to_vec().into()))];
    for round in 0..40_u32 {
        let large = |n| v1::Process {
            id: round * 64 + n,
            environment: (0..64).map(|n| (format!("OTEL_{n}"), "x".repeat(900))).collect(),
            ..Default::default()
        };
        many.push(batch(&v1::Batch { processes: (0..64).map(large).collect(), ..Default::default() }));
    }
    many.push(batch(&v1::Batch { sequence: 3, ..Default::default() }));
    assert_eq!(stream(&path, many).await.unwrap(), Some(3));
    works(&mut forwarder, "large processes").await;
}

#[tokio::test]
async fn requests_that_stay_open_and_heads_that_do_not_end() {
    let mut forwarder = Forwarder::start();
    let path = forwarder.path();
    let target = "x".repeat(8000);
    let whole = Bytes::from(format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let unfinished = Bytes::from(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {target}"));
    let mut time = 0;
    for (what, head, round) in [("open requests", &whole, 1), ("heads without end", &unfinished, 2)] {
        // 160 MB of each, each on a connection of its own.
        for part in 0..4_u64 {
            let mut messages = vec![message(Body::Hello(hello().encode_to_vec().into()))];
            for first in (0..5000).step_by(250) {
                let event = |n: u64| v1::SocketEvent {
                    socket: round << 32 | part << 16 | n,
                    kind: v1::EventKind::Receive.into(),
                    time_ns: time + n,
                    turn: 1,
                    length: head.len() as u32,
                    head: head.clone(),
                    ..Default::default()
                };
                let events = (first..first + 250).map(event).collect();
                messages.push(message(Body::Batch(v1::Batch { events, ..Default::default() }.encode_to_vec().into())));
                time += 1000;
            }
            let sequence = round * 100 + part;
            messages.push(message(Body::Batch(v1::Batch { sequence, ..Default::default() }.encode_to_vec().into())));
            assert_eq!(stream(&path, messages).await.unwrap(), Some(sequence));
            forwarder.check(what);
        }
    }
    works(&mut forwarder, "all of them").await;
}

#[tokio::test]
async fn connections_that_wait() {
    let mut forwarder = Forwarder::start();
    // Silent ones, more than there is room for; some say the beginning of something.
    let mut silent: Vec<_> =
        (0..100).map(|n| forwarder.throw(PREFACE.get(..n % PREFACE.len()).unwrap_or_default())).collect();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", forwarder.child.id())).unwrap().count();
    assert!(descriptors < 50, "{descriptors} descriptors");
    works(&mut forwarder, "silent connections").await;
    // Those that are left are closed by the other end, without a word from here.
    let end = Instant::now() + SILENCE;
    for stream in &mut silent {
        let mut bytes = [0; 1024];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                _ => assert!(Instant::now() < end, "a silent connection stays open"),
            }
        }
    }
    // One byte at a time is not more of a stream than silence.
    let mut slow = forwarder.connect();
    let begun = Instant::now();
    let bytes = [PREFACE, &frame(6, 0, 0, &[0; 8]).repeat(1000)].concat();
    let closed = bytes.iter().any(|byte| {
        std::thread::sleep(Duration::from_millis(50));
        slow.write_all(&[*byte]).is_err()
    });
    assert!(closed && begun.elapsed() < SILENCE, "{:?}", begun.elapsed());
    works(&mut forwarder, "a slow one").await;
}
