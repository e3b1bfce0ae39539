"""Plays a script as the program `subject` does (src/script.rs), over TLS by OpenSSL. In: certificate, key; the task in the first line of
standard input, then signals. Steps that TLS knows nothing of are errors."""
import json, os, select, socket, ssl, struct, sys, threading, time

LIMIT = 60
heard, changed = set(), threading.Condition()
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(sys.argv[1], sys.argv[2])
# A client that closes without having read the tickets would reset the connection.
server.num_tickets = 0
client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
sockets, pending = {}, {}


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def hear():
    for line in sys.stdin:
        with changed:
            heard.add(line.strip())
            changed.notify_all()
    os._exit(3)


def data(made, number):
    [(kind, value)] = made.items()
    if kind == "Text":
        return value.replace("{n}", str(number)).encode()
    if kind == "Bytes":
        return bytes(value)
    if kind == "Fill":
        piece = value["with"].encode()
        return (piece * (value["count"] // len(piece) + 1))[: value["count"]]
    return data(value[0], number) + data(value[1], number)


def received(slot, most):
    try:
        return sockets[slot].recv(most)
    except ConnectionResetError:
        return b""


def read(slot, until, most):
    held = pending.pop(slot, b"")
    kind, value = (until, 0) if until == "End" else next(iter(until.items()))
    left = value if kind == "Bytes" else 0
    while True:
        if kind == "Bytes":
            now = min(left, len(held))
            held, left = held[now:], left - now
            if not left:
                break
        elif kind == "Mark":
            before, mark, after = held.partition(value.encode())
            if mark:
                held = after
                break
        else:
            held = b""
        # Exactly what is due, so that a body is not read together with the head that follows it.
        got = received(slot, min(left, most) if left else most)
        if not got:
            if kind == "End":
                # The end of what TLS carries may be said before the connection ends.
                waiting = select.poll()
                waiting.register(sockets[slot], select.POLLRDHUP)
                waiting.poll(LIMIT * 1000 / 3)
                break
            raise EOFError("the other end closed")
        held += got
    pending[slot] = held


def opened(slot, raw, context):
    raw.settimeout(LIMIT / 3)
    # What follows the handshake would wait for the other side to confirm that.
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sockets[slot] = context.wrap_socket(raw, server_side=context is server)


def step(made, number):
    if made == "Exit":
        say("done")
        os._exit(0)
    [(kind, value)] = made.items()
    if kind == "Listen":
        sockets[value[0]] = socket.create_server(("127.0.0.1", 0))
        say(f"listening {sockets[value[0]].getsockname()[1]}")
    elif kind == "Accept":
        opened(value[1], sockets[value[0]].accept()[0], server)
    elif kind == "Connect":
        opened(value[0], socket.create_connection(("127.0.0.1", int(task["peer"]))), client)
    elif kind == "Send":
        sockets[value[0]].sendall(data(value[1], number))
    elif kind == "Read":
        read(value[0], value[1], value[3])
    elif kind == "Close":
        sockets.pop(value).close()
    elif kind == "Reset":
        connection = sockets.pop(value)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    elif kind == "Signal":
        say(f"signal {value}")
    elif kind == "Wait":
        with changed:
            if not changed.wait_for(lambda: value in heard, LIMIT / 3):
                raise TimeoutError(f"signal {value} did not come")
    elif kind == "Pause":
        time.sleep(value / 1000)
    elif kind == "Repeat":
        for round in range(value[0]):
            play(value[1], round)
    else:
        raise ValueError(f"{kind} is not played over TLS")


def play(script, number):
    for made in script:
        step(made, number)


line = sys.stdin.readline()
if line:
    task = json.loads(line)
    threading.Thread(target=hear, daemon=True).start()
    try:
        play(task["script"], 0)
    except Exception as error:
        say(f"error {error!r}".replace("\n", " "))
        os._exit(1)
    say("done")
    # As with any program, the kernel closes what is open.
    os._exit(0)
