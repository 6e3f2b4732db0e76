"""Bytes on their way to and from Swift: counted, never more of them in memory than a block."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from imgproxy.errors import StoreDown, TooMuch

MOST = 5 * 2**30
"""No single object of Swift is larger; more would have to go in segments, which this project does not do."""


_BLOCK = 2**20


class Parcel:
    """A source on its way out, as the client library reads it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._start = source.tell() if source.seekable() else None
        self.size = None if self._start is None else source.seek(0, io.SEEK_END) - source.seek(self._start)
        if self.size is not None and self.size > MOST:
            raise TooMuch(f"an object of Swift holds at most {MOST} bytes")
        self.failure: BaseException | None = None
        self.arrived = ""
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sent = 0

    @property
    def rewindable(self) -> bool:
        return self._start is not None

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    def read(self, count: int = -1) -> bytes:
        """The next block; `failure` keeps what the source raised, so that nobody takes it for trouble of the store's."""
        try:
            block = self._source.read(count)
            self._sent += len(block)
            self._check(block)
        except BaseException as error:
            self.failure = error
            raise
        self._md5.update(block)
        if not block or self._sent == self.size:
            self.arrived = self.md5
        return block

    def rewind(self) -> bool:
        """Go back to where the source stood; False if it cannot, or has failed itself."""
        if self._start is None or self.failure is not None:
            return False
        self._source.seek(self._start)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sent = 0
        return True

    def _check(self, block: bytes) -> None:
        if self._sent > MOST:
            raise TooMuch(f"an object of Swift holds at most {MOST} bytes")
        if not block and self.size is not None:
            raise OSError(f"the source ended after {self._sent} of {self.size} bytes")


class Arriving(io.RawIOBase):
    """A body on its way in: every byte that was promised, or an error."""

    def __init__(self, raw: Any, size: int, until: float, where: str) -> None:
        self._raw = raw
        self._left = size
        self._until = until
        self._where = where
        self._broken = ""
        self.on_close: Callable[[bool], None] = lambda _: None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill what comes with one read of the socket."""
        block = self._next(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def readall(self) -> bytes:
        """All that is left."""
        return b"".join(iter(lambda: self._next(self._left), b""))

    def _next(self, most: int) -> bytes:
        """What one read of the socket gives; once it broke off, it stays broken."""
        if self._broken:
            raise StoreDown(self._broken)
        if not self._left:
            return b""
        try:
            block: bytes = self._raw.read1(min(most, self._left, _BLOCK))
        except Exception as error:
            raise self._trouble("broke off") from error
        if not block:
            raise self._trouble("ended too early")
        if time.monotonic() > self._until:
            raise self._trouble("took too long")
        self._left -= len(block)
        return block

    def close(self) -> None:
        """Let the connection go, for another use if nothing is left on it."""
        if not self.closed:
            super().close()
            if not self._left:
                self._raw.release_conn()
            self.on_close(not self._left)

    def _trouble(self, what: str) -> StoreDown:
        self._broken = f"container {self._where}: what Swift was sending {what}, {self._left} bytes before its end"
        return StoreDown(self._broken)
