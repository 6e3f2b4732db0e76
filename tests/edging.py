"""A server with nginx in front, and a way to ask gunicorn behind it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgproxy.edge import together
from imgproxy.errors import BadSettings
from tests.serving import Response, Server, serving


def nginx() -> str:
    """Where nginx is; without it the test is skipped."""
    try:
        return together.nginx()
    except BadSettings as why:
        pytest.skip(str(why))


@contextmanager
def edging(data: Path, **settings: str) -> Iterator[Server]:
    """A server with nginx in front, with these settings, while the block runs."""
    nginx()
    with serving(data, IMG_EDGE="nginx", **settings) as server:
        yield server


class Behind(http.client.HTTPConnection):
    """A connection to gunicorn's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("gunicorn", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def behind(server: Server, path: str, method: str = "GET", **headers: str) -> Response:
    """What gunicorn says by itself: the bytes, not where nginx finds them."""
    connection = Behind(server.data / "run" / "gunicorn.sock")
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {"X-Edge": "bytes", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def raw(server: Server, request: bytes, *, front: bool) -> bytes:
    """What nginx (or gunicorn, behind it) says to these very bytes, until it hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) if front else socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        if not front:
            sock.connect(str(server.data / "run" / "gunicorn.sock"))
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
        return answer
