"""Quarantine: originals that were found rotten, so that nobody fetches them again and again.

A mark is an empty file in a directory that the processes of a node share. It holds for some minutes, then the store is asked once more:
somebody may have mended it there. To put the original again lifts the mark at once. A clock that was set makes a mark lapse, no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Quarantine:
    """The marks of one node; `told` hears the hash of each original that is marked."""

    def __init__(self, directory: Path, told: Callable[[str], object], seconds: float = 300.0) -> None:
        self._directory = directory
        self._told = told
        self._seconds = seconds

    def holds(self, hash: str) -> bool:
        """Whether an original is marked."""
        mark = self._directory / hash
        try:
            age = time.time() - mark.stat().st_mtime
        except OSError:
            return False
        if 0 <= age < self._seconds:
            return True
        self.lift(hash)
        return False

    def mark(self, hash: str) -> None:
        """Mark an original from now on; without room for a mark it is only told."""
        with suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._directory / hash).touch()
        self._told(hash)

    def lift(self, hash: str) -> None:
        """Take the mark away, if there is one."""
        with suppress(OSError):
            (self._directory / hash).unlink()
