//! The two ends of connections whose addresses are translated in between, or that speak TLS.

use super::*;

/// What an end knows of a request, beside its addresses: sequence numbers of what the client sends and receives at offset 0;
/// offsets of the request and of its response; when its call had ended.
#[derive(Clone, Copy)]
struct Seen {
    bases: (u32, u32),
    offsets: (u64, u64),
    time: u64,
}

const SENT: Seen = Seen { bases: (100, 7000), offsets: (0, 0), time: 10 };

/// Ends of a connection of which each sees other addresses, if `translated`.
fn ends(language: &str, translated: bool, sent: Seen, got: Seen) -> (End, End) {
    let one = |socket, namespace, [local, peer]: [([u8; 4], u16); 2], received, sent| Connection {
        socket: SocketId(socket),
        endpoints: Endpoints::Tcp { local: (local.0.into(), local.1), peer: (peer.0.into(), peer.1) },
        network_namespace: namespace,
        tie: Tie::Sequence { received, sent },
    };
    let (client, published) = (([10, 0, 0, 1], 40_000), ([192, 168, 0, 1], 9080));
    let (masked, server) =
        if translated { (([172, 17, 0, 1], 61_000), ([172, 17, 0, 2], 80)) } else { (client, published) };
    (
        end(Side::Client, 1, language, one(1, 1, [client, published], sent.bases.1, sent.bases.0)),
        end(Side::Server, 2, language, one(2, 2, [server, masked], got.bases.0, got.bases.1)),
    )
}

fn opens(world: &mut World, end: &End, tls: bool, seen: Seen, request: &Request) -> u64 {
    world.opened(end, request, |opened| {
        (opened.tls, opened.offset, opened.opposite) = (tls, seen.offsets.0, seen.offsets.1);
        (opened.began, opened.time) = (MonotonicNs(seen.time), MonotonicNs(seen.time));
    })
}

/// Whether the two are joined, whichever end is told first.
fn joined((what, translated, tls, sent, got, target): (&str, bool, bool, Seen, Seen, &str)) -> bool {
    let found = [true, false].map(|client_first| {
        let (client, server) = ends("python", translated, sent, got);
        let mut world = World::new();
        let (asked, received) = (request("/a", None), request(target, None));
        let first = client_first.then(|| opens(&mut world, &client, tls, sent, &asked));
        let server = opens(&mut world, &server, tls, got, &received);
        let client = first.unwrap_or_else(|| opens(&mut world, &client, tls, sent, &asked));
        match world.parent(server) {
            Ok(found) => assert_eq!(found, (client, Method::Connection), "{what}"),
            Err(why) => assert_eq!(why, Unlinked::PeerUnknown, "{what}"),
        }
        world.parent(server).is_ok()
    });
    assert_eq!(found[0], found[1], "{what}: it depends on who is first");
    found[0]
}

#[test]
fn numbers_of_both_directions_name_a_request_whatever_its_addresses() {
    let got = Seen { time: 20, ..SENT };
    let later = Seen { offsets: (40, 90), ..got };
    for (what, translated, sent, got, target, want) in [
        ("the first request", true, SENT, got, "/a", true),
        ("the second one", true, Seen { offsets: (40, 90), ..SENT }, later, "/a", true),
        ("picked up at another byte", true, Seen { bases: (60, 6910), offsets: (40, 90), time: 10 }, got, "/a", true),
        ("the next one there", true, Seen { bases: (60, 6910), offsets: (40, 90), time: 10 }, later, "/a", false),
        (
            "over the end of the numbers",
            true,
            Seen { bases: (u32::MAX, 9), offsets: (101, 0), time: 1 },
            Seen { bases: (100, 9), ..got },
            "/a",
            true,
        ),
        ("another number of the request", true, SENT, Seen { bases: (101, 7000), ..got }, "/a", false),
        ("another number of the response", true, SENT, Seen { bases: (100, 7001), ..got }, "/a", false),
        ("a response that begins elsewhere", true, SENT, Seen { offsets: (0, 1), ..got }, "/a", false),
        ("received before it was sent", true, SENT, Seen { time: 9, ..got }, "/a", false),
        ("another target", true, SENT, got, "/b", false),
        ("with its addresses, sent ahead", false, SENT, Seen { offsets: (0, 1), ..got }, "/a", true),
    ] {
        assert_eq!(joined((what, translated, false, sent, got, target)), want, "{what}");
    }
}

#[test]
fn places_of_plaintext_name_a_request_of_one_connection() {
    let got = Seen { time: 20, ..SENT };
    for (what, sent, got, target, want) in [
        ("the first request", SENT, got, "/a", true),
        ("the second one", Seen { offsets: (40, 90), ..SENT }, Seen { offsets: (40, 90), ..got }, "/a", true),
        ("another request", Seen { offsets: (40, 90), ..SENT }, got, "/a", false),
        ("read from another byte on", SENT, Seen { offsets: (40, 0), ..got }, "/a", false),
        ("the other direction was", SENT, Seen { offsets: (0, 90), ..got }, "/a", false),
        ("another connection", SENT, Seen { bases: (101, 7000), ..got }, "/a", false),
        ("another one of the same client", SENT, Seen { bases: (100, 7001), ..got }, "/a", false),
        ("received before it was sent", SENT, Seen { time: 9, ..got }, "/a", false),
        ("another target", SENT, got, "/b", false),
    ] {
        for translated in [false, true] {
            assert_eq!(joined((what, translated, true, sent, got, target)), want, "{what}, translated: {translated}");
        }
    }
    // One end reads plaintext, the other ciphertext that looks like it.
    let (client, server) = ends("python", false, SENT, got);
    let mut world = World::new();
    opens(&mut world, &client, false, SENT, &request("/a", None));
    let received = opens(&mut world, &server, true, got, &request("/a", None));
    assert_eq!(world.parent(received), Err(Unlinked::PeerUnknown));
    // A session whose socket is not known.
    let unknown = Connection { endpoints: Endpoints::Unknown, tie: Tie::Unknown, ..sample::connection(9) };
    let received = opens(&mut world, &end(Side::Server, 2, "python", unknown), true, got, &request("/a", None));
    assert_eq!(world.parent(received), Err(Unlinked::Tls));
}

#[test]
fn of_two_that_nothing_tells_apart_it_is_neither() {
    for (tls, server_first) in [(false, false), (true, false), (false, true), (true, true)] {
        let (client, server) = ends("python", true, SENT, Seen { time: 20, ..SENT });
        let mut world = World::new();
        let ask = request("/a", None);
        let twice = if server_first { &server } else { &client };
        let other = if server_first { &client } else { &server };
        let first = opens(&mut world, twice, tls, SENT, &ask);
        let second = opens(&mut world, twice, tls, SENT, &ask);
        let last = opens(&mut world, other, tls, SENT, &ask);
        for serial in if server_first { vec![first, second] } else { vec![last] } {
            assert_eq!(world.parent(serial), Err(Unlinked::PeerUnknown), "tls {tls}, server first {server_first}");
        }
    }
}
