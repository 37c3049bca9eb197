"""Servers that break the rules, each in one way, for what the sink cannot do.

Each is a context manager with `url`, `connections`, `requests` (heads that were
read) and `body_bytes`: how much of any request body it received, so that a test
can show that nothing leaked to it. They are raw sockets in threads and bound to
loopback. A server never raises for what a client does: it is the one at fault.
"""

import random
import re
import select
import socket
import ssl
import struct
import threading
import warnings

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

OK_BODY = b'{"status":"ok"}'
SEND_BUFFER = 65536  # of an endless server, so that little is sent that nobody reads
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + OK_BODY


class Connection:
    """One accepted connection; counts the bodies that are read from it."""

    def __init__(self, server, raw):
        self.server, self.socket, self.buffer = server, raw, b""
        self.head = b""
        self.left = 0  # of the body that is being read

    def _fill(self):
        more = self.socket.recv(65536)
        self.buffer += more
        return bool(more)

    def read_head(self):
        """The next request's head, or b"" where the client has gone."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._fill():
                return b""
        self.head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: *(\d+)", self.head)
        self.left = int(length[1]) if length else 0
        with self.server.lock:
            self.server.requests += 1
        return self.head

    def read_body(self, limit=None):
        """Reads the body, or `limit` bytes of it; False where the client left."""
        wanted = self.left if limit is None else min(limit, self.left)
        while wanted > 0:
            if not self.buffer and not self._fill():
                return False
            taken = min(wanted, len(self.buffer))
            self.buffer = self.buffer[taken:]
            self.left -= taken
            wanted -= taken
            self.server.count(taken)
        return True

    def read_request(self):
        return bool(self.read_head()) and self.read_body()

    def read_on(self):
        """Reads, and counts as a body, whatever still comes until the client leaves."""
        self.server.count(len(self.buffer))
        self.buffer = b""
        while self._fill():
            self.server.count(len(self.buffer))
            self.buffer = b""

    def send(self, *parts):
        for part in parts:
            self.socket.sendall(part)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class BadServer:
    """The frame: subclasses say in `serve` what one connection gets."""

    scheme = "http"

    def __init__(self):
        self.lock = threading.Lock()
        self.connections = self.requests = self.body_bytes = 0
        self.stopping = threading.Event()
        self.open = set()
        self.threads = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}/v1/interactions"

    def count(self, size):
        with self.lock:
            self.body_bytes += size

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            still_open = list(self.open)
        for raw in still_open:
            try:
                raw.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its own thread closed it meanwhile
        for thread in list(self.threads):
            thread.join(30)
            assert not thread.is_alive(), f"{type(self).__name__} does not end"

    def _start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while not self.stopping.is_set():
            try:
                raw, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                self.open.add(raw)
            self._start(self._run, raw)

    def _run(self, raw):
        wrapped = raw
        try:
            wrapped = self.wrap(raw)
            self.serve(Connection(self, wrapped))
        except (OSError, h2.connection.ProtocolError):
            pass  # the client left, or objected: its right
        finally:
            with self.lock:
                self.open.discard(raw)
            # wrap_socket() detaches the raw socket; closing both is harmless.
            wrapped.close()
            raw.close()

    def wrap(self, raw):
        return raw

    def serve(self, connection):
        """A good server, for the subclasses that only change the wrapping."""
        while connection.read_request():
            connection.send(OK)


# ---- Connections that end too early ----

class ResetBeforeReading(BadServer):
    def serve(self, connection):
        connection.reset()


class ResetInMidBody(BadServer):
    """Resets after `after` bytes of the body."""

    def __init__(self, after=1000):
        super().__init__()
        self.after = after

    def serve(self, connection):
        if connection.read_head():
            connection.read_body(self.after)
        connection.reset()


class ResetAfterAcceptance(BadServer):
    def serve(self, connection):
        connection.read_request()
        connection.reset()


class CloseAfterAcceptance(BadServer):
    """An orderly end, but without an answer."""

    def serve(self, connection):
        connection.read_request()


class StaleConnection(BadServer):
    """Promises keep-alive, then closes: at once ("idle"), or without an answer
    when the next request has come ("next")."""

    def __init__(self, when="idle"):
        super().__init__()
        self.when = when

    def serve(self, connection):
        if connection.read_request():
            connection.send(OK)
        if self.when == "next":
            connection.read_head()
            connection.reset()


class NeverReads(BadServer):
    """Takes the connection, and nothing more."""

    def serve(self, connection):
        self.stopping.wait()


# ---- Answers that are wrong ----

class Scripted(BadServer):
    """Reads the request, sends `answer` as it stands, then closes."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def serve(self, connection):
        if connection.read_request():
            connection.send(self.answer)


def TruncatedAnswer():
    return Scripted(OK.replace(b"Length: 15", b"Length: 1000"))


def TruncatedHead():
    return Scripted(OK[:30])


def Http09():
    return Scripted(OK_BODY)


def Garbage(seed=1):
    return Scripted(random.Random(seed).randbytes(4096))


def WrongContentLength(value=b"5"):
    """`value`: e.g. b"5" (too short), b"-1", b"1e3", b"99999999999999999999999"."""
    return Scripted(OK.replace(b"Length: 15", b"Length: " + value))


def TwoContentLengths():
    return Scripted(OK.replace(b"Content-Length: 15", b"Content-Length: 15\r\nContent-Length: 2"))


def SeveralInformational():
    """Legal, if unusual: 100, 102 and two 103 before the answer itself."""
    lines = (b"100 Continue", b"102 Processing", b"103 Early Hints", b"103 Early Hints")
    return Scripted(b"".join(b"HTTP/1.1 " + line + b"\r\n\r\n" for line in lines) + OK)


class Endless(BadServer):
    """Sends `head`, then `part` for ever; at most `limit` bytes, against runaways.
    `sent` says how much the client took before it had enough."""

    def __init__(self, head, part, limit=1 << 36):
        super().__init__()
        self.head, self.part, self.limit, self.sent = head, part, limit, 0
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def serve(self, connection):
        if not connection.read_request():
            return
        connection.send(self.head)
        while self.sent < self.limit and not self.stopping.is_set():
            connection.send(self.part)
            self.sent += len(self.part)


def EndlessHeaders():
    return Endless(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 1000 + b"\r\n")


def EndlessBody():
    return Endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                   b"10000\r\n" + b" " * 65536 + b"\r\n")


def EndlessInformational():
    return Endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")


class SlowBytes(BadServer):
    """A good answer, one byte each `interval` seconds."""

    def __init__(self, interval=0.1, answer=OK):
        super().__init__()
        self.interval, self.answer = interval, answer

    def serve(self, connection):
        while connection.read_request():
            for position in range(len(self.answer)):
                connection.send(self.answer[position:position + 1])
                if self.stopping.wait(self.interval):
                    return


class AnswerBeforeBody(BadServer):
    """Answers on the head alone, then reads on, or closes when `close` is set."""

    def __init__(self, answer=OK, close=False):
        super().__init__()
        self.answer, self.close = answer, close

    def serve(self, connection):
        while connection.read_head():
            connection.send(self.answer)
            if self.close or not connection.read_body():
                return


class ContinueRefused(BadServer):
    """417 to `Expect: 100-continue`, without reading; whatever of the body comes
    none the less is counted. Without that header it is a good server."""

    def serve(self, connection):
        while connection.read_head():
            if re.search(rb"(?im)^expect: *100-continue", connection.head):
                connection.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n"
                                b"Connection: close\r\n\r\n")
                connection.socket.shutdown(socket.SHUT_WR)
                connection.read_on()
                return
            connection.read_body()
            connection.send(OK)


# ---- TLS ----

class Tls(BadServer):
    """A good https server with the given (cert, key): bad are those."""

    scheme = "https"
    protocols = ["http/1.1"]

    def __init__(self, certificate):
        super().__init__()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.context.set_alpn_protocols(self.protocols)

    def wrap(self, raw):
        raw.settimeout(30)
        wrapped = self.context.wrap_socket(raw, server_side=True)
        wrapped.settimeout(None)
        with self.lock:
            self.open.add(wrapped)
        return wrapped


class OldTls(Tls):
    """Speaks TLS 1.1 and nothing newer."""

    def __init__(self, certificate):
        super().__init__(certificate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.context.minimum_version = ssl.TLSVersion.TLSv1_1
            self.context.maximum_version = ssl.TLSVersion.TLSv1_1
        self.context.set_ciphers("ALL:@SECLEVEL=0")


class TlsCutOff(Tls):
    """Reads a request, sends `answer` as it stands, then ends TCP: behind a close_notify
    when `notified`, else without one, as anybody on the way could do it."""

    def __init__(self, certificate, answer, notified=False):
        super().__init__(certificate)
        self.answer, self.notified = answer, notified

    def serve(self, connection):
        if not connection.read_request():
            return
        connection.send(self.answer)
        if self.notified:  # closing alone says nothing
            connection.socket.settimeout(5)
            connection.socket.unwrap()


HALF_A_SERVER_HELLO = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"


class HandshakeStalled(BadServer):
    """Reads the ClientHello, sends `start`, a byte each `interval` seconds, and no more."""

    scheme = "https"

    def __init__(self, start=b"", interval=0):
        super().__init__()
        self.start, self.interval = start, interval

    def serve(self, connection):
        connection.socket.recv(65536)
        for position in range(len(self.start)):
            connection.send(self.start[position:position + 1])
            self.stopping.wait(self.interval)
        self.stopping.wait()


class HandshakeClosed(BadServer):
    """Reads the ClientHello, sends the start of an answer, then closes."""

    scheme = "https"

    def serve(self, connection):
        connection.socket.recv(65536)
        connection.send(HALF_A_SERVER_HELLO)


class HandshakeGarbage(BadServer):
    """Answers the ClientHello in plain HTTP."""

    scheme = "https"

    def serve(self, connection):
        connection.socket.recv(65536)
        connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


# ---- HTTP/2 ----

class Http2(Tls):
    """HTTP/2 over TLS. `fault` is what happens to the first `times` requests:

    None      nothing: 200
    goaway    GOAWAY that disowns the request, as soon as its head is read
    graceful  GOAWAY that includes it, and then no answer: the connection closes
    rst       RST_STREAM with INTERNAL_ERROR after the whole body
    refused   RST_STREAM with REFUSED_STREAM on the head: surely not processed
    closed    the connection closes after the whole body
    """

    protocols = ["h2"]

    def __init__(self, certificate, fault=None, times=1 << 30):
        super().__init__(certificate)
        self.fault, self.times = fault, times
        self.http2_connections = 0

    def _due(self):
        with self.lock:
            self.times -= 1
            return self.times >= 0

    def _leave(self, wire, state):
        # Closing over unread bytes would reset the connection and lose the GOAWAY.
        wire.sendall(state.data_to_send())
        wire.settimeout(0.5)
        while wire.recv(65536):
            pass

    def serve(self, connection):
        wire = connection.socket
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        state.initiate_connection()
        wire.sendall(state.data_to_send())
        with self.lock:
            self.http2_connections += 1
        faulty = set()
        while True:
            received = wire.recv(65536)
            if not received:
                return
            for event in state.receive_data(received):
                if isinstance(event, h2.events.RequestReceived):
                    with self.lock:
                        self.requests += 1
                    if self.fault and self._due():
                        faulty.add(event.stream_id)
                        if self.fault == "refused":
                            state.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
                        elif self.fault == "goaway":
                            state.close_connection(last_stream_id=event.stream_id - 2
                                                   if event.stream_id > 1 else 0)
                            self._leave(wire, state)
                            return
                elif isinstance(event, h2.events.DataReceived):
                    self.count(len(event.data))
                    state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    if event.stream_id not in faulty:
                        state.send_headers(event.stream_id, [
                            (":status", "200"), ("content-type", "application/json")])
                        state.send_data(event.stream_id, OK_BODY, end_stream=True)
                    elif self.fault == "rst":
                        state.reset_stream(event.stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
                    elif self.fault == "graceful":
                        state.close_connection(last_stream_id=event.stream_id)
                        self._leave(wire, state)
                        return
                    elif self.fault == "closed":
                        return
            wire.sendall(state.data_to_send())


def frame(kind, flags, stream, payload=b""):
    """An HTTP/2 frame as it stands on the wire, whatever h2 thinks of it."""
    return (struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) +
            struct.pack(">I", stream) + payload)


class BadHttp2(Http2):
    """Says what subclasses say in `on_head` and `on_end`, and never what it should; until
    `mended` is set: every connection from then on is a good server's, whatever the
    older ones go on doing. `sent`: how much the client took of what has no end."""

    settings = {}
    grants = True  # window for more of the body

    def __init__(self, certificate):
        super().__init__(certificate)
        self.mended = threading.Event()
        self.sent = 0
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def serve(self, connection):
        if self.mended.is_set():
            super().serve(connection)
            return
        wire = connection.socket
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        state.initiate_connection()
        state.update_settings(self.settings)
        wire.sendall(state.data_to_send())
        while received := wire.recv(65536):
            for event in state.receive_data(received):
                if isinstance(event, h2.events.RequestReceived):
                    with self.lock:
                        self.requests += 1
                    self.on_head(wire, event.stream_id)
                elif isinstance(event, h2.events.DataReceived):
                    self.count(len(event.data))
                    if self.grants:
                        state.acknowledge_received_data(event.flow_controlled_length,
                                                        event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.on_end(wire, event.stream_id)
            wire.sendall(state.data_to_send())

    def on_head(self, wire, stream):
        pass

    def on_end(self, wire, stream):
        pass


class Http2NoWindow(BadHttp2):
    """Lets the head come, and of the body nothing, for ever."""

    settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}
    grants = False


class Http2NoStreams(BadHttp2):
    """Lets no request come at all."""

    settings = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 0}


class Http2Silent(BadHttp2):
    """Takes every request, and answers none."""


class Http2Flood(BadHttp2):
    """On the head of a request, `part` without end; `reads`: what the client says to it
    is taken, so that it need not keep that."""

    def __init__(self, certificate, part, reads=False):
        super().__init__(certificate)
        self.part, self.reads = part, reads

    def on_head(self, wire, stream):
        while not self.stopping.is_set():
            wire.sendall(self.part)
            self.sent += len(self.part)
            while self.reads and (wire.pending() or select.select([wire], [], [], 0)[0]):
                if not wire.recv(65536):
                    return


class Http2Garbage(BadHttp2):
    """On the head of a request, `garbage`, and the end."""

    def __init__(self, certificate, garbage):
        super().__init__(certificate)
        self.garbage = garbage

    def on_head(self, wire, stream):
        wire.sendall(self.garbage)
        raise OSError


class Http2Endless(BadHttp2):
    """Answers a whole request by head(stream), then part(stream) without end, each after
    `interval` seconds."""

    def __init__(self, certificate, head, part, interval=0):
        super().__init__(certificate)
        self.head, self.part, self.interval = head, part, interval

    def on_end(self, wire, stream):
        part = self.part(stream)
        wire.sendall(self.head(stream))
        while not self.stopping.wait(self.interval):
            wire.sendall(part)
            self.sent += len(part)


# Of HPACK: ":status: 200" from the static table, ":status: 103" and a long field as they stand.
STATUS_200 = b"\x88"
STATUS_103 = b"\x08\x03103"
LONG_FIELD = b"\x00\x01a\x7d" + b"x" * 125


def Http2EndlessBody(certificate):
    return Http2Endless(certificate, lambda stream: frame(1, 4, stream, STATUS_200),
                        lambda stream: frame(0, 0, stream, b" " * 16000))


def Http2EmptyBody(certificate):
    """DATA without end that has nothing in it."""
    return Http2Endless(certificate, lambda stream: frame(1, 4, stream, STATUS_200),
                        lambda stream: frame(0, 0, stream) * 1000)


def Http2SlowBody(certificate):
    return Http2Endless(certificate, lambda stream: frame(1, 4, stream, STATUS_200),
                        lambda stream: frame(0, 0, stream, b" "), interval=0.3)


def Http2EndlessHeaders(certificate):
    """HEADERS, and CONTINUATION without end."""
    return Http2Endless(certificate, lambda stream: frame(1, 0, stream, STATUS_200),
                        lambda stream: frame(9, 0, stream, LONG_FIELD * 100))


def Http2EndlessInformational(certificate):
    return Http2Endless(certificate, lambda stream: b"",
                        lambda stream: frame(1, 4, stream, STATUS_103))


class Http2Push(BadHttp2):
    """Promises what the client said it does not want, and answers nothing else."""

    def on_end(self, wire, stream):
        wire.sendall(frame(5, 4, stream, struct.pack(">I", 2) + STATUS_200))
