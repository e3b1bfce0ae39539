//! The addresses on which Spantap listens for questions.
//!
//! In: the configuration. Out: whether each is free, or held by a Spantap that runs. A free one is opened and closed at once.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use spantap_config::Config;
use spantap_doctor::{Check, Group, Lack};

use crate::serve::{Listening, ServeError};

/// How long one question to whoever holds an address may take.
const PATIENCE: Duration = Duration::from_millis(700);
/// Longest answer that is read, bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// Stands in the metrics of every Spantap of itself.
const MARK: &str = "spantap_agent_connected";

/// Whoever holds an address that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    /// A Spantap, and what its `/readyz` says.
    Spantap(String),
    /// Somebody else.
    Other,
}

/// Looks at the scrape endpoint and the admin endpoint, as far as they are wanted.
pub(super) fn look(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut spantap_runs = false;
    if let Some(address) = config.admin {
        let taken = |held: SocketAddr| match ask(held, "/metrics") {
            Some(metrics) if metrics.contains(MARK) => {
                Holder::Spantap(ask(held, "/readyz").unwrap_or_default().trim().to_owned())
            }
            _ => Holder::Other,
        };
        let (check, holder) =
            endpoint("destinations.admin", &[address], taken, "spantap.admin (SPANTAP_ADMIN), or off");
        spantap_runs = matches!(holder, Some(Holder::Spantap(_)));
        checks.push(check);
    }
    if let Some(prometheus) = &config.prometheus {
        let port = prometheus.port;
        let addresses = [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
        // Its own text names no Spantap before there is a series: the neighbour at the admin address vouches for it.
        let taken = |held| match ask(held, &prometheus.path) {
            Some(_) if spantap_runs => Holder::Spantap(String::new()),
            _ => Holder::Other,
        };
        let key = "prometheus_export.port (SPANTAP_PROMETHEUS_PORT)";
        checks.push(endpoint("destinations.prometheus", &addresses, taken, key).0);
    }
    checks
}

fn endpoint(
    id: &str,
    addresses: &[SocketAddr],
    holder: impl FnOnce(SocketAddr) -> Holder,
    key: &str,
) -> (Check, Option<Holder>) {
    match Listening::on(addresses) {
        Ok(_) => {
            let address = addresses.first().map(ToString::to_string).unwrap_or_default();
            (Check::ok(Group::Destinations, id, format!("{address} is free")), None)
        }
        Err(ServeError { address, source }) => {
            let holder = (source.kind() == io::ErrorKind::AddrInUse).then(|| holder(local(address)));
            (judge(id, address, &source, holder.as_ref(), key), holder)
        }
    }
}

fn judge(id: &str, address: SocketAddr, source: &io::Error, holder: Option<&Holder>, key: &str) -> Check {
    let port = address.port();
    match holder {
        Some(Holder::Spantap(says)) => {
            let says = if says.is_empty() { String::new() } else { format!(", which says: {says}") };
            Check::ok(Group::Destinations, id, format!("{address} is held by the Spantap that runs{says}"))
        }
        Some(Holder::Other) => Check::failed(
            Group::Destinations,
            id,
            Lack::Thing,
            format!("{address} is taken by another program"),
            format!("set another: {key}; `sudo ss -ltnp 'sport = :{port}'` shows who has it"),
        ),
        None => {
            let lack = match source.kind() {
                io::ErrorKind::PermissionDenied => Lack::Privilege,
                _ => Lack::Thing,
            };
            let finding = format!("cannot listen on {address}: {source}");
            Check::failed(Group::Destinations, id, lack, finding, format!("set another: {key}"))
        }
    }
}

/// Where to ask whoever listens on `address`.
fn local(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        // Who listens on all IPv6 addresses mostly has those of IPv4 as well, and a host may be without the former.
        IpAddr::V6(_) => Ipv4Addr::LOCALHOST.into(),
    };
    (ip, address.port()).into()
}

/// Body of the answer to `GET path`, whatever its status but "not found"; `None` if there is none in time.
fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let end = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    // HTTP/1.0: neither chunks nor a connection that stays.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    while (answer.len() as u64) < MAX_ANSWER {
        // A limit for each read alone could be stretched without end.
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut piece).ok()? {
            0 => break,
            count => answer.extend_from_slice(piece.get(..count)?),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5))?;
    (status != "404").then(|| body.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{net::TcpListener, thread};

    use spantap_doctor::State;

    use super::*;

    /// Answers each connection with the same, until the test ends.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    #[test]
    fn whoever_holds_an_address_is_asked() {
        assert_eq!(ask(server("HTTP/1.0 503 No\r\n\r\nnot ready"), "/").as_deref(), Some("not ready"));
        assert_eq!(ask(server("HTTP/1.0 404 No\r\n\r\nno such page"), "/"), None);
        assert_eq!(ask(server("SSH-2.0-OpenSSH_9.2\r\n\r\n"), "/"), None);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let begin = Instant::now();
        assert_eq!(ask(silent.local_addr().unwrap(), "/"), None);
        assert!(begin.elapsed() < PATIENCE * 4, "{:?}", begin.elapsed());
    }

    #[test]
    fn free_taken_and_forbidden() {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        assert_eq!(endpoint("a", &[free], |_| Holder::Other, "key").0.state, State::Ok);
        let taken = server("");
        let (check, _) = endpoint("a", &[taken], |_| Holder::Other, "spantap.admin");
        assert_eq!(check.exit_code, Some(Lack::Thing));
        assert!(check.fix.is_some_and(|fix| fix.contains("spantap.admin") && fix.contains("ss -ltnp")));
        let (check, holder) = endpoint("a", &[taken], |_| Holder::Spantap("ready".to_owned()), "key");
        assert!(check.state == State::Ok && check.finding.ends_with("which says: ready"), "{check:?}");
        assert!(holder.is_some());
        let denied = judge("a", free, &io::ErrorKind::PermissionDenied.into(), None, "key");
        assert_eq!(denied.exit_code, Some(Lack::Privilege));
    }
}
