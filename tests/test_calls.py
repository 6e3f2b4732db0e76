"""Calls to other servers: what is sent, what comes back, and what is done when it does not."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest

from imgproxy.calls import Line, Request
from imgproxy.errors import CallFailed, NoConnection, TooMuch
from tests.serving import free_port
from tests.strange import Asked, Stranger, stranger


def echo(asked: Asked) -> None:
    asked.answer(
        200, asked.body, x_method=asked.command, x_words=asked.headers.get("X-Words", ""), x_cookie=asked.headers.get("Cookie", "")
    )


def hang_up(asked: Asked) -> None:
    asked.answer(200, b"half", length="8")
    asked.hang_up()


@pytest.fixture(scope="module")
def server() -> Iterator[Stranger]:
    habits = {
        "echo": echo,
        "cut": hang_up,
        "cookie": lambda asked: asked.answer(200, set_cookie="who=me; Path=/"),
        "on": lambda asked: asked.answer(302, location="/echo"),
        "packed": lambda asked: asked.answer(200, b"\x1f\x8b not unpacked", content_encoding="gzip"),
        "hung": lambda asked: asked.drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000, 0.1),
        "words": lambda asked: asked.answer(200, asked.headers["Accept-Encoding"].encode()),
    }
    with stranger(habits) as running:
        yield running


@pytest.mark.parametrize("body", [b"some bytes", io.BytesIO(b"some bytes"), (part for part in (b"some ", b"bytes"))])
def test_what_is_sent_arrives(server: Stranger, body: object) -> None:
    headers = {"X-Words": "hello", "Content-Length": "10"}
    with Line(server.url("")) as line, line.call(Request("POST", "/echo", headers, body)) as answer:  # type: ignore[arg-type]
        assert (answer.status, answer.headers["x-method"], answer.headers["x-words"]) == (200, "POST", "hello")
        assert answer.read() == b"some bytes"
        assert answer.peer == "127.0.0.1"


def test_nothing_is_done_behind_the_callers_back(server: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with Line() as line:
        for path, status in (("/cookie", 200), ("/on", 302)):
            with line.call(Request("GET", server.url(path))) as answer:
                assert answer.status == status
        with line.call(Request("GET", server.url("/echo"))) as answer:
            assert answer.headers["x-cookie"] == ""
        with line.call(Request("GET", server.url("/packed"))) as answer:
            assert answer.read() == b"\x1f\x8b not unpacked"
        with line.call(Request("GET", server.url("/words"))) as answer:
            assert answer.read() == b"identity"


def test_no_more_is_read_than_is_wanted(server: Stranger) -> None:
    with Line(server.url("")) as line, line.call(Request("POST", "/echo", body=b"x" * 1000)) as answer, pytest.raises(TooMuch):
        answer.read(999)


def test_an_answer_that_breaks_off_is_no_answer(server: Stranger) -> None:
    with Line(server.url("")) as line, line.call(Request("GET", "/cut")) as answer, pytest.raises(CallFailed) as told:
        answer.read()
    assert told.value.again


def test_a_server_that_is_not_there_is_no_connection() -> None:
    with Line(f"http://127.0.0.1:{free_port()}") as line, pytest.raises(NoConnection), line.call(Request("GET", "/")):
        pass


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/", "http://[::1/"])
def test_what_cannot_be_asked_is_not_asked_again(target: str) -> None:
    with Line() as line, pytest.raises(CallFailed) as told, line.call(Request("GET", target)):
        pass
    assert not told.value.again


def test_a_server_that_drips_is_cut_off_at_the_moment_said(server: Stranger) -> None:
    began = time.monotonic()
    with Line(server.url(""), seconds=30) as line, pytest.raises(CallFailed), line.call(Request("GET", "/hung", until=began + 0.5)):
        pass
    assert 0.5 <= time.monotonic() - began < 20
