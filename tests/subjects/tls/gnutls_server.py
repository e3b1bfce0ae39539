"""All connections in one thread, which goes from one to the next byte by byte. In: port, certificate, key. Answers "ok", in turns
by one send, by two, and by two that are held back until both are there (cork)."""
import selectors, socket, sys

import gnutls

HEAD, BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"
own, ready, ways = gnutls.credentials(*sys.argv[2:4]), selectors.DefaultSelector(), 0
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
listening.setblocking(False)
ready.register(listening, selectors.EVENT_READ)


def answer(session):
    global ways
    ways += 1
    if ways % 3 == 0:
        session.send(HEAD + BODY)
    elif ways % 3 == 1:
        session.send(HEAD)
        session.send(BODY)
    else:
        session.send_corked((HEAD, BODY))


def serve(session):
    """All that is there; True: it is over."""
    while (byte := session.receive(1)) is not None:
        if not byte:
            return True
        session.request += byte
        if session.request.endswith(b"\r\n\r\n"):
            session.request = b""
            answer(session)
            return False
    return False


while True:
    # What the library holds is not told by the socket: each turn asks all of them.
    held = [key for key in ready.get_map().values() if key.data and key.data.more]
    for key, _ in [(key, 0) for key in held] + ready.select(0 if held else None):
        if key.data is None:
            accepted, _ = listening.accept()
            accepted.setblocking(False)
            session = gnutls.Session(accepted, own, True)
            session.request, session.open, session.more = b"", False, False
            ready.register(accepted, selectors.EVENT_READ, session)
            continue
        session = key.data
        try:
            session.open = session.open or session.handshake()
            over = session.open and serve(session)
        except OSError:
            over = True
        session.more = session.open and not over and gnutls.library.gnutls_record_check_pending(session.pointer) > 0
        if over:
            ready.unregister(session.socket)
            try:
                session.close()
            except OSError:
                pass
