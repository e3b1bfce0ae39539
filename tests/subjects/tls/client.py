"""A thread for each connection, all at once. In: port, prefix, connections, requests, requests in one write; then nothing, or
"resume": each connection goes on with the session of one before ("resume-1.2": with that version of TLS at most); or "wait" and a
file: after the first request of each, it is created, and removed by whoever wants the rest. Asks /PREFIX/<own port>/<number>."""
import os, socket, ssl, sys, threading, time

port, prefix, connections, requests, at_once = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
mode = sys.argv[6] if len(sys.argv) > 6 else ""
failed, session, begun = [], None, threading.Barrier(connections)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if mode == "resume-1.2":
    mode, context.maximum_version = "resume", ssl.TLSVersion.TLSv1_2


def ask(tls, answers, numbers):
    own = tls.getsockname()[1]
    tls.sendall("".join(f"GET {prefix}/{own}/{n} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n" for n in numbers).encode())
    for _ in numbers:
        status, length = answers.readline(), 0
        if b" 200 " not in status:
            raise ValueError(status)
        while line := answers.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        answers.read(length)


def run():
    global session
    try:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            with context.wrap_socket(raw, session=session) as tls:
                answers = tls.makefile("rb")
                if session and not tls.session_reused:
                    raise ValueError("the session was not resumed")
                for number in range(requests):
                    ask(tls, answers, range(number * at_once, (number + 1) * at_once))
                    if mode == "wait" and number == 0:
                        if begun.wait() == 0:
                            open(sys.argv[7], "w").close()
                        begun.wait()
                        while os.path.exists(sys.argv[7]):
                            time.sleep(0.01)
                if mode == "resume":
                    session = tls.session
    except Exception as error:
        failed.append(repr(error))
        begun.abort()


threads = [threading.Thread(target=run) for _ in range(connections)]
for thread in threads:
    thread.start()
    if mode == "resume":
        thread.join()
for thread in threads:
    thread.join()
if failed:
    sys.exit(failed[0])
