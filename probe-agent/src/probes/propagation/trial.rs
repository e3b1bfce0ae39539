//! A trial before anybody's requests are changed: a connection of the agent's with itself, over the loopback.
//!
//! In: nothing; the agent's own process is observed meanwhile. Out: what was seen, or what is wrong with it. Runs before the agent is confined,
//! which may not make such sockets later.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// Longest wait for bytes that were sent already.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is put in: name and value with the end of the line.
const FIELD: usize = 70;

/// What the trial showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Asked how many bytes wait, the kernel says another number than wait.
    pub(super) wrong_fionread: bool,
}

/// Sends requests of several shapes.
///
/// # Errors
/// What arrived in another way than it should, or what the network said.
pub(super) fn run() -> Result<Seen, String> {
    let said = |error: io::Error| format!("the loopback: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(said)?;
    let address = listener.local_addr().map_err(said)?;
    // With a limit of time it connects without blocking; who blocks is left alone.
    let mut client = TcpStream::connect_timeout(&address, PATIENCE).map_err(said)?;
    let (mut server, _) = listener.accept().map_err(said)?;
    client.set_nonblocking(true).map_err(said)?;
    server.set_read_timeout(Some(PATIENCE)).map_err(said)?;
    let padding = "x".repeat(3000);
    let requests = [
        ("GET /trial HTTP/1.1\r\n".to_owned(), "Host: a\r\n\r\n".to_owned()),
        ("GET /trial HTTP/1.1\r\n".to_owned(), "\r\n".to_owned()),
        (format!("GET /{padding} HTTP/1.1\r\n"), format!("Host: a\r\nX: {padding}\r\n\r\n")),
        (
            "POST /trial HTTP/1.1\r\n".to_owned(),
            format!("Content-Length: 20000\r\n\r\n{}", "GET / HTTP/1.1\r\n\r\n..".repeat(1000)),
        ),
        // The body of the one before was its last byte.
        ("DELETE /trial HTTP/1.1\r\n".to_owned(), "Host: a\r\n\r\n".to_owned()),
    ];
    for (number, (line, rest)) in requests.iter().enumerate() {
        client.write_all(format!("{line}{rest}").as_bytes()).map_err(said)?;
        let mut arrived = vec![0; line.len() + FIELD + rest.len()];
        server.read_exact(&mut arrived).map_err(|error| format!("request {number}: {error}"))?;
        check(&arrived, line, rest).map_err(|error| format!("request {number}: {error}"))?;
    }
    server.write_all(b"answer").map_err(said)?;
    let mut answer = [0; 6];
    let began = Instant::now();
    while client.peek(&mut answer).unwrap_or(0) < answer.len() {
        if began.elapsed() > PATIENCE {
            return Err("no answer".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let waiting = rustix::io::ioctl_fionread(&client).map_err(|error| said(error.into()))?;
    client.read_exact(&mut answer).map_err(said)?;
    // Nothing may have come after the last request.
    server.set_nonblocking(true).map_err(said)?;
    match server.read(&mut [0; 1]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        other => return Err(format!("more arrived than was sent: {other:?}")),
    }
    if &answer != b"answer" {
        return Err("an answer was changed".to_owned());
    }
    Ok(Seen { wrong_fionread: waiting != answer.len() as u64 })
}

/// The line, one field, the rest.
fn check(arrived: &[u8], line: &str, rest: &str) -> Result<(), String> {
    let (head, after) = arrived.split_at_checked(line.len()).ok_or("too short")?;
    let (field, body) = after.split_at_checked(FIELD).ok_or("too short")?;
    if head != line.as_bytes() || body != rest.as_bytes() {
        return Err("bytes of the program were changed".to_owned());
    }
    let field = std::str::from_utf8(field).map_err(|_| "the field is no text")?;
    let value = field.strip_prefix("traceparent: 00-").and_then(|value| value.strip_suffix("\r\n"));
    let hex = |text: &str, length: usize| {
        text.len() == length
            && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
            && text.bytes().any(|c| c != b'0')
    };
    match value.map(|value| value.split('-').collect::<Vec<_>>()).as_deref() {
        Some([trace, span, "00" | "01"]) if hex(trace, 32) && hex(span, 16) => Ok(()),
        _ => Err(format!("the field is {field:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_and_nothing_else() {
        let field = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
        let (line, rest) = ("GET / HTTP/1.1\r\n", "Host: a\r\n\r\n");
        let arrived = |field: &str| check(format!("{line}{field}{rest}").as_bytes(), line, rest);
        assert_eq!(arrived(field), Ok(()));
        for wrong in [
            "",
            &field.repeat(2),
            &field.replace('f', "F"),
            &field.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
        ] {
            assert!(arrived(wrong).is_err(), "{wrong}");
        }
        assert!(check(format!("{line}{field}Host: b\r\n\r\n").as_bytes(), line, rest).is_err());
    }

    /// Without the probes nothing is put in, and that is noticed.
    #[test]
    fn who_is_not_changed_is_told() {
        assert!(run().is_err());
    }
}
