"""Bytes on their way to and from a bucket: counted, never many of them in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from imgproxy.errors import StoreLied
from imgproxy.stores.cloud.bucket import Bucket
from imgproxy.stores.cloud.words import spoken

PIECE = 8 * 2**20
"""Up to so many bytes are sent by one request; more are sent in pieces of this size, two at a time."""


class Arriving(io.RawIOBase):
    """A body on its way in: every byte that was announced, or an error."""

    def __init__(self, blocks: Iterator[bytes], size: int, bucket: Bucket) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")
        self._left = size
        self._bucket = bucket

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill what the last block has left, else what comes with the next."""
        if not self._rest:
            self._rest = memoryview(self._next())
        count = min(len(self._rest), len(buffer))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Let go of the answer, and so of the connection."""
        self._blocks = iter(())
        super().close()

    def _next(self) -> bytes:
        with spoken(self._bucket):
            block = next(self._blocks, b"")
        self._left -= len(block)
        if self._left < 0 or (self._left and not block):
            raise StoreLied(f"bucket {self._bucket.name}: the service sent more or less than it had announced")
        return block


class Pieces:
    """What a source yields, a piece at a time; `failure` keeps what it raised, so that nobody takes it for trouble of the store's."""

    def __init__(self, source: BinaryIO, taken: list[bytes]) -> None:
        self._source = source
        self._taken = taken
        self.failure: Exception | None = None

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> bytes:
        try:
            data = self._taken.pop(0) if self._taken else piece(self._source)
        except Exception as error:
            self.failure = error
            raise
        if not data:
            raise StopIteration
        return data


def piece(source: BinaryIO) -> bytes:
    """The next `PIECE` bytes of a source; fewer only at its end."""
    taken = bytearray()
    while len(taken) < PIECE and (more := source.read(PIECE - len(taken))):
        taken += more
    return bytes(taken)
