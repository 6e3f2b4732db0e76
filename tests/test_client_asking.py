"""Who asks, what is asked again, what is not, and that nobody reads the token."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from imgproxy.client import Client, Kept, Patience
from imgproxy.client.asking import Asking, Question
from imgproxy.errors import BadSettings, Busy, CallFailed, Error, NoConnection
from tests.serving import free_port
from tests.strange import Asked, Stranger, stranger

TOKEN = "img_nobody-reads-this"
QUICK = Patience(seconds=5, tries=4, total=60)


def busy(asked: Asked, **headers: str) -> None:
    body = json.dumps({"type": "urn:imgproxy:busy", "title": "Busy", "status": 503, "detail": "full"}).encode()
    asked.answer(503, body, Content_Type="application/problem+json", **headers)


@contextmanager
def asking(habit: Callable[[Asked, int], None]) -> Iterator[tuple[Asking, Stranger]]:
    """A server with one habit, which is told how often it was asked before, and somebody who asks it."""
    times = iter(range(100))
    with stranger({"x": lambda asked: habit(asked, next(times))}) as server:
        asker = Asking(f"http://127.0.0.1:{server.port}", TOKEN, QUICK)
        try:
            yield asker, server
        finally:
            asker.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_was_put_off_is_asked_again(method: str) -> None:
    def habit(asked: Asked, before: int) -> None:
        _ = asked.body
        busy(asked, Retry_After="0") if before < 2 else asked.answer(200, b'{"n": 1}')

    with asking(habit) as (asker, server):
        assert asker.ask(Question(method, "/x", body=lambda: b"abc")).json() == {"n": 1}
        assert server.asked["/x"] == 3


@pytest.mark.parametrize(("method", "again", "times"), [("GET", False, 3), ("POST", True, 3), ("POST", False, 1), ("PATCH", False, 1)])
def test_what_broke_off_is_asked_again_only_if_that_does_no_harm(method: str, again: bool, times: int) -> None:
    def habit(asked: Asked, before: int) -> None:
        _ = asked.body
        asked.hang_up() if before < 2 else asked.answer(200, b"{}")

    with asking(habit) as (asker, server):
        question = Question(method, "/x", again=again)
        if times == 1:
            with pytest.raises(CallFailed):
                asker.ask(question)
        else:
            assert asker.ask(question).status == 200
        assert server.asked["/x"] == times


def test_an_answer_that_broke_off_is_asked_for_again() -> None:
    with asking(lambda asked, before: asked.answer(200, b"{}", length="10" if before < 1 else "2")) as (asker, server):
        server_hangs_up = asker.ask(Question("GET", "/x"))
        assert server_hangs_up.json() == {}


def test_there_is_an_end_of_asking_again() -> None:
    with asking(lambda asked, _: busy(asked, Retry_After="0")) as (asker, server):
        with pytest.raises(Busy):
            asker.ask(Question("GET", "/x"))
        assert server.asked["/x"] == QUICK.tries
    with asking(lambda asked, _: busy(asked, Retry_After="3600")) as (asker, server):
        with pytest.raises(Busy) as told:
            asker.ask(Question("GET", "/x"))
        assert told.value.retry_after == 3600
        assert server.asked["/x"] == 1


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 409, 500])
def test_what_is_refused_or_led_elsewhere_is_not_asked_again(status: int) -> None:
    def habit(asked: Asked, _before: int) -> None:
        asked.answer(status, b"", Location="http://127.0.0.1:1/")

    with asking(habit) as (asker, server):
        with pytest.raises(CallFailed, match=str(status)):
            asker.ask(Question("GET", "/x"))
        assert server.asked == {"/x": 1}


def test_nobody_there_is_told_as_such() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", TOKEN, patience=Patience(tries=2)) as client, pytest.raises(NoConnection):
        client.status()


@pytest.mark.parametrize("data", [b"[]", b"null", b"{", b'{"commit": 1}', b'"' + b"x" * 100])
def test_an_answer_of_another_kind_is_told_as_such(data: bytes) -> None:
    with stranger({"admin": lambda asked: asked.answer(200, data)}) as server, Client(server.url(""), TOKEN, patience=QUICK) as client:
        for ask in (client.status, client.sessions, lambda: list(client.search()), lambda: client.record("0" * 64)):
            with pytest.raises(CallFailed):
                ask()


def test_an_upload_that_cannot_be_ended_is_an_upload_all_the_same() -> None:
    hash = hashlib.sha256(b"abc").hexdigest()

    def upload(asked: Asked) -> None:
        _ = asked.body
        if asked.command == "POST":
            asked.answer(201, Location="/admin/uploads/1", Upload_Offset="0")
        else:
            asked.answer(204, Upload_Offset="3", Image_Hash=hash, Image_Name="x", Image_Url="/x", Image_New="true")

    with stranger({"admin": upload}) as server, Client(server.url(""), TOKEN, patience=QUICK, part=2) as client:
        assert client.upload(io.BytesIO(b"abc")) == Kept(hash, "x", "/x", True)


@pytest.mark.parametrize(
    "url", ["", "images.example.org", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://x#y", "file:///etc/passwd"]
)
def test_what_is_no_server_is_refused(url: str) -> None:
    with pytest.raises(BadSettings, match="server"):
        Client(url, TOKEN)


def test_nobody_reads_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    heard: list[str] = []

    def habit(asked: Asked, before: int) -> None:
        heard.append(asked.headers["Authorization"])
        asked.answer(500) if before == 0 else asked.hang_up()

    with asking(habit) as (asker, server):
        told = [repr(asker), str(vars(asker))]
        for _ in range(2):
            try:
                asker.ask(Question("POST", "/x"))
            except Error as error:
                told += [repr(error), *traceback.format_exception(error)]
        client = Client(asker.url, TOKEN)
        told += [repr(client), str(client), str(vars(client)), caplog.text]
        client.close()
    assert heard == [f"Bearer {TOKEN}"] * 2
    assert not [text for text in told if TOKEN in text]


def test_the_client_loads_neither_libvips_nor_the_doors() -> None:
    code = "import sys, imgproxy.client; print(*{module.split('.')[0] for module in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert not {"pyvips", "falcon", "gunicorn", "huey", "diskcache"} & set(done.stdout.decode().split())
