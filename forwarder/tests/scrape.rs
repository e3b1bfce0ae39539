//! The scrape endpoint over real connections: who is let in, TLS, compression, many series in pieces.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/sample.rs"]
mod sample;

use std::{io::Read, net::SocketAddr, sync::Arc, time::Duration};

use flate2::read::GzDecoder;
use spantap::{exchange::Side, pipeline::Pipeline};
use spantap_config::{Config, Feature, Features, Prometheus, Scrape, Secret};
use tokio::time::Instant;

fn config(scrape: Scrape) -> Config {
    let prometheus = Prometheus {
        port: 0,
        path: "/metrics".into(),
        features: Features::of(&[Feature::Application]),
        duration_buckets: sample::BUCKETS.to_vec(),
        request_size_buckets: sample::SIZE_BUCKETS.to_vec(),
        response_size_buckets: sample::SIZE_BUCKETS.to_vec(),
        ttl: Duration::from_secs(300),
        scrape,
    };
    Config { prometheus: Some(prometheus), ..sample::config() }
}

fn start(scrape: Scrape) -> (Pipeline, SocketAddr) {
    let pipeline = Pipeline::new(&config(scrape), Arc::default()).unwrap();
    let port = pipeline.scrape_address().unwrap().port();
    (pipeline, ([127, 0, 0, 1], port).into())
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

fn credentials() -> Scrape {
    Scrape { basic_auth: Some(("scraper".into(), Secret("s3cret".into()))), ..Default::default() }
}

#[tokio::test]
async fn only_who_gives_the_password_is_let_in() {
    let (mut pipeline, address) = start(credentials());
    pipeline.exchange(&sample::exchange(Side::Server), &sample::clock());
    let url = format!("http://{address}/metrics");
    let without = client().get(&url).send().await.unwrap();
    assert_eq!(without.status(), 401);
    assert!(without.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    assert!(!without.text().await.unwrap().contains("http_server"));
    let wrong = client().get(&url).basic_auth("scraper", Some("S3cret")).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    // Nor is it told which paths there are.
    assert_eq!(client().get(format!("http://{address}/")).send().await.unwrap().status(), 401);
    let right = client().get(&url).basic_auth("scraper", Some("s3cret")).send().await.unwrap();
    assert_eq!(right.status(), 200);
    assert!(right.text().await.unwrap().contains("http_server_request_duration_seconds_count{"));
}

#[tokio::test]
async fn tls() {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let (mut pipeline, address) = start(Scrape { tls: Some((certificate.clone(), key.clone())), ..credentials() });
    let root = reqwest::Certificate::from_pem(own.cert.pem().as_bytes()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trusting = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    let url = format!("https://localhost:{}/metrics", address.port());
    assert_eq!(trusting.get(&url).send().await.unwrap().status(), 401);
    let answer = trusting.get(&url).basic_auth("scraper", Some("s3cret")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(client().get(format!("http://{address}/metrics")).send().await.is_err(), "nothing in clear");

    // Another certificate in the files, and another password, by a reload; the same address.
    let renewed = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(&certificate, renewed.cert.pem()).unwrap();
    std::fs::write(&key, renewed.signing_key.serialize_pem()).unwrap();
    let files = Some((certificate.clone(), key.clone()));
    let before = config(Scrape { tls: files.clone(), ..credentials() });
    let after = config(Scrape {
        tls: files,
        tls_files: vec![spantap_config::FileState::of(&certificate)],
        basic_auth: Some(("scraper".into(), Secret("n3w".into()))),
        ..Default::default()
    });
    pipeline.reload(&before, &after).unwrap();
    let root = reqwest::Certificate::from_pem(renewed.cert.pem().as_bytes()).unwrap();
    let trusting = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    let ask = |password: &str| trusting.get(&url).basic_auth("scraper", Some(password)).send();
    let answers = [ask("s3cret").await.unwrap(), ask("n3w").await.unwrap()].map(|answer| answer.status().as_u16());
    assert_eq!(answers, [401, 200]);

    // Files that do not make a server are named.
    std::fs::write(&key, "no key").unwrap();
    for (files, want) in [((certificate.clone(), key.clone()), "k.pem"), (("/nowhere.pem".into(), key), "/nowhere.pem")]
    {
        let scrape = Scrape { tls: Some(files), ..Default::default() };
        let said = Pipeline::new(&config(scrape), Arc::default()).err().unwrap().to_string();
        assert!(said.contains("spantap.prometheus.tls") && said.contains(want), "{said}");
    }
}

/// One process with `n` series of the client's duration, and as many of each body size that is known.
fn fill(pipeline: &mut Pipeline, processes: u32, each: usize) {
    for id in 1..=processes {
        let process = Arc::new(sample::process(id, "shop"));
        for n in 0..each {
            let mut e = sample::exchange(Side::Client);
            e.process = process.clone();
            e.request.headers.host = Some(format!("h{n}").into());
            pipeline.exchange(&e, &sample::clock());
        }
    }
}

#[tokio::test]
async fn ten_thousand_series_do_not_stop_the_forwarding() {
    let (mut pipeline, address) = start(Scrape::default());
    fill(&mut pipeline, 10, 1000);
    let url = format!("http://{address}/metrics");
    let scrape = tokio::spawn(async move {
        let begun = Instant::now();
        let answer = client().get(&url).header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        (answer.bytes().await.unwrap(), begun.elapsed())
    });
    // What the one thread of the forwarder does meanwhile: exchanges, and other tasks.
    let (mut longest, mut exchanges) = (Duration::ZERO, 0);
    while !scrape.is_finished() {
        let before = Instant::now();
        pipeline.exchange(&sample::exchange(Side::Server), &sample::clock());
        exchanges += 1;
        tokio::task::yield_now().await;
        longest = longest.max(before.elapsed());
    }
    let (packed, took) = scrape.await.unwrap();
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    let series = text.lines().filter(|l| l.starts_with("http_client_request_duration_seconds_count{")).count();
    assert_eq!(series, 10_000);
    eprintln!(
        "{} bytes ({} packed) in {took:?}; {exchanges} exchanges meanwhile, the longest pause {longest:?}",
        text.len(),
        packed.len()
    );
    // Generous, for a machine that is busy: rendering takes many times as long.
    assert!(exchanges > 100 && longest < took / 2, "{exchanges} exchanges, {longest:?} of {took:?}");
    let plain = client().get(format!("http://{address}/metrics")).send().await.unwrap();
    assert!(plain.headers().get("content-encoding").is_none());
    assert!(plain.text().await.unwrap().lines().count() > 100_000);
}

#[tokio::test]
async fn scrapes_beyond_the_bound_are_told_to_wait() {
    let (mut pipeline, address) = start(Scrape::default());
    fill(&mut pipeline, 5, 1000);
    // Replies that are not read to the end.
    let mut open = Vec::new();
    for _ in 0..4 {
        let answer = client().get(format!("http://{address}/metrics")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        open.push(answer);
    }
    let fifth = client().get(format!("http://{address}/metrics")).send().await.unwrap();
    assert_eq!(fifth.status(), 503);
    drop(open);
    let end = Instant::now() + Duration::from_secs(30);
    while client().get(format!("http://{address}/metrics")).send().await.unwrap().status() != 200 {
        assert!(Instant::now() < end, "the places are not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
