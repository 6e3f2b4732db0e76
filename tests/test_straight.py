"""A body read past gunicorn's own reader, with gunicorn's own parser on the other side of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser

from imgproxy.errors import BadBody, TooSlow
from imgproxy.web.body import PIECE, Body
from imgproxy.web.straight import straight
from tests.plain import png
from tests.serving import Server, serving

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


@contextmanager
def arriving(body: bytes, head: str = "", after: bytes = b"") -> Iterator[tuple[Any, dict[str, Any], socket.socket]]:
    """A request of which gunicorn has parsed the head: its parser, what an application is given, and the sender's end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(f"POST /x HTTP/1.1\r\nHost: a\r\n{head or f'Content-Length: {len(body)}'}\r\n\r\n".encode() + body + after)
        parser = get_parser(Config(), ours, ("127.0.0.1", 1))
        request = next(parser)
        yield parser, {"wsgi.input": request.body, "gunicorn.socket": ours, "CONTENT_LENGTH": str(len(body))}, theirs


@pytest.mark.parametrize("size", [1, 100, 8_000, 100_000])
def test_gunicorn_lets_its_bodies_be_read_straight(size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    with arriving(body, after=NEXT) as (parser, environ, _):
        way = straight(environ, size)
        assert way is not None
        assert way.read(10) == body[:10]
        place = memoryview(bytearray(size + 10))
        assert way.readinto(place) == max(0, size - 10)
        assert place[: size - 10] == body[10:] if size > 10 else True
        assert way.read(10) == b""
        assert next(parser).uri == "/next"


@pytest.mark.parametrize("read", [0, 1, 9_000, 99_999])
def test_what_is_left_unread_is_discarded_before_the_next_request(read: int) -> None:
    with arriving(bytes(100_000), after=NEXT) as (parser, environ, _):
        way = straight(environ, 100_000)
        assert way is not None
        assert len(way.read(read)) == read
        assert next(parser).uri == "/next"


def test_a_body_that_ends_too_early_is_no_body() -> None:
    with arriving(bytes(1_000), head="Content-Length: 5000") as (_, environ, sender):
        sender.shutdown(socket.SHUT_WR)
        body = Body({**environ, "CONTENT_LENGTH": "5000"}, 10_000)
        with pytest.raises(BadBody, match="only 1000 came"):
            list(body.pieces())
        body.close()


@pytest.mark.parametrize("way", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("silent", [False, True])
def test_what_came_before_the_end_is_handed_over_first(way: str, silent: bool) -> None:
    data = bytes(number % 251 for number in range(3_000))
    chunked = "chunked" in way
    sent = b"bb8\r\n" + data + b"\r\n" if chunked else data
    with arriving(sent, head=way) as (_, environ, sender):
        told = {"HTTP_TRANSFER_ENCODING": "chunked"} if chunked else {"CONTENT_LENGTH": "5000"}
        body = Body({**environ, **told}, 10_000, seconds=0.2)
        if not silent:
            sender.shutdown(socket.SHUT_WR)
        assert (body.read(1_000), body.read(2**16)) == (data[:1_000], data[1_000:])
        for _ in range(2):
            with pytest.raises(TooSlow if silent else BadBody):
                body.read(2**16)
        body.close()


def test_what_came_before_a_line_was_torn_is_handed_over_first() -> None:
    with arriving(bytes(1_000), head="Content-Length: 5000") as (_, environ, sender):
        body = Body({**environ, "CONTENT_LENGTH": "5000"}, 10_000)
        environ["gunicorn.socket"].sendall(b"never read")
        sender.close()
        assert body.read(2**16) == bytes(1_000)
        with pytest.raises(BadBody, match="only 1000 came"):
            body.read(2**16)
        body.close()


def test_pieces_are_all_of_a_body() -> None:
    data = bytes(number % 253 for number in range(150_000))
    with arriving(data) as (_, environ, _sender):
        body = Body(environ, 200_000)
        assert b"".join(map(bytes, body.pieces())) == data
        body.close()
    plain = {"wsgi.input": BytesIO(data * 3), "CONTENT_LENGTH": str(len(data) * 3)}
    assert [len(piece) for piece in Body(plain, 10**6).pieces()] == [PIECE, len(data) * 3 - PIECE]


def test_what_comes_in_chunks_or_from_another_server_goes_its_usual_way() -> None:
    with arriving(b"5\r\nhello\r\n0\r\n\r\n", head="Transfer-Encoding: chunked") as (_, environ, _sender):
        assert straight(environ, None) is None
        assert straight(environ, 5) is None
        body = Body({**environ, "HTTP_TRANSFER_ENCODING": "chunked"}, 100)
        assert body.read(-1) == b"hello"
        body.close()
    assert straight({"wsgi.input": BytesIO(b"hello")}, 5) is None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("straight"), IMG_WORKERS="1") as server:
        yield server


def test_uploads_sent_in_one_go_are_answered_one_by_one(server: Server) -> None:
    pictures = [png(400, 300, seed) for seed in range(3)]
    head = f"POST /admin/images HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {server.token}\r\nContent-Length: "
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(b"".join(f"{head}{len(picture)}\r\n\r\n".encode() + picture for picture in pictures))
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: line.recv(2**16), b""))
    assert answers.count(b"HTTP/1.1 201 Created") == 3
    assert answers.endswith(b"ok\n")
