"""Single flight: of all who want the same thing made at the same time, on this host, one makes it.

Threads of a process meet at a `Flight`; the leaders of several processes meet at a lock, which the kernel drops when its holder dies. There
is one file for all locks, and a byte of it for each thing that is made: nothing is written there, and no file comes and goes.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from imgproxy.errors import Busy, Error

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.02


class Flight:
    """One making, and those who wait for it."""

    def __init__(self) -> None:
        self._landed = threading.Event()
        self.data: bytes | None = None
        self.error: Error | None = None

    def land(self, data: bytes | None, error: Error | None = None) -> None:
        """Let the waiting go, with the bytes that were made, or with the error that they would meet too."""
        self.data, self.error = data, error
        self._landed.set()

    def wait(self, deadline: float) -> None:
        """Wait until it has landed; raise `Busy` at the deadline."""
        if not self._landed.wait(max(0.0, deadline - time.monotonic())):
            raise Busy("the picture is still being made")


class Flights:
    """All that is being made just now, by key; `path` is the file of the locks."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._lock = threading.Lock()
        self._under_way: dict[str, Flight] = {}

    def join(self, key: str) -> tuple[Flight, bool]:
        """The flight of that key, and whether the caller leads it; a leader must `leave`."""
        with self._lock:
            flight = self._under_way.get(key)
            if flight is not None:
                return flight, False
            flight = self._under_way[key] = Flight()
            return flight, True

    def leave(self, key: str, flight: Flight) -> None:
        """End the flight; whoever still waits looks for himself."""
        with self._lock:
            del self._under_way[key]
        flight.land(flight.data, flight.error)

    @contextmanager
    def alone(self, key: str, deadline: float) -> Iterator[bool]:
        """Hold the lock of `key` against every other process of this host; whether another held it before. Raise `Busy` at the deadline."""
        with ExitStack() as held:
            waited = False
            with suppress(OSError):  # no place for locks: better made twice than not at all
                file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                held.callback(os.close, file)
                waited = _waited(file, _lock(key, fcntl.F_WRLCK), deadline)
                held.callback(fcntl.fcntl, file, fcntl.F_OFD_SETLK, _lock(key, fcntl.F_UNLCK))  # a child may have a copy of the descriptor
            yield waited


def _waited(file: int, lock: bytes, deadline: float) -> bool:
    """Take a lock; whether another held it before."""
    pause = _FIRST_PAUSE
    while not _locked(file, lock):
        if time.monotonic() > deadline:
            raise Busy("somebody else is still at it")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    return pause > _FIRST_PAUSE


def _locked(file: int, lock: bytes) -> bool:
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
    except BlockingIOError:
        return False
    return True


def _lock(key: str, kind: int) -> bytes:
    """The kernel's `struct flock`: to hold the byte of that key alone, or to let go of it."""
    place = int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 2
    return struct.pack("hhqqi", kind, os.SEEK_SET, place, 1, 0)
