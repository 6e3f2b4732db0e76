"""When a copy last knew itself level with the store, for all processes of a node: one of them follows, and each may be asked.

The moment is one of the clock that runs from boot and cannot be set; one of an earlier boot says nothing.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_WHEN = struct.Struct("d")
_BYTES = 16 + _WHEN.size


class Level:
    """The moment in a file, after the id of the boot that it belongs to; without room for it, that of this process alone."""

    def __init__(self, path: Path) -> None:
        try:
            with os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, _BYTES)  # a hole that cannot be filled later would end the process
                self._kept = mmap.mmap(file.fileno(), _BYTES)
        except OSError:
            self._kept = mmap.mmap(-1, _BYTES)
        if self._kept[_WHEN.size :] != _boot():
            self.note(time.monotonic())  # nobody knows: it counts from here

    def note(self, moment: float) -> None:
        """It was level at that moment."""
        self._kept[: _WHEN.size] = _WHEN.pack(moment)
        self._kept[_WHEN.size :] = _boot()

    def lag(self) -> float:
        """For how many seconds it may not have been."""
        return time.monotonic() - float(_WHEN.unpack(self._kept[: _WHEN.size])[0])


def _boot() -> bytes:
    with suppress(OSError, ValueError):
        return UUID(_BOOT.read_text().strip()).bytes
    return bytes(16)
