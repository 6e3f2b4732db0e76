"""Readers under whose eyes something happens to a server; and how to ask, and to wait, generously."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.serving import Response


def until(true: Callable[[], object], what: str, seconds: float = 180) -> None:
    """Wait for something, for a generous time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def ask(address: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
    """One request to host:port."""
    line = http.client.HTTPConnection(address, timeout=100)
    try:
        line.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = line.getresponse()
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        line.close()


class Readers:
    """Threads that ask for pictures, hits and cold ones, while the block runs; and what they were answered."""

    def __init__(self, address: str, hash: str, first: int = 100, count: int = 4) -> None:
        self._address = address
        self._hash = hash
        self._next = first
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._read, args=(number == 0,)) for number in range(count)]
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(150)

    def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        wanted = self.answers.total() + count
        until(lambda: self.answers.total() >= wanted, "nobody is answered any more")

    def _read(self, cold: bool) -> None:
        while not self._done.is_set():
            with self._lock:
                self._next += cold
            side = self._next if cold else 40 + self._next % 20
            began = time.monotonic()
            try:
                told = str(ask(self._address, "GET", f"/{self._hash}-{side}x{side}.webp").status)
            except (OSError, http.client.HTTPException) as error:
                told = repr(error)
            with self._lock:
                self.answers[told] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            self._done.wait(0.02)
