"""A server whose children do the I/O.

after-accept: the parent accepts, a child forked for the connection answers.
prefork:      two children forked before accept take turns on one listener; both answer the same number of connections.
In: mode and number of connections as arguments. Out: "listening PORT" and "done" on standard output.
"""
import os
import signal
import socket
import sys

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def answer(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece:
            return
        head += piece
    connection.sendall(RESPONSE)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):
        pass
    connection.close()


def say(line):
    print(line, flush=True)


mode, connections = sys.argv[1], int(sys.argv[2])
say("ready")
if not sys.stdin.readline():
    sys.exit(0)
signal.alarm(60)  # none is left behind, whatever happens
listener = socket.create_server(("127.0.0.1", 0))
children = []
if mode == "after-accept":
    say("listening %d" % listener.getsockname()[1])
    for _ in range(connections):
        connection, _ = listener.accept()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            listener.close()
            answer(connection)
            os._exit(0)
        connection.close()
        children.append(child)
else:
    for _ in range(2):
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            for _ in range(connections // 2):
                connection, _ = listener.accept()
                answer(connection)
            os._exit(0)
        children.append(child)
    say("listening %d" % listener.getsockname()[1])
for child in children:
    os.waitpid(child, 0)
say("done")
