//! Links by thread: who receives, who sends, who answers.

use super::*;

#[test]
fn a_thread_that_waits_serves_one_request() {
    let ask = request("/a", None);
    for (language, blocking, thread, want) in [
        ("python", true, 7, true),
        ("java", true, 7, true),
        ("python", false, 7, false),
        ("python", true, 8, false),
        ("go", true, 7, false),
        ("nodejs", true, 7, false),
    ] {
        let (server, _, client) = program(language);
        let mut world = World::new();
        let received = world.open(&server, 7, 10, 0, &ask, blocking);
        let sent = world.open(&client, thread, 20, 0, &ask, false);
        world.sends(&server, 7, ANSWER);
        let want = if want { Ok((received, Method::Thread)) } else { Err(Unlinked::NoRequest) };
        assert_eq!(world.parent(sent), want, "{language} {blocking} {thread}");
        world.end(received, &server, 30);
        let later = world.open(&client, thread, 40, 50, &ask, false);
        assert_eq!(world.parent(later), Err(Unlinked::NoRequest), "it was answered");
        assert!(world.links.threads.is_empty(), "nothing stays");
    }
}

#[test]
fn more_than_one_request_on_a_thread_proves_nothing() {
    let ask = request("/a", None);
    let (one, two, client) = program("python");
    let mut world = World::new();
    let first = world.open(&one, 7, 10, 0, &ask, true);
    let early = world.open(&client, 7, 15, 0, &ask, false);
    world.sends(&one, 7, ANSWER);
    assert_eq!(world.parent(early), Ok((first, Method::Thread)));
    let second = world.open(&two, 7, 20, 0, &ask, true);
    let sent = world.open(&client, 7, 25, 100, &ask, false);
    assert_eq!(world.parent(sent), Err(Unlinked::Ambiguous));
    // The first is answered although the second had come: this program does several things at a time on a thread.
    world.end(first, &one, 30);
    assert_eq!(world.parent(early), Err(Unlinked::Interleaved), "not decided yet, and not trusted any more");
    world.end(second, &two, 40);
    world.open(&one, 7, 50, 200, &ask, true);
    let sent = world.open(&client, 7, 60, 300, &ask, false);
    assert_eq!(world.parent(sent), Err(Unlinked::Interleaved));
    // A connection that was given up unanswered says nothing of the kind.
    let mut world = World::new();
    let first = world.open(&one, 7, 10, 0, &ask, true);
    world.open(&two, 7, 20, 0, &ask, true);
    world.links.abandoned(first);
    let sent = world.open(&client, 7, 25, 0, &ask, false);
    world.sends(&two, 7, ANSWER);
    assert!(world.parent(sent).is_ok());
}

#[test]
fn who_answers_shows_whom_a_thread_serves() {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    let ask = request("/a", None);
    let confirmed = Ok(());
    for (what, sends, want) in [
        ("nobody answers yet", &[][..], Err(Unlinked::Unconfirmed)),
        ("the thread that received", &[(7, ANSWER)], confirmed),
        ("another one", &[(8, ANSWER)], Err(Unlinked::Interleaved)),
        ("one that is not told", &[(0, ANSWER)], Err(Unlinked::Unconfirmed)),
        ("who reads says to go on", &[(7, CONTINUE)], Err(Unlinked::Unconfirmed)),
        ("and another answers", &[(7, CONTINUE), (8, ANSWER)], Err(Unlinked::Interleaved)),
        ("another says to go on", &[(8, CONTINUE), (7, ANSWER)], confirmed),
        ("a switch is an answer", &[(7, SWITCH)], confirmed),
        ("another one goes on", &[(7, ANSWER), (8, b"more")], Err(Unlinked::Interleaved)),
    ] {
        let (server, _, client) = program("c");
        let mut world = World::new();
        world.open(&server, 7, 10, 0, &ask, true);
        let sent = world.open(&client, 7, 20, 0, &ask, false);
        for (thread, head) in sends {
            world.sends(&server, *thread, head);
        }
        assert_eq!(world.parent(sent).map(|_| ()), want, "{what}");
        // It is waited for what is not known.
        let waits = world.end(sent, &client, 25);
        assert_eq!(waits, want == Err(Unlinked::Unconfirmed), "{what}");
        assert_eq!(world.links.released(false).len(), 0, "{what}");
        world.sends(&server, 7, ANSWER);
        assert_eq!(world.links.released(false).len(), usize::from(waits), "{what}");
    }
}

#[test]
fn another_process_may_answer() {
    let ask = request("/a", None);
    let (server, _, client) = program("c");
    let child = end(Side::Server, 2, "c", sample::connection(1));
    let mut world = World::new();
    world.open(&server, 7, 10, 0, &ask, true);
    let sent = world.open(&client, 7, 20, 0, &ask, false);
    world.sends(&child, 7, ANSWER);
    assert_eq!(world.parent(sent), Err(Unlinked::Interleaved));
}

#[test]
fn whoever_hands_on_requests_is_not_linked_any_more() {
    let ask = request("/a", None);
    let (server, other, client) = program("c");
    let mut world = World::new();
    let first = world.open(&server, 7, 10, 0, &ask, true);
    world.sends(&server, 8, ANSWER);
    world.end(first, &server, 20);
    world.open(&other, 7, 30, 0, &ask, true);
    let sent = world.open(&client, 7, 40, 0, &ask, false);
    world.sends(&other, 7, ANSWER);
    assert_eq!(world.parent(sent), Err(Unlinked::Interleaved));
    world.links.process_ended(client.process.id);
    let sent = world.open(&client, 7, 50, 100, &ask, false);
    assert_eq!(world.parent(sent).map(|_| ()), Ok(()), "another process with the same number");
}

#[test]
fn who_answers_late_is_trusted_once_it_is_known() {
    let ask = request("/a", None);
    for (linked, want) in [(true, Ok(())), (false, Err(Unlinked::Unconfirmed))] {
        let (server, _, client) = program("python");
        let mut world = World::new();
        for at in 1..=5 {
            let time = at * 100;
            let received = world.open(&server, 7, time, time, &ask, true);
            // Only what was sent shows that the rule holds where it matters.
            let sent = linked.then(|| world.open(&client, 7, time + 10, time, &ask, false));
            if let Some(sent) = sent {
                assert_eq!(world.parent(sent), Err(Unlinked::Unconfirmed), "{at}");
            }
            world.sends(&server, 7, ANSWER);
            world.end(received, &server, time + 30);
        }
        world.open(&server, 7, 1000, 1000, &ask, true);
        let sent = world.open(&client, 7, 1010, 1000, &ask, false);
        assert_eq!(world.parent(sent).map(|_| ()), want);
        assert!(world.end(sent, &client, 1020), "it may still be seen not to hold");
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let ask = request("/a", None);
    let (server, _, client) = program("c");
    let mut world = World::new();
    let first = world.open(&server, 7, 10, 0, &ask, true);
    let second = world.open(&server, 7, 10, 50, &ask, true);
    let both = world.open(&client, 7, 15, 0, &ask, false);
    assert_eq!(world.parent(both), Err(Unlinked::Ambiguous));
    world.sends(&server, 7, ANSWER);
    world.end(first, &server, 20);
    let sent = world.open(&client, 7, 25, 100, &ask, false);
    assert_eq!(world.parent(sent), Err(Unlinked::Unconfirmed), "that was the answer to the first");
    world.sends(&server, 7, ANSWER);
    assert_eq!(world.parent(sent), Ok((second, Method::Thread)));
}
