#![allow(clippy::unwrap_used)]
use reqwest::header::{HeaderName, HeaderValue};

use super::*;

const MOST: usize = 1 << 20;

fn metadata(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    pairs.iter().map(pair).collect()
}

fn ended(trailers: &[(&'static str, &str)]) -> Ended {
    let headers = metadata(&[("content-type", "application/grpc")]);
    Ended::read(200, &headers, &metadata(trailers), &[], MOST).unwrap()
}

fn details(delay: Option<Delay>) -> String {
    let value = RetryInfo { retry_delay: delay }.encode_to_vec();
    let other = Any { type_url: "type.googleapis.com/google.rpc.Help".into(), value: vec![1, 2] };
    let info = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value };
    BASE64.encode(Details { details: vec![other, info] }.encode_to_vec())
}

#[test]
fn codes_that_may_be_tried_again() {
    for (code, again) in [
        (1, true),
        (2, false),
        (3, false),
        (4, true),
        (5, false),
        (6, false),
        (7, false),
        (8, false),
        (9, false),
        (10, true),
        (11, true),
        (12, false),
        (13, false),
        (14, true),
        (15, true),
        (16, false),
        (99, false),
    ] {
        let answer = ended(&[("grpc-status", &code.to_string())]).answer();
        assert_eq!(matches!(answer, Answer::Retry { after: None, .. }), again, "{code}: {answer:?}");
        let credentials = matches!(code, 7 | 16);
        assert_eq!(matches!(answer, Answer::Unauthorized { status, .. } if status == code), credentials);
        assert!(again || credentials || matches!(answer, Answer::Refused(_)));
    }
}

#[test]
fn the_pause_of_retry_info() {
    let after = |code: &str, details: &str| match ended(&[("grpc-status", code), ("grpc-status-details-bin", details)])
        .answer()
    {
        Answer::Retry { after, .. } => after,
        Answer::Refused(_) => None,
        other => panic!("{other:?}"),
    };
    let three = details(Some(Delay { seconds: 3, nanos: 500_000_000 }));
    assert_eq!(after("14", &three), Some(Duration::from_millis(3500)));
    assert_eq!(after("8", &three), Some(Duration::from_millis(3500)), "exhausted, and to be asked again");
    assert_eq!(after("8", three.trim_end_matches('=')), Some(Duration::from_millis(3500)), "without padding");
    assert_eq!(after("3", &three), None, "a mistake stays one");
    assert_eq!(after("14", &details(None)), Some(Duration::ZERO));
    assert_eq!(after("14", &details(Some(Delay { seconds: -3, nanos: -1 }))), Some(Duration::ZERO));
    assert_eq!(after("14", &details(Some(Delay { seconds: i64::MAX, nanos: i32::MAX }))).unwrap().as_secs(), 86_400);
    assert_eq!(after("8", "%%%"), None);
    assert_eq!(after("8", &BASE64.encode([0xff; 9])), None);
}

#[test]
fn words_of_the_server() {
    let answer = ended(&[("grpc-status", "16"), ("grpc-message", "no%20auth%0Agiven %C3%A9%zz")]);
    assert!(answer.is_unauthorized());
    let what = "status UNAUTHENTICATED: no auth given é%zz".into();
    assert_eq!(answer.answer(), Answer::Unauthorized { status: 16, what });
    // Trailers only: everything stands in the headers.
    let headers = metadata(&[("content-type", "application/grpc"), ("grpc-status", "12")]);
    assert!(Ended::read(200, &headers, &HeaderMap::new(), &[], MOST).unwrap().is_unimplemented());
}

#[test]
fn responses() {
    let ok = |body: &[u8]| {
        let headers = metadata(&[("content-type", "application/grpc+proto")]);
        Ended::read(200, &headers, &metadata(&[("grpc-status", "0")]), body, 100).map(|ended| ended.answer())
    };
    let all = Answer::Taken { rejected: 0, message: String::new() };
    assert_eq!(ok(b""), Some(all.clone()));
    assert_eq!(ok(b"\0\0\0\0\0"), Some(all.clone()));
    assert_eq!(ok(b"\0\0\0\0\x02\x0a\0"), Some(all));
    let partial = b"\0\0\0\0\x09\x0a\x07\x08\x02\x12\x03old";
    assert_eq!(ok(partial), Some(Answer::Taken { rejected: 2, message: "old".into() }));
    assert!(matches!(ok(b"\0\0\0\0\xff\x0a"), Some(Answer::Taken { .. })), "cut off");
    let mut large = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut large, &[0; 101]).unwrap();
    let large = large.finish().unwrap();
    let frame = [&[1, 0, 0, 0, large.len() as u8], large.as_slice()].concat();
    assert_eq!(ok(&frame), None, "too long once it is uncompressed");
}

#[test]
fn what_is_not_grpc() {
    for (status, again) in
        [(200, false), (400, false), (404, false), (429, true), (502, true), (503, true), (500, false)]
    {
        let ended = Ended::read(status, &HeaderMap::new(), &HeaderMap::new(), b"<html>", MOST).unwrap();
        assert_eq!(matches!(ended.answer(), Answer::Retry { .. }), again, "{status}");
    }
    assert!(Ended::read(401, &HeaderMap::new(), &HeaderMap::new(), &[], MOST).unwrap().is_unauthorized());
    let missing = ended(&[]).answer();
    assert_eq!(missing, Answer::Refused("status UNKNOWN: the call ended without a status".into()));
}
