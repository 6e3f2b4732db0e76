"""Single byte ranges (RFC 9110, section 14): what part of a picture a client asked for; and parts and wholes on their way out.

What was promised in `Content-Length` and cannot be delivered ends the connection: on one that is kept, the next answer would be taken
for the rest of this one.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from imgproxy.errors import StoreLied

_ONE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))", re.IGNORECASE)
_MANY = re.compile(r"bytes=[0-9, \t-]*,[0-9, \t-]*", re.IGNORECASE)


class Unsatisfiable(Exception):
    """The range lies outside the picture, or is more than one."""


def asked_range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and count of what `header` asks for, or None if it is no range header that we know (then all is sent)."""
    match = _ONE.fullmatch(header.strip())
    if match is None:
        if _MANY.fullmatch(header.strip()):
            raise Unsatisfiable
        return None
    first, last, tail = match.groups()
    if tail is not None:
        count = min(int(tail), size)
        start, end = size - count, size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < int(first):
            return None
    if start >= size or end < start:
        raise Unsatisfiable
    return start, end - start + 1


class Whole:
    """All `size` bytes of a file, for a server to send by its descriptor; closes the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.read = file.read
        self.fileno = file.fileno

    def close(self) -> None:
        """Close the file, and raise `StoreLied` if it was cut while it was sent."""
        with self._file:
            if os.fstat(self._file.fileno()).st_size < self._size:
                raise StoreLied("the file was cut while it was sent")


class Part:
    """`count` bytes of a file from where it stands, as a file; closes the file."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = file
        self._left = count

    def read(self, size: int = -1) -> bytes:
        """Read like any file, up to the end of the part; raise `StoreLied` if the file ends before it."""
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        if self._left and size and not data:
            raise StoreLied("the file was cut while it was sent")
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Close the whole file."""
        self._file.close()
