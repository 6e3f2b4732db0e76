"""The only window to the internet: a picture at a URL comes into a file, and a word goes out to a URL. No address is asked unseen.

A name is looked up once; all its addresses are judged (`addresses.py`), and the connection goes to one of these very numbers, so that it
does not matter what the name leads to a moment later. The server behind it has to prove to be of that name all the same. So it goes at
every redirect. Everything is bounded: the bytes, each step, and the whole time.

What has come is kept in a file with a note beside it; when the server said by which mark the same bytes can be told again (`ETag`,
`Last-Modified`), the next try goes on where it broke off, in this process or in another.
"""

from __future__ import annotations

import errno
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from ssl import SSLContext
from typing import BinaryIO, NamedTuple, TypeAlias

from imgproxy.addresses import Rules, Target
from imgproxy.calls import Answer, Line, Request
from imgproxy.errors import BadAddress, CallFailed, NoConnection, NotAnImage, StoreFull, TooMuch
from imgproxy.picture import HEAD, sniff

Resolve: TypeAlias = Callable[[str, int], list[str]]
"""The addresses that a name leads to; `OSError` if it leads nowhere."""
Told: TypeAlias = Callable[[str, BadAddress], object]
"""Hears of every refusal: what was asked (without what may be secret), and why not."""

_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN = (408, 425, 429)
_ADDRESSES = 3
_FIRST_PAUSE = 0.2
_SURELY_OLD = 60.0


def addresses_of(host: str, port: int) -> list[str]:
    """What the resolver of this machine says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one fetch may cost: bytes, seconds in all and for each step, redirects, and tries."""

    file_bytes: int = 64 * 2**20
    seconds: float = 60.0
    step: float = 10.0
    hops: int = 5
    tries: int = 3


class Fetched(NamedTuple):
    """What came: from where in the end, how many bytes, and what the server calls them."""

    url: str
    size: int
    type: str


class Window:
    """Asks strangers by the rules; `told` hears of what was refused."""

    def __init__(
        self, rules: Rules, bounds: Bounds, told: Told, *, resolve: Resolve = addresses_of, trust: SSLContext | None = None
    ) -> None:
        self._rules = rules
        self._bounds = bounds
        self._told = told
        self._resolve = resolve
        self._trust = trust
        self._lock = threading.Lock()
        self._opened: Line | None = None

    def check(self, url: str) -> None:
        """Return if the text of a URL is one that may be asked, or raise `BadAddress`; nothing is looked up."""
        with self._telling(url):
            self._rules.target(url)

    def fetch(self, url: str, file: Path) -> Fetched:
        """Bring what is at a URL into a file, going on with what is there of an earlier try; it begins like an image."""
        until = time.monotonic() + self._bounds.seconds
        part = _Part(file)
        for left in reversed(range(self._bounds.tries)):
            try:
                return self._walk(url, part, until)
            except CallFailed as error:
                pause = _FIRST_PAUSE * 2 ** (self._bounds.tries - 1 - left) * random.uniform(0.5, 1.5)  # noqa: S311 - to be spread, not secret
                if not error.again or not left or time.monotonic() + pause > until:
                    raise
                time.sleep(pause)
        raise CallFailed("asked too often")  # unreachable with one try or more

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Say something to a URL once; raise `CallFailed` unless the answer is that it was taken."""
        until = time.monotonic() + self._bounds.step * 3
        with self._telling(url):
            target = self._rules.target(url)
            with self._asked(Request("POST", "", headers, body, until=until), target) as answer:
                if not 200 <= answer.status < 300:
                    raise CallFailed(f"the answer was {answer.status}")

    def close(self) -> None:
        """Hang up."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _line(self) -> Line:
        """The line, which is opened when it is needed: to know whom to trust takes a while."""
        with self._lock:
            if self._opened is None:
                self._opened = Line(seconds=self._bounds.step, kept=0, trust=self._trust)
            return self._opened

    def _walk(self, url: str, part: _Part, until: float) -> Fetched:
        """Follow redirects to what is there, and take it."""
        for _ in range(self._bounds.hops + 1):
            with self._telling(url):
                target = self._rules.target(url)
                with self._asked(Request("GET", "", part.wish(url), until=until), target) as answer:
                    if answer.status not in _REDIRECTS:
                        return self._taken(answer, target, url, part)
                    url = target.follow(answer.headers.get("location", ""))
        raise CallFailed(f"more than {self._bounds.hops} redirects", again=False)

    def _taken(self, answer: Answer, target: Target, url: str, part: _Part) -> Fetched:
        status, headers = answer.status, answer.headers
        if status == 416:
            part.drop()
            raise CallFailed("what is left of it is gone")
        if status not in (200, 206):
            raise CallFailed(f"the answer was {status}", again=_may_pass(status))
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise CallFailed("it came packed, though that was not wanted", again=False)
        part.begin(url, status, headers)
        _bounded(part.size + int(_number(headers.get("content-length"))), self._bounds.file_bytes)
        self._write(answer, part)
        return Fetched(str(target), part.size, headers.get("content-type", "").partition(";")[0].strip().lower()[:100])

    def _write(self, answer: Answer, part: _Part) -> None:
        known = part.size >= HEAD
        with part.open() as file:
            for chunk in answer.chunks():
                try:
                    file.write(chunk)
                    file.flush()
                except OSError as error:
                    raise _no_room(error) from error
                part.size += len(chunk)
                _bounded(part.size, self._bounds.file_bytes)
                if not known and part.size >= HEAD:
                    known = True
                    part.judge()
        part.judge()

    @contextmanager
    def _asked(self, request: Request, target: Target) -> Iterator[Answer]:
        """Ask at one of the addresses that the name leads to just now, all of which may be asked; the first one that listens."""
        addresses = self._looked_up(target, request.until or 0.0)
        self._rules.admit(addresses)
        headers = {**(request.headers or {}), "host": target.authority}
        few = addresses[:_ADDRESSES]
        for place, address in enumerate(few, 1):
            where = target.at(address)
            reached = False
            try:
                with self._line.call(Request(request.method, where, headers, request.body, target.host, request.until)) as answer:
                    reached = True
                    yield answer
                    return
            except NoConnection:
                if reached or place == len(few):
                    raise

    def _looked_up(self, target: Target, until: float) -> list[str]:
        """Ask the resolver, and wait for it no longer than for others: it has no deadline of its own."""
        found: list[list[str] | Exception] = []

        def look_up() -> None:
            try:
                found.append(self._resolve(target.host, target.port))
            except (OSError, UnicodeError) as error:
                found.append(error)

        thread = threading.Thread(target=look_up, name="resolve", daemon=True)
        thread.start()
        thread.join(max(0.0, min(self._bounds.step, until - time.monotonic())))
        if not found:
            raise NoConnection("no connection: the name was not looked up in time")
        if isinstance(found[0], Exception):
            raise NoConnection("no connection: the name leads nowhere") from found[0]
        return found[0]

    @contextmanager
    def _telling(self, url: str) -> Iterator[None]:
        try:
            yield
        except BadAddress as error:
            self._told(_without_secrets(url), error)
            raise


class _Part:
    """What has come of a picture so far: a file, and a note beside it of whose bytes these are."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._note = file.with_name(f"{file.name}.note")
        self._url, self._mark, self._whole = self._noted()
        self.size = file.stat().st_size if self._mark and file.exists() else 0

    def wish(self, url: str) -> dict[str, str]:
        """The headers that ask for the rest alone, if there is a part of this very thing."""
        return {"range": f"bytes={self.size}-", "if-range": self._mark} if self.size and self._mark and url == self._url else {}

    def begin(self, url: str, status: int, headers: Mapping[str, str]) -> None:
        """Make ready for what an answer brings: the rest, or the whole."""
        if status == 206:
            rest = f"bytes {self.size}-{self._whole - 1}/{self._whole}"
            another = self._mark.startswith('"') and headers.get("etag", self._mark) != self._mark
            if headers.get("content-range") != rest or another:
                self.drop()
                raise CallFailed("it went on with something else")
            return
        self.size = 0
        self._url, self._mark, self._whole = url, _mark(headers), _number(headers.get("content-length"))
        self._file.unlink(missing_ok=True)
        if self._mark and self._whole:
            self._note.write_text(json.dumps([self._url, self._mark, self._whole]))
        else:
            self._mark = ""
            self._note.unlink(missing_ok=True)

    def open(self) -> BinaryIO:
        """The file, at its end."""
        try:
            return self._file.open("ab")
        except OSError as error:
            raise _no_room(error) from error

    def judge(self) -> None:
        """Return if it begins like an image."""
        with self._file.open("rb") as file:
            head = file.read(HEAD)
        if sniff(head) is None:
            self.drop()
            raise NotAnImage("what came begins like no image that is known here" if head else "nothing came")

    def drop(self) -> None:
        """Begin anew."""
        self._file.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._url, self._mark, self._whole, self.size = "", "", 0, 0

    def _noted(self) -> tuple[str, str, int]:
        try:
            url, mark, whole = json.loads(self._note.read_text())
            return str(url), str(mark), int(whole)
        except (OSError, ValueError, TypeError):
            return "", "", 0


def _mark(headers: Mapping[str, str]) -> str:
    """By what the same bytes can be told again, byte by byte; empty if by nothing."""
    tag = headers.get("etag", "")
    if tag.startswith('"'):
        return tag
    try:
        changed = parsedate_to_datetime(headers["last-modified"])
        answered = parsedate_to_datetime(headers["date"])
        return headers["last-modified"] if (answered - changed).total_seconds() >= _SURELY_OLD else ""
    except (KeyError, ValueError, OverflowError, TypeError):
        return ""


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else 0


def _bounded(size: int, most: int) -> None:
    if size > most:
        raise TooMuch(f"the file has more than {most} bytes, which is what limits.file_bytes allows")


def _may_pass(status: int) -> bool:
    """Whether the trouble that a status tells of may pass by itself."""
    return status >= 500 or status in _AGAIN


def _no_room(error: OSError) -> Exception:
    return StoreFull("no room for what was fetched") if error.errno in (errno.ENOSPC, errno.EDQUOT) else error


def _without_secrets(url: str) -> str:
    """A stranger's URL as a log may have it: without user, password and query, printable and short."""
    head, at, rest = url.partition("@")
    shown = f"{head.partition('://')[0]}://***@{rest}" if at and "/" not in head.partition("://")[2] else url
    return "".join(c if "!" <= c <= "~" else "?" for c in shown.partition("?")[0][:300])
