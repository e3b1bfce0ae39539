"""TLS in memory, and each step of a connection (receive, decrypt, encrypt, send) in whichever of four threads is free.
In: port, certificate, key. Answers "ok" to everything."""
import concurrent.futures, select, socket, ssl, sys, threading

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
pool = concurrent.futures.ThreadPoolExecutor(4)
step = lambda function, *arguments: pool.submit(function, *arguments).result()


def serve(raw):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session, asked, shaken = context.wrap_bio(incoming, outgoing, server_side=True), b"", False

    def flush():
        while step(lambda: outgoing.pending):
            step(raw.sendall, step(outgoing.read))

    while True:
        try:
            if not shaken:
                step(session.do_handshake)
                shaken = True
                flush()
            asked += step(session.read, 65536)
            while b"\r\n\r\n" in asked:
                asked = asked.split(b"\r\n\r\n", 1)[1]
                step(session.write, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                flush()
        except ssl.SSLWantReadError:
            flush()
            # Not in the pool: connections that are idle would hold all of its threads.
            select.select([raw], [], [])
            received = step(raw.recv, 65536)
            if not received:
                break
            step(incoming.write, received)
        except (ssl.SSLError, OSError):
            break
    raw.close()


server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
