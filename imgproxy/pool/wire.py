"""What a client and a renderer say to each other: small JSON heads with their length before them, descriptors beside, bytes behind.

Never pickle: neither end trusts the other with more than text.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from types import TracebackType
from typing import Any, TypeAlias

Head: TypeAlias = dict[str, Any]

_LENGTH = struct.Struct("!I")
_LONGEST_HEAD = 16 * 1024
_MOST_FILES = 4
_CREDENTIALS = struct.Struct("3i")


class Cut(Exception):
    """The other end is gone, or does not speak this language."""


class Wire:
    """One connection, with a moment until which each thing has to be said and heard."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def say(self, head: Head, *files: int) -> None:
        """Send a head, and with it descriptors."""
        text = json.dumps(head).encode()
        try:
            socket.send_fds(self._connection, [_LENGTH.pack(len(text)) + text], list(files))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Cut from error

    def pour(self, body: bytes) -> None:
        """Send the bytes that a head has announced, however long the other end takes for them."""
        self._connection.settimeout(None)
        try:
            self._connection.sendall(body)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Cut from error

    def hear(self, until: float) -> tuple[Head, list[int]]:
        """Wait for a head, and return it with the descriptors that came beside it: they are the caller's to close."""
        start, files = self._first(until)
        try:
            (length,) = _LENGTH.unpack(start + self.take(_LENGTH.size - len(start), until))
            if length > _LONGEST_HEAD:
                raise Cut
            return _head(self.take(length, until)), files
        except BaseException:
            _close_all(files)
            raise

    def _first(self, until: float) -> tuple[bytes, list[int]]:
        room = socket.CMSG_SPACE(_MOST_FILES * struct.calcsize("i"))
        self._wait(until)
        try:
            start, beside, _, _ = self._connection.recvmsg(_LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError as error:
            raise Cut from error
        files = [
            number for level, kind, data in beside if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) for number in _ints(data)
        ]
        if not start:
            _close_all(files)
            raise Cut
        return start, files

    def take(self, size: int, until: float) -> bytes:
        """Wait for exactly that many bytes."""
        parts = []
        while size:
            self._wait(until)
            try:
                part = self._connection.recv(min(size, 2**20))
            except ConnectionResetError as error:
                raise Cut from error
            if not part:
                raise Cut
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _wait(self, until: float) -> None:
        # Never zero: what has arrived already is heard, however late it is.
        self._connection.settimeout(max(0.001, until - time.monotonic()))

    def wait_for_end(self) -> None:
        """Wait until the other end hangs up."""
        self._connection.settimeout(None)
        try:
            while self._connection.recv(4096):
                pass
        except ConnectionResetError:
            pass

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def hung_up(connection: socket.socket) -> bool:
    """Has the other end of a connection, on which nothing is being said, hung up?"""
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def same_user(connection: socket.socket) -> bool:
    """Is the process at the other end run by our own user?"""
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(said)[1] == os.geteuid())


def _head(text: bytes) -> Head:
    try:
        head = json.loads(text)
    except ValueError as error:
        raise Cut from error
    if not isinstance(head, dict):
        raise Cut
    return head


def _ints(data: bytes) -> tuple[int, ...]:
    whole = len(data) // struct.calcsize("i")
    return struct.unpack(f"{whole}i", data[: whole * struct.calcsize("i")])


def _close_all(files: list[int]) -> None:
    for number in files:
        os.close(number)
