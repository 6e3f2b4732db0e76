"""A remote store that is known to be down costs its callers nothing: a breaker, and a deadline for what is read.

While the store answers, nothing changes. After some `StoreDown` in a row it is *known to be down*: every call fails at once, but for
one in a while that is let through to see whether it is back. It has the store checked first, and what is raised then counts like any
other: it is an answer, or one more failure. So a store that is back is found within the pause, as soon as somebody asks for something.

A store of which a part is away cannot say that it has no such object, and says so quickly. Whoever asks for what is not there would then
shut out everybody else. So a quick failure does not open the breaker while the store's `check` is good.

A probe that hangs does not hold up the next one for more than `_HANGING` seconds.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

from imgproxy.errors import StoreDown, StoreTrouble
from imgproxy.stores import Blob, Item, Store, Sweeping

T = TypeVar("T")

_BLOCK = 2**18
_HANGING = 3.0
_QUICK = 2.0


@dataclass(frozen=True, slots=True)
class Guard:
    """When a store is known to be down (`failures` in a row), and how long nobody asks then.

    Reading an object may take `seconds`, and another one for each MiB.
    """

    failures: int = 5
    pause: float = 1.0
    seconds: float = 30.0


class Guarded:
    """Any store, behind a breaker."""

    def __init__(self, store: Store, guard: Guard | None = None) -> None:
        self._store = store
        self._guard = guard or Guard()
        self._breaker = _Breaker(self._guard, store.check)

    @property
    def down(self) -> bool:
        """Whether the store is known to be down just now."""
        return self._breaker.open

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        """Open an object; reading it comes to an end, one way or the other."""
        began = time.monotonic()
        blob = self._breaker.watch(lambda: self._store.get(key, fresh=fresh))
        if blob is None or isinstance(blob.file, io.BytesIO):
            return blob
        until = began + self._guard.seconds + blob.item.size / 2**20
        return Blob(blob.item, cast("BinaryIO", io.BufferedReader(_Watched(blob.file, until, self._breaker), _BLOCK)))

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        """What is known of an object."""
        return self._breaker.watch(lambda: self._store.head(key, fresh=fresh))

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        """Keep an object; of `source` nothing is read while the store is known to be down."""
        return self._breaker.watch(lambda: self._store.put(key, source, type=type, note=note, create=create))

    def delete(self, key: str) -> bool:
        """Remove an object."""
        return self._breaker.watch(lambda: self._store.delete(key))

    def delete_prefix(self, prefix: str) -> int:
        """Remove all objects whose key begins with `prefix`, many at once where the store can."""
        if isinstance(self._store, Sweeping):
            sweep = self._store.delete_prefix
            return self._breaker.watch(lambda: sweep(prefix))
        return sum(self.delete(item.key) for item in self.list(prefix))

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        """List objects."""
        items = self._store.list(prefix, after)
        while (item := self._breaker.watch(lambda: next(items, None))) is not None:
            yield item

    def check(self) -> None:
        """Return if the store can be used; while it is known to be down, say so at once."""
        self._breaker.watch(self._store.check)

    def close(self) -> None:
        """Let go of what is held open."""
        self._store.close()


class _Breaker:
    """Counts failures in a row, and lets one caller at a time through once there were enough."""

    def __init__(self, guard: Guard, check: Callable[[], None]) -> None:
        self._guard = guard
        self._check = check
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_at = 0.0
        self._why = ""

    @property
    def open(self) -> bool:
        return self._failures >= self._guard.failures

    def watch(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, and learn from it; or fail at once."""
        vouched = self._let_in()
        began = time.monotonic()
        try:
            answer = call()
        except StoreDown as error:
            if time.monotonic() > began + _QUICK:
                self.failed(error)
            else:
                self._failed_at_once(error, vouched)
            raise
        except StoreTrouble:
            self._answered()
            raise
        except BaseException:
            self._undecided()
            raise
        self._answered()
        return answer

    def failed(self, error: StoreDown) -> None:
        with self._lock:
            self._count(error)

    def _failed_at_once(self, error: StoreDown, vouched: bool) -> None:
        """Count a failure that may be about one object alone, unless it would open the breaker of a store that is well as a whole."""
        with self._lock:
            if not vouched and (self.open or self._failures + 1 < self._guard.failures):
                self._count(error)
                return
        if vouched or self._is_well():
            self._answered()
        else:
            self.failed(error)

    def _count(self, error: StoreDown) -> None:
        self._failures += 1
        self._probe_at = time.monotonic() + self._guard.pause
        self._why = str(error)

    def _answered(self) -> None:
        if self._failures:
            with self._lock:
                self._failures = 0

    def _undecided(self) -> None:
        """What failed was not the store: let another caller see."""
        with self._lock:
            self._probe_at = min(self._probe_at, time.monotonic())

    def _let_in(self) -> bool:
        """Whether this is a probe, for which the store has vouched; a call that may not be made fails."""
        if not self.open:
            return False
        with self._lock:
            now = time.monotonic()
            if self._failures and now < self._probe_at:
                raise StoreDown(self._why)
            self._probe_at = now + _HANGING
        try:
            self._check()
        except StoreDown as error:
            self.failed(error)
            raise
        except BaseException:
            self._undecided()
            raise
        return True

    def _is_well(self) -> bool:
        try:
            self._check()
        except StoreTrouble:
            return False
        return True


class _Watched(io.RawIOBase):
    """The bytes of an object, until the deadline."""

    def __init__(self, file: Any, until: float, breaker: _Breaker) -> None:
        self._file = file
        self._read = getattr(file, "read1", file.read)
        self._until = until
        self._breaker = breaker

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill what comes; late is down."""
        try:
            if time.monotonic() > self._until:
                raise StoreDown("the store took too long to hand over an object")
            block = self._read(len(buffer))
        except StoreDown as error:
            self._breaker.failed(error)
            raise
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        """Close what is behind, too."""
        if not self.closed:
            super().close()
            self._file.close()
