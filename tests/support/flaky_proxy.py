"""Stands in front of an S3 server and lets some requests fail: 503, no answer, a reset before or in the middle of one."""

import contextlib
import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("503", "stall", "reset", "half")
_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "expect")


class FlakyProxy(ThreadingHTTPServer):
    """Forwards to `port` of this machine; `share` of the requests fail, chosen by a seeded generator, in every way in turn.

    A stall is silence for `stall_s` seconds, longer than a client waits; there are `most_stalls` of them.
    """

    daemon_threads = True

    def __init__(self, port: int, share: float, stall_s: float, most_stalls: int, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target, self.share, self.stall_s, self.most_stalls = port, share, stall_s, most_stalls
        self.happened: Counter[str] = Counter()
        self.stopping = threading.Event()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def choose(self) -> str | None:
        """What goes wrong with the next request."""
        with self._lock:
            if self._random.random() >= self.share:
                self.happened["forwarded"] += 1
                return None
            allowed = [fault for fault in FAULTS if fault != "stall" or self.happened["stall"] < self.most_stalls]
            fault = min(allowed, key=lambda fault: self.happened[fault])
            self.happened[fault] += 1
            return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is what this is for."""


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyProxy

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.choose()
        if fault == "503":
            self._answer(503, {"Content-Type": "application/xml"}, _SLOW_DOWN)
        elif fault == "stall":
            self.server.stopping.wait(self.server.stall_s)
            self._reset()
        elif fault == "reset":
            self._reset()
        else:
            self._forward(body, half=fault == "half")

    def _forward(self, body: bytes, *, half: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        finally:
            connection.close()
        if half:
            self._answer(answer.status, headers, content, stop_at=len(content) // 2)
            self._reset()
        else:
            self._answer(answer.status, headers, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes, stop_at: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:stop_at])

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def flaky_proxy(port: int, share: float, stall_s: float, most_stalls: int = 2, seed: int = 0) -> Iterator[FlakyProxy]:
    """Run the proxy while open."""
    proxy = FlakyProxy(port, share, stall_s, most_stalls, seed)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join(10)
