"""The window to the internet: what comes in, what breaks off and goes on, and where no connection is ever made."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgproxy import addresses
from imgproxy.calls import trusting
from imgproxy.errors import BadAddress, CallFailed, NoConnection, NotAnImage, TooMuch
from imgproxy.fetch import Bounds, Window
from tests.strange import Asked, Stranger, stranger

PICTURE = (Path(__file__).parent / "images/good/orientation__Landscape_6.jpg").read_bytes()
BOUNDS = Bounds(file_bytes=1_000_000, seconds=30, step=5)


def broken_off(asked: Asked) -> None:
    """Sends a third at a time, and goes on where it is asked to if the mark is right."""
    begin, rest = 0, asked.headers.get("Range")
    words = {"etag": '"v1"', "content_type": "image/jpeg"}
    if rest and asked.headers.get("If-Range") == '"v1"':
        begin = int(rest.removeprefix("bytes=").rstrip("-"))
        words["content_range"] = f"bytes {begin}-{len(PICTURE) - 1}/{len(PICTURE)}"
    asked.answer(206 if begin else 200, PICTURE[begin : begin + len(PICTURE) // 3 + 1], length=str(len(PICTURE) - begin), **words)
    asked.hang_up()


def changing(asked: Asked) -> None:
    """Breaks off once, and has another picture the next time."""
    first = asked.server.asked[asked.path] == 1
    body = PICTURE[:100_000] if first else b"\x89PNG\r\n\x1a\n" + b"another" * 10
    asked.answer(200, body, length=str(len(PICTURE)) if first else str(len(body)), etag='"a"' if first else '"b"')
    if first:
        asked.hang_up()


def no_mark(asked: Asked) -> None:
    """Breaks off once, and says nothing by which the bytes could be told again."""
    first = asked.server.asked[asked.path] == 1
    asked.answer(200, PICTURE[:50_000] if first else PICTURE, length=str(len(PICTURE)))
    if first:
        asked.hang_up()


def endless(asked: Asked) -> None:
    """Goes on for ever, without a length."""
    asked.answer(200, PICTURE, length="")
    while not asked.server.over.is_set():
        asked.wfile.write(b"x" * 65536)


DATES = {
    "year": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "zone": "Mon, 01 Jan 2024 00:00:00 +99999999999999",
    "none": "x",
}


def dated(asked: Asked) -> None:
    """Breaks off once, and says of the picture that it is of no day that there is."""
    first = asked.server.asked[asked.path] == 1
    words = {"last_modified": DATES[asked.path.rpartition("/")[2]], "date": "Mon, 01 Jan 2024 00:00:00 GMT"}
    asked.answer(200, PICTURE[:50_000] if first else PICTURE, length=str(len(PICTURE)), **words)
    if first:
        asked.hang_up()


HABITS = {
    "good": lambda asked: asked.answer(200, PICTURE, content_type="image/jpeg; charset=binary"),
    "hop": lambda asked: asked.answer(302, location="/good"),
    "circle": lambda asked: asked.answer(301, location="/circle"),
    "private": lambda asked: asked.answer(302, location="http://169.254.169.254/latest/meta-data/"),
    "nowhere": lambda asked: asked.answer(302),
    "noport": lambda asked: asked.answer(302, location="http://a:x/"),
    "bracket": lambda asked: asked.answer(302, location="http://["),
    "future": lambda asked: asked.answer(302, location="http://[v1.a]/"),
    "odd": lambda asked: asked.answer(302, location="gopher://127.0.0.1/"),
    "third": broken_off,
    "changing": changing,
    "nomark": no_mark,
    "dated": dated,
    "text": lambda asked: asked.answer(200, b"<html>" * 100, content_type="image/png"),
    "empty": lambda asked: asked.answer(200, content_type="image/png"),
    "large": lambda asked: asked.answer(200, PICTURE, length="1000001"),
    "endless": endless,
    "packed": lambda asked: asked.answer(200, PICTURE, content_encoding="gzip"),
    "gone": lambda asked: asked.answer(410),
    "ill": lambda asked: asked.answer(500),
    "once": lambda asked: asked.answer(*((503,) if asked.server.asked[asked.path] == 1 else (200, PICTURE))),
    "drip": lambda asked: asked.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + PICTURE[:9999], 0.05),
    "hear": lambda asked: asked.answer(200 if asked.body == b"word" and asked.headers["X-Word"] == "yes" else 400),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Stranger]:
    with stranger(HABITS) as running:
        yield running


class Told(list[tuple[str, str]]):
    def hear(self, url: str, error: BadAddress) -> None:
        self.append((url, error.where or error.why))


def window(server: Stranger, told: Told | None = None, bounds: Bounds = BOUNDS, **more: Any) -> Window:
    rules = addresses.Rules(networks=(addresses.network("127.0.0.1"),), ports=(server.port,))
    return Window(rules, bounds, (told if told is not None else Told()).hear, **more)


@pytest.mark.parametrize("path", ["/good", "/hop", "/third", "/nomark", "/once", *(f"/dated/{which}" for which in DATES)])
def test_a_picture_comes_whole_whatever_happens_on_the_way(server: Stranger, tmp_path: Path, path: str) -> None:
    fetched = window(server).fetch(server.url(path), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == PICTURE
    assert fetched.size == len(PICTURE)


def test_it_is_told_where_the_picture_was_and_what_it_is_called(server: Stranger, tmp_path: Path) -> None:
    assert window(server).fetch(server.url("/hop"), tmp_path / "part") == (server.url("/good"), len(PICTURE), "image/jpeg")


def test_a_try_goes_on_where_another_process_was_cut_off(server: Stranger, tmp_path: Path) -> None:
    bounds = replace(BOUNDS, tries=1)
    for _ in range(2):
        with pytest.raises(CallFailed):
            window(server, bounds=bounds).fetch(server.url("/third?again"), tmp_path / "part")
    window(server, bounds=bounds).fetch(server.url("/third?again"), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == PICTURE
    assert server.asked["/third?again"] == 3


def test_two_halves_of_two_pictures_never_meet(server: Stranger, tmp_path: Path) -> None:
    window(server).fetch(server.url("/changing"), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == b"\x89PNG\r\n\x1a\n" + b"another" * 10


@pytest.mark.parametrize(
    ("path", "error", "asked"),
    [
        ("/circle", CallFailed, 6),
        ("/private", BadAddress, 1),
        ("/odd", BadAddress, 1),
        ("/noport", BadAddress, 1),
        ("/bracket", BadAddress, 1),
        ("/future", BadAddress, 1),
        ("/text", NotAnImage, 1),
        ("/empty", NotAnImage, 1),
        ("/large", TooMuch, 1),
        ("/endless", TooMuch, 1),
        ("/packed", CallFailed, 1),
        ("/gone", CallFailed, 1),
        ("/unknown", CallFailed, 1),
        ("/ill", CallFailed, 3),
        ("/nowhere", CallFailed, 6),
    ],
)
def test_what_is_no_picture_for_us_is_refused_and_asked_as_often_as_makes_sense(
    server: Stranger, tmp_path: Path, path: str, error: type[Exception], asked: int
) -> None:
    with pytest.raises(error):
        window(server).fetch(server.url(path), tmp_path / "part")
    assert server.asked[path] == asked


def test_a_server_that_drips_is_left_at_the_end_of_the_time(server: Stranger, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(CallFailed):
        window(server, bounds=replace(BOUNDS, seconds=1.0)).fetch(server.url("/drip"), tmp_path / "part")
    assert time.monotonic() - began < 20


def test_a_resolver_that_never_answers_holds_nobody_up(server: Stranger, tmp_path: Path) -> None:
    def slow(host: str, port: int) -> list[str]:
        server.over.wait(60)
        return []

    with pytest.raises(NoConnection):
        window(server, bounds=replace(BOUNDS, step=0.2, tries=1), resolve=slow).fetch(server.url("/good"), tmp_path / "part")


def test_the_next_address_is_tried_when_one_does_not_listen(server: Stranger, tmp_path: Path) -> None:
    rules = addresses.Rules(networks=(addresses.network("127.0.0.0/8"),), ports=(server.port,))
    both = Window(rules, BOUNDS, Told().hear, resolve=lambda host, port: ["127.1.2.3", "127.0.0.1"])
    both.fetch(f"http://pictures.test:{server.port}/good", tmp_path / "part")


def test_a_redirect_into_private_space_is_refused_and_told(server: Stranger, tmp_path: Path) -> None:
    told = Told()
    rules = addresses.Rules(networks=(addresses.network("127.0.0.1"),), ports=(server.port, 80))
    with pytest.raises(BadAddress):
        Window(rules, BOUNDS, told.hear).fetch(server.url("/private?secret=1"), tmp_path / "part")
    assert told == [("http://169.254.169.254/latest/meta-data/", "169.254.169.254 (link-local)")]


def test_a_refusal_is_told_without_secrets(server: Stranger) -> None:
    told = Told()
    with pytest.raises(BadAddress):
        window(server, told).check("http://me:hidden@example.org/a?token=hidden")
    assert told == [("http://***@example.org/a", "a URL with a user or a password is not asked")]


class Rebinding:
    """A name server that says one thing first and another later."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that this process connects to."""
    made: list[Any] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: Any) -> None:
        made.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    return made


def test_a_name_that_turns_private_after_it_was_judged_changes_nothing(server: Stranger, tmp_path: Path, connected: list[Any]) -> None:
    """The first answer is the one that may be asked; the second one, private, would be that of whoever looks again."""
    resolver = Rebinding(["127.0.0.1"], ["127.0.0.2"])
    window(server, resolve=resolver).fetch(f"http://rebinding.test:{server.port}/good", tmp_path / "part")
    assert resolver.asked == 1
    assert connected == [("127.0.0.1", server.port)]


def test_a_name_that_turns_private_at_a_redirect_is_refused_there(server: Stranger, tmp_path: Path, connected: list[Any]) -> None:
    resolver, told = Rebinding(["127.0.0.1"], ["10.0.0.1"]), Told()
    with pytest.raises(BadAddress):
        window(server, told, resolve=resolver).fetch(f"http://rebinding.test:{server.port}/hop", tmp_path / "part")
    assert connected == [("127.0.0.1", server.port)]
    assert told == [(f"http://rebinding.test:{server.port}/good", "10.0.0.1 (private)")]


@pytest.mark.parametrize(
    "spelling",
    [
        *(
            "127.0.0.1",
            "localhost",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "017700000001",
            "[::1]",
            "[::]",
            "0",
            "0.0.0.0",
            "127.0.0.1.",
        ),
        *(
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "[fe80::1]",
            "LOCALHOST",
            "localhost.",
        ),
    ],
)
def test_no_connection_is_ever_made_to_this_machine_however_it_is_spelled(
    server: Stranger, tmp_path: Path, connected: list[Any], spelling: str
) -> None:
    told = Told()
    asking = Window(addresses.Rules(ports=(server.port,)), replace(BOUNDS, tries=1), told.hear)
    with pytest.raises((BadAddress, NoConnection)):
        asking.fetch(f"http://{spelling}:{server.port}/good", tmp_path / "part")
    assert [address for address in connected if address[1] == server.port] == []


def test_one_private_address_among_public_ones_spoils_them_all(server: Stranger, tmp_path: Path, connected: list[Any]) -> None:
    asking = Window(addresses.Rules(), BOUNDS, Told().hear, resolve=lambda host, port: ["8.8.8.8", "192.168.0.1"])
    with pytest.raises(BadAddress):
        asking.fetch("http://mixed.test/", tmp_path / "part")
    assert connected == []


def test_a_word_goes_out_by_the_same_rules(server: Stranger) -> None:
    window(server).post(server.url("/hear"), b"word", {"X-Word": "yes"})
    for path in ("/hear?no", "/hop", "/ill"):
        with pytest.raises(CallFailed):
            window(server).post(server.url(path), b"other", {"X-Word": "yes"})
    with pytest.raises(BadAddress):
        window(server).post("http://10.0.0.1/", b"word", {})


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_the_server_at_a_number_has_to_prove_to_be_of_the_name(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=pictures.test -addext subjectAltName=DNS:pictures.test"
    subprocess.run([*words.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with stranger(HABITS, tls) as server:

        def asking(trust: ssl.SSLContext | None) -> Window:
            return window(server, bounds=replace(BOUNDS, tries=1), resolve=lambda host, port: ["127.0.0.1"], trust=trust)

        trust = trusting(str(certificate))
        asking(trust).fetch(f"https://pictures.test:{server.port}/good", tmp_path / "part")
        assert (tmp_path / "part").read_bytes() == PICTURE
        for url, context in ((f"https://other.test:{server.port}/good", trust), (f"https://pictures.test:{server.port}/good", None)):
            with pytest.raises(NoConnection):
                asking(context).fetch(url, tmp_path / "other")
