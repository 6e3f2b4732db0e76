"""The body of a request on its way in: bounded, counted, and never waited for without an end.

A client that drips holds no thread: every piece has to be there within some seconds, so the whole takes no longer than its pieces may. A
server's own read returns when all it was asked for is there, or the connection ends, so somebody else has to watch: `Watch` is one thread
of the process, which ends the reading side of a connection whose time is over.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from imgproxy.errors import BadBody, Error, TooLarge, TooSlow
from imgproxy.web.straight import straight

PIECE = 1 << 18
"""So many bytes are read at once."""

SECONDS = 20.0
"""And so long a piece may take, unless said otherwise."""


class Source(Protocol):
    """Where a server lets the body be read."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, or what there is before the end."""


class Due:
    """A moment by which a piece must be there, and the connection that ends if it is not."""

    def __init__(self, connection: socket.socket, at: float) -> None:
        self.connection: socket.socket | None = connection
        self.at = at
        self.late = False


class Watch:
    """Ends the reading side of connections whose time is over; one thread, while there is anything to watch."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Due]] = []
        self._numbers = itertools.count()
        self._running = False

    def add(self, due: Due) -> None:
        """Watch a connection until its moment is moved on, or its `connection` is taken away."""
        with self._changed:
            heapq.heappush(self._waiting, (due.at, next(self._numbers), due))
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="slow bodies", daemon=True).start()
            self._changed.notify()

    def release(self, due: Due) -> None:
        """Watch it no more."""
        with self._changed:
            due.connection = None

    def _run(self) -> None:
        with self._changed:
            while self._waiting:
                at, _, due = self._waiting[0]
                wait = at - time.monotonic()
                if wait > 0 and due.connection is not None:
                    self._changed.wait(min(wait, 1.0))
                    continue
                heapq.heappop(self._waiting)
                self._judge(due)
            self._running = False

    def _judge(self, due: Due) -> None:
        if due.connection is None:
            return
        if due.at > time.monotonic():  # it was moved on meanwhile
            heapq.heappush(self._waiting, (due.at, next(self._numbers), due))
            return
        due.late = True
        with suppress(OSError):
            due.connection.shutdown(socket.SHUT_RD)


_watch = Watch()


class Body:
    """What a client sends, at most so many bytes of it; `size` is what it has announced, None if it did not."""

    def __init__(self, environ: Mapping[str, Any], most: int, seconds: float = SECONDS) -> None:
        self._connection: socket.socket | None = environ.get("gunicorn.socket")
        self._most = most
        self._seconds = seconds
        self.size = _announced(environ)
        self._straight = straight(environ, self.size)
        self._source: Source = self._straight or environ["wsgi.input"]
        self.read_bytes = 0
        self._due: Due | None = None
        self._over = False
        self._wrong: Error | None = None
        if self.size is not None and self.size > most:
            raise TooLarge(f"{self.size} bytes were announced; at most {most} are taken here")

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or what is left; raise `BadBody` if it ends too early, `TooSlow`, or `TooLarge`."""
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE), b""))
        data = b""

        def read(wanted: int) -> int:
            nonlocal data
            data = self._source.read(wanted)
            return len(data)

        self._read(size, read)
        return data

    def pieces(self) -> Iterator[memoryview]:
        """All of it, piece by piece; each is there until the next is asked for."""
        place = memoryview(bytearray(PIECE))

        def read(wanted: int) -> int:
            if self._straight is not None:
                return self._straight.readinto(place[:wanted])
            data = self._source.read(wanted)
            place[: len(data)] = data
            return len(data)

        while count := self._read(PIECE, read):
            yield place[:count]

    def _read(self, size: int, read: Callable[[int], int]) -> int:
        """Let the next piece be read, of at most that size; how much that is, 0 at the end.

        What came before something went wrong is handed over first.
        """
        wanted = min(size, PIECE) if self.size is None else min(size, PIECE, self.size - self.read_bytes)
        if wanted == 0:
            return 0
        count = 0 if self._over else self._waited_for(wanted, read)
        self.read_bytes += count
        if self.read_bytes > self._most:
            raise TooLarge(f"at most {self._most} bytes are taken here")
        if count == 0 and self._wrong is not None:
            raise self._wrong
        return count

    def close(self) -> None:
        """Nobody waits for it any more."""
        if self._due is not None:
            _watch.release(self._due)
            self._due = None

    def _waited_for(self, wanted: int, read: Callable[[int], int]) -> int:
        """How much comes of a piece; if it is less, nothing more will, and what is wrong is noted."""
        if self._connection is not None:
            self._watched(self._connection, time.monotonic() + self._seconds)
        broken: BadBody | None = None
        try:
            count = read(wanted)
        except Exception:  # whatever a server raises when its client is gone, or sends what is no body
            broken = BadBody("the body is broken, or ended too early")
            count = _left(wanted, read)
        if count < wanted:
            self._over = True
            self._wrong = self._too_slow() or broken or self._too_short(self.read_bytes + count)
        return count

    def _watched(self, connection: socket.socket, at: float) -> None:
        if self._due is None:
            self._due = Due(connection, at)
            _watch.add(self._due)
        else:
            self._due.at = at

    def _too_slow(self) -> TooSlow | None:
        return TooSlow("the body came too slowly") if self._due is not None and self._due.late else None

    def _too_short(self, came: int) -> BadBody | None:
        return None if self.size is None else BadBody(f"{self.size} bytes were announced, and only {came} came")


def _left(wanted: int, read: Callable[[int], int]) -> int:
    """What a server still holds of a piece that it could not make whole."""
    try:
        return read(wanted)
    except Exception:  # it is broken for good
        return 0


def _announced(environ: Mapping[str, Any]) -> int | None:
    """The length that a request says its body has; None if it comes in chunks, until its end."""
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        return None
    text = environ.get("CONTENT_LENGTH") or "0"
    if not text.isascii() or not text.isdigit():
        raise BadBody("the length of the body is no number")
    return int(text)
