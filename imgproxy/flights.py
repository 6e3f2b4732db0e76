"""Single flight: of all who want the same thing made at the same time, on this host, one makes it.

Threads of a process meet at a `Flight`; the leaders of several processes meet at a lock on a file, which the kernel drops when its
holder dies. A lock file is named after what is made and removed by the holder; who locks a file that has been removed meanwhile
holds nothing, notices it by the inode, and tries again.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    """All that is being made just now, by key."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
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
        path = self._directory / key
        try:
            held, waited = _taken(path, deadline)
        except OSError:  # no room for a lock file: better made twice than not at all
            yield False
            return
        try:
            yield waited
        finally:
            with suppress(OSError):  # whatever has become of the directory, the lock goes with its descriptor
                path.unlink()
            os.close(held)


def _taken(path: Path, deadline: float) -> tuple[int, bool]:
    pause = _FIRST_PAUSE
    while (held := _locked(path)) is None:
        if time.monotonic() > deadline:
            raise Busy("another process is still making the picture")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    return held, pause > _FIRST_PAUSE


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock on the file now at `path`, or None if another holds it."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
