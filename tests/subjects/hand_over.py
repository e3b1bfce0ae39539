"""An HTTP/1.1 server with a thread for each connection, which hands what it receives to others and does something else meanwhile.

In: its own port, the port of another server, seconds that those others wait before they answer.
GET /x/in/N: the thread that received it asks for /x/own/N, which has nothing to do with it; another one asks for /x/out/N and
answers. GET /direct/in/N: the thread that received it asks for /direct/out/N and answers. All else is answered at once.
"""
import http.client
import queue
import socket
import sys
import threading
import time

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

own, other, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
kept = threading.local()
jobs = queue.SimpleQueue()


def ask(path):
    if not hasattr(kept, "connection"):
        kept.connection = http.client.HTTPConnection("127.0.0.1", other)
    kept.connection.request("GET", path)
    kept.connection.getresponse().read()


def work():
    while True:
        connection, path = jobs.get()
        time.sleep(pause)
        ask(path.replace("/in/", "/out/"))
        connection.sendall(ANSWER)


def serve(connection):
    unread = b""
    while True:
        while b"\r\n\r\n" not in unread:
            piece = connection.recv(4096)
            if not piece:
                return
            unread += piece
        head, _, unread = unread.partition(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        if path.startswith("/direct/in/"):
            ask(path.replace("/in/", "/out/"))
            connection.sendall(ANSWER)
        elif "/in/" in path:
            jobs.put((connection, path))
            ask(path.replace("/in/", "/own/"))
        else:
            connection.sendall(ANSWER)


for _ in range(16):
    threading.Thread(target=work, daemon=True).start()
listener = socket.create_server(("127.0.0.1", own), backlog=128)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
