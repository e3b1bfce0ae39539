"""GnuTLS by its C functions: sessions of a server or a client on sockets."""
import ctypes

PULL_AGAIN = (-28, -52)  # GNUTLS_E_AGAIN, GNUTLS_E_INTERRUPTED
library = ctypes.CDLL("libgnutls.so.30")
for name in ("record_send", "record_recv"):
    function = getattr(library, "gnutls_" + name)
    function.restype, function.argtypes = ctypes.c_ssize_t, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)


def call(name, *arguments):
    result = getattr(library, "gnutls_" + name)(*arguments)
    if result < 0 and result not in PULL_AGAIN:
        raise OSError(f"gnutls_{name}: {result}")
    return result


class Datum(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_uint)]


tickets = Datum()


def credentials(certificate=None, key=None):
    made = ctypes.c_void_p()
    call("certificate_allocate_credentials", ctypes.byref(made))
    if certificate:
        call("certificate_set_x509_key_file", made, certificate.encode(), key.encode(), 1)
        call("session_ticket_key_generate", ctypes.byref(tickets))
    return made


class Session:
    """On a socket that is connected; `server`: it waits for the other side's first message."""

    def __init__(self, socket, credentials, server):
        self.socket, self.pointer = socket, ctypes.c_void_p()
        call("init", ctypes.byref(self.pointer), 1 if server else 2)
        call("set_default_priority", self.pointer)
        if server:
            call("session_ticket_enable_server", self.pointer, ctypes.byref(tickets))
        call("credentials_set", self.pointer, 1, credentials)
        library.gnutls_transport_set_int2(self.pointer, socket.fileno(), socket.fileno())

    def handshake(self):
        """Whether it is done."""
        return call("handshake", self.pointer) == 0

    def send(self, data):
        while data:
            sent = call("record_send", self.pointer, data, len(data))
            data = data[max(sent, 0) :]

    def send_corked(self, parts):
        library.gnutls_record_cork(self.pointer)
        for part in parts:
            self.send(part)
        call("record_uncork", self.pointer, 1)

    def receive(self, most):
        """Bytes, none at the end; None: not yet."""
        buffer = ctypes.create_string_buffer(most)
        count = library.gnutls_record_recv(self.pointer, buffer, most)
        if count in PULL_AGAIN:
            return None
        return buffer.raw[: max(count, 0)]

    def close(self):
        call("bye", self.pointer, 1)
        library.gnutls_deinit(self.pointer)
        self.socket.close()
