"""All connections in one thread, in turns. In: port, prefix, connections, requests. Asks /PREFIX/<own port>/<number>."""
import socket, sys

import gnutls

port, prefix, connections, requests = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5])
own, sessions = gnutls.credentials(), []
for _ in range(connections):
    session = gnutls.Session(socket.create_connection(("127.0.0.1", port)), own, False)
    while not session.handshake():
        pass
    sessions.append(session)
for number in range(requests):
    for session in sessions:
        path = f"{prefix}/{session.socket.getsockname()[1]}/{number}"
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        session.send_corked((head[:5], head[5:])) if number % 2 else session.send(head)
    for session in sessions:
        answer = b""
        while not answer.endswith(b"\r\n\r\nok"):
            byte = session.receive(1)
            if byte == b"":
                sys.exit(f"the server closed after {answer}")
            answer += byte or b""
        if b" 200 " not in answer:
            sys.exit(f"answered {answer}")
for session in sessions:
    session.close()
