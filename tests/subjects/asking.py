"""Requests of all shapes, byte by byte, and who receives them: to see what is changed on the way.

As `target FOLDER PORT`: writes down what arrives on each connection, FOLDER/PEERPORT-N.got, and answers what looks like a request.
As `asking PORT FOLDER ROUNDS [wait]`: writes down what it sends, FOLDER/OWNPORT-N.sent, after a line with the shape's name and the numbers of
targets of its requests that have to be given a field. With `wait` it begins when there is a file FOLDER/begin.
N counts connections from that port: the kernel gives ports again.
"""
import os
import random
import select
import socket
import sys
import threading
import time

HEAD = b"GET /body HTTP/1.1\r\nHost: inside\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
uses = {}
uses_lock = threading.Lock()


def name_of(port):
    """PORT-N of another connection from this port."""
    with uses_lock:
        uses[port] = uses.get(port, 0) + 1
        return f"{port}-{uses[port]}"


def target(folder, port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    print("listening", flush=True)
    while True:
        connection, (_, peer) = listener.accept()
        threading.Thread(target=record, args=(folder, connection, name_of(peer)), daemon=True).start()


def record(folder, connection, peer):
    with open(f"{folder}/{peer}.part", "wb") as file:
        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                break
            file.write(data)
            if not data:
                break
            if b"/ask/" in data:
                connection.sendall(ANSWER)
    os.rename(f"{folder}/{peer}.part", f"{folder}/{peer}.got")
    connection.close()


class Asking:
    def __init__(self, port, folder, name, timeout=20):
        self.folder, self.name, self.added, self.sent, self.count = folder, name, [], b"", 0
        # With a limit of time Python's sockets do not block.
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.port = self.socket.getsockname()[1]
        self.own = name_of(self.port)

    def write(self, data):
        """One call."""
        self.sent += data
        while data:
            data = data[self.socket.send(data):]

    def gather(self, pieces):
        self.sent += b"".join(pieces)
        assert self.socket.sendmsg(pieces) == sum(map(len, pieces))

    def request(self, added, fields=b"", body=b"", method=b"GET", version=b"HTTP/1.1", pieces=None, extra=b""):
        self.count += 1
        target = b"/%s/ask/%s/%d" % (self.name.encode(), self.own.encode(), self.count)
        if added:
            self.added.append(target.decode())
        data = method + b" " + target + b" " + version + b"\r\nHost: asking\r\n" + fields + b"\r\n" + body + extra
        (pieces or self.write)(data)

    def answered(self, times=1):
        wanted = len(ANSWER) * times
        while wanted:
            got = self.socket.recv(wanted)
            assert got, "no answer"
            wanted -= len(got)

    def done(self):
        self.socket.shutdown(socket.SHUT_WR)
        while self.socket.recv(65536):
            pass
        self.socket.close()
        with open(f"{self.folder}/{self.own}.part2", "wb") as file:
            file.write(f"{self.name} {' '.join(self.added)}\n".encode() + self.sent)
        os.rename(f"{self.folder}/{self.own}.part2", f"{self.folder}/{self.own}.sent")


def length(body):
    return b"Content-Length: %d\r\n" % len(body)


def plain(a):
    for _ in range(10):
        a.request(True)
        a.answered()


def bodies(a):
    for body in [HEAD, HEAD * 3, b"x", b"", b"\r\n" + HEAD]:
        a.request(True, length(body), body, b"POST")
        a.answered()
    a.request(True, length(HEAD * 4), b"", b"PUT")
    for _ in range(4):
        a.write(HEAD)
    a.answered()
    a.request(True)
    a.answered()


def present(a):
    for name in [b"traceparent", b"TraceParent", b"TRACEPARENT"]:
        a.request(False, name + b": 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n")
        a.answered()
    a.request(True, b"traceparents: no\r\nx-traceparent: no\r\n")
    a.answered()


def split(a):
    def halves(data):
        a.write(data[:20])
        a.write(data[20:])
    a.request(True)
    a.answered()
    a.request(False, pieces=halves)
    a.answered()
    a.request(False)
    a.answered()


def pipelined(a):
    a.request(False, extra=HEAD.replace(b"/body", b"/ask/body"))
    a.request(False)


def ahead(a):
    for _ in range(5):
        a.request(True)


def large(a):
    a.request(True, b"X: " + b"y" * 7000 + b"\r\n")
    a.request(False, b"X: " + b"y" * 9000 + b"\r\n")
    a.request(False)


def tunnel(a):
    a.request(False, method=b"CONNECT")
    a.write(HEAD)
    a.write(HEAD)


def redis(a):
    a.write(b"*1\r\n$4\r\nPING\r\n")
    a.write(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%d\r\n" % len(HEAD))
    a.write(HEAD)
    a.write(HEAD)


def inline(a):
    a.write(b"GET key\r\n")
    a.write(HEAD)


def noise(a):
    for _ in range(5):
        a.write(random.randbytes(random.randrange(1, 3000)))
    a.write(HEAD)


def encrypted(a):
    a.write(b"\x16\x03\x01\x02\x00\x01" + random.randbytes(517))
    a.write(b"\x17\x03\x03" + random.randbytes(100))
    a.write(HEAD)


def chunked(a):
    a.request(True, b"Transfer-Encoding: chunked\r\n", b"", b"POST")
    a.write(b"%x\r\n" % len(HEAD))
    a.write(HEAD)
    a.write(b"\r\n0\r\n\r\n")
    a.write(HEAD)


def expects(a):
    a.request(True, b"Expect: 100-continue\r\n" + length(HEAD), b"", b"POST")
    a.answered()
    a.write(HEAD)
    a.write(HEAD)


def upgrade(a):
    a.request(True, b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    a.answered()
    a.write(HEAD)


def doubtful(a):
    shapes = [
        b"Content-Length: 3\r\nContent-Length: 3\r\n", b"Content-Length : 3\r\n", b"Content-Length: 3, 3\r\n", b"Content-Length: +3\r\n",
        b"X: a\r\n folded\r\n", b"X: a\nY: b\r\n", b"no colon\r\n", b"X: \0\r\n", b": a\r\n", b"Content-Length:\r\n", b"X: a\rY: b\r\n",
    ]
    a.request(False, shapes[a.port % len(shapes)])
    a.write(HEAD)


def versions(a):
    a.request(False, version=[b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"RTSP/1.0", b"HTTP/1.1 "][a.port % 6])
    a.write(HEAD)


def preface(a):
    a.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    a.write(HEAD)


def gathered(a):
    for _ in range(4):
        a.request(True, pieces=lambda data: a.gather([data[:7], data[7:30], data[30:31], data[31:]]))
        a.answered()


def files(a):
    with open(f"{a.folder}/{a.own}.body", "w+b") as file:
        file.write(HEAD * 2000)
        file.flush()
        a.request(True, length(HEAD * 2000), b"", b"POST")
        at = 0
        while at < len(HEAD) * 2000:
            at += os.sendfile(a.socket.fileno(), file.fileno(), at, len(HEAD) * 2000 - at)
        a.sent += HEAD * 2000
    os.unlink(f"{a.folder}/{a.own}.body")
    a.request(True)


def upload(a):
    a.request(True, length(HEAD * 40000), HEAD * 40000, b"POST")
    a.request(True)


def hurried(a):
    """Partial writes: the call takes less than it is given."""
    a.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    a.socket.setblocking(False)
    for _ in range(3):
        body = HEAD * 10000
        data = b"POST /hurried/%d HTTP/1.1\r\n" % a.port + length(body) + b"\r\n" + body
        a.sent += data
        while data:
            try:
                data = data[a.socket.send(data):]
            except BlockingIOError:
                select.select([], [a.socket], [])
    a.socket.settimeout(20)


def blocking(a):
    for _ in range(3):
        a.request(False)
        a.answered()


def blocking_later(a):
    a.socket.setblocking(True)
    for _ in range(3):
        a.request(False)
        a.answered()


SHAPES = [
    blocking, blocking_later,
    plain, bodies, present, split, pipelined, ahead, large, tunnel, redis, inline, noise, encrypted, chunked, expects, upgrade, doubtful,
    versions, preface, gathered, files, upload, hurried,
]


def asking(port, folder, rounds, wait):
    while wait and not os.path.exists(f"{folder}/begin"):
        time.sleep(0.02)
    for turn in range(rounds):
        for shape in SHAPES:
            if shape in (upload, hurried, files) and turn >= 3:
                continue
            a = Asking(port, folder, shape.__name__, None if shape is blocking else 20)
            shape(a)
            a.done()
    print("asked", flush=True)


if sys.argv[1] == "target":
    target(sys.argv[2], int(sys.argv[3]))
else:
    asking(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:] == ["wait"])
