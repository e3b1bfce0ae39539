//! An HTTP server on hyper that asks another one for each request, in many ways. In: its own port, the port of the other, and
//! `current` for the runtime with one thread. GET /MODE/in/N asks /MODE/out/N, or /MODE/out/N/0 and so on for several: which request
//! was made for which can be told by the path.

use std::{convert::Infallible, sync::OnceLock, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::sleep,
};

type Pooled = Client<HttpConnector, Empty<Bytes>>;

static OTHER: OnceLock<u16> = OnceLock::new();
static CLIENT: OnceLock<Pooled> = OnceLock::new();
static JOBS: OnceLock<mpsc::UnboundedSender<(String, oneshot::Sender<()>)>> = OnceLock::new();

fn client() -> &'static Pooled {
    CLIENT.get_or_init(|| Client::builder(TokioExecutor::new()).build_http())
}

/// Through the pool: a task of its own has the connection.
async fn ask(path: String) {
    let uri = format!("http://127.0.0.1:{}{path}", OTHER.get().unwrap());
    let Ok(answer) = client().get(uri.parse().unwrap()).await else { return eprintln!("{path} failed") };
    let _ = answer.into_body().collect().await;
}

/// By the task itself, over a connection of its own.
async fn ask_itself(path: String) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", *OTHER.get().unwrap())).await else { return };
    let request = format!("GET {path} HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// One task works for all, and the first request starts it.
async fn give(path: String) {
    let jobs = JOBS.get_or_init(|| {
        let (sender, mut jobs) = mpsc::unbounded_channel::<(String, oneshot::Sender<()>)>();
        tokio::spawn(async move {
            while let Some((path, done)) = jobs.recv().await {
                ask(path).await;
                let _ = done.send(());
            }
        });
        sender
    });
    let (done, is_done) = oneshot::channel();
    let _ = jobs.send((path, done));
    let _ = is_done.await;
}

async fn relay(mode: &str, path: String) {
    match mode {
        "imm" => ask(path).await,
        "two" => {
            ask(format!("{path}/0")).await;
            ask(format!("{path}/1")).await;
        }
        "timer" => {
            sleep(Duration::from_millis(3)).await;
            ask(path).await;
        }
        "spawn" => _ = tokio::spawn(ask(path)).await,
        "three" => {
            let one = |n| ask(format!("{path}/{n}"));
            tokio::join!(one(0), one(1), one(2));
        }
        "itself" => ask_itself(path).await,
        "worker" => give(path).await,
        _ => {}
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let mode = path.split('/').nth(1).unwrap_or_default();
    if path.contains("/in/") {
        relay(mode, path.replacen("/in/", "/out/", 1)).await;
    } else {
        let number: u64 = path.bytes().map(u64::from).sum();
        sleep(Duration::from_millis(1 + number % 5)).await;
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"hello"))))
}

async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let port = arguments[1].parse().unwrap();
    OTHER.set(arguments[2].parse().unwrap()).unwrap();
    let runtime = match arguments.get(3).map(String::as_str) {
        Some("current") => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(4).build(),
    };
    runtime.unwrap().block_on(serve(port));
}
