"""An HTTP/1.1 server with a thread for each connection, which asks another server before it answers.

In: its own port, the port of the other one (0: it answers by itself), seconds to wait before it asks; its own address and
that of the other one, unless both are 127.0.0.1. ASK_TIMEOUT in the environment: seconds for an answer, so that it does not block.
SERVES_TLS (certificate:key), ASKS_TLS (nobody's certificate is looked at).
GET /in/N asks /out/N, GET /x/in/N asks /x/out/N: which request was made for which can be told by the path.
"""
import http.client
import os
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

own, other, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
own_host, other_host = (sys.argv[4:] + ["127.0.0.1", "127.0.0.1"])[:2]
timeout = float(os.environ["ASK_TIMEOUT"]) if "ASK_TIMEOUT" in os.environ else None
kept = threading.local()
serving = trusting = None
if "SERVES_TLS" in os.environ:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*os.environ["SERVES_TLS"].split(":"))
if "ASKS_TLS" in os.environ:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE


def connection():
    if trusting:
        return http.client.HTTPSConnection(other_host, other, timeout=timeout, context=trusting)
    return http.client.HTTPConnection(other_host, other, timeout=timeout)


def ask(path):
    # A connection for each thread; where the server's connections are short, so are these.
    if not hasattr(kept, "connection"):
        kept.connection = connection()
    kept.connection.request("GET", path)
    return kept.connection.getresponse().read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The body is not to wait for the acknowledgement of its head, 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self):
        if pause:
            time.sleep(pause)
        body = ask(self.path.replace("/in/", "/out/")) if other and "/in/" in self.path else b"hello"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def get_request(self):
        connection, address = super().get_request()
        # The handshake is made by the thread that reads.
        wrapped = serving and serving.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return wrapped or connection, address


Server((own_host, own), Handler).serve_forever()
