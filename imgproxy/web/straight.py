"""The body of a request straight from its connection.

What gunicorn reads of a body it hands on by way of several buffers, at more than twice the cost of reading it. So what it has read ahead is
taken from it, the rest is read from the socket into one place, and it is told how much of the body is left, for it discards that before the
next request. Where the server, or the way in which the body comes, is another, there is `wsgi.input`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any


class Straight:
    """A body of known length; `reader` is gunicorn's for it."""

    def __init__(self, reader: Any, connection: socket.socket) -> None:
        self._reader = reader
        self._connection = connection

    def readinto(self, place: memoryview) -> int:
        """Fill a place, or as much of it as comes before the end; how much that is."""
        place = place[: self._reader.length]
        filled = 0
        while filled < len(place):
            count = self._take_ahead(place[filled:]) or self._come(place[filled:])
            if count == 0:
                break
            filled += count
            self._reader.length -= count
        return filled

    def read(self, size: int, /) -> bytes:
        """So many bytes, or what there is before the end."""
        place = memoryview(bytearray(min(size, self._reader.length)))
        return bytes(place[: self.readinto(place)])

    def _come(self, place: memoryview) -> int:
        """What comes next from the connection; nothing once it is cut, however it is."""
        try:
            return self._connection.recv_into(place)
        except OSError:
            return 0

    def _take_ahead(self, place: memoryview) -> int:
        """What gunicorn has read ahead, as far as there is room; the rest stays there."""
        ahead = self._reader.unreader.take_buffered()
        count = min(len(place), len(ahead))
        if count < len(ahead):
            self._reader.unreader.unread(ahead[count:])
        place[:count] = ahead[:count]
        return count


def straight(environ: Mapping[str, Any], size: int | None) -> Straight | None:
    """The straight way to a body of that size of which nothing was read, if there is one."""
    reader = getattr(environ["wsgi.input"], "reader", None)
    connection = environ.get("gunicorn.socket")
    if connection is None or size is None or getattr(reader, "length", None) != size:
        return None
    return Straight(reader, connection) if hasattr(getattr(reader, "unreader", None), "take_buffered") else None
