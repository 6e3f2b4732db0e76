"""A server on the loopback with habits of all kinds, for whoever fetches from strangers; it counts what it was asked."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Asked(BaseHTTPRequestHandler):
    """One request; a habit writes the answer, by these few verbs or to the socket itself."""

    protocol_version = "HTTP/1.1"
    server: Stranger

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer at once; underscores in the names of headers stand for hyphens. `length` says another length than the true one."""
        length = headers.pop("length", str(len(body)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length:
            self.send_header("Content-Length", length)
        else:
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        """End the connection, now."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def drip(self, data: bytes, pause: float) -> None:
        """Send a byte now and then, until the other side or the test has had enough."""
        with contextlib.suppress(OSError):
            for byte in data:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.server.over.wait(pause):
                    break
        self.hang_up()

    @property
    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        word = self.path.partition("?")[0].strip("/").partition("/")[0]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.habits.get(word, _unknown)(self)

    do_HEAD = do_POST = do_PATCH = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


Habit = Callable[[Asked], None]


def _unknown(asked: Asked) -> None:
    asked.answer(404)


class Stranger(ThreadingHTTPServer):
    """The server: its habits by the first word of the path, how often each path was asked, and an event that ends what would wait."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, habits: dict[str, Habit]) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.habits = habits
        self.asked: Counter[str] = Counter()
        self.over = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Strangers hang up in the middle; that is what they are here for."""


@contextmanager
def stranger(habits: dict[str, Habit], tls: ssl.SSLContext | None = None) -> Iterator[Stranger]:
    """A server of these habits while the block runs."""
    server = Stranger(habits)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join(30)
