"""When a copy last knew itself level with the store, for all processes of a node: one of them follows, and each may be asked.

The moment is one of the clock that runs from boot and cannot be set; one of an earlier boot says nothing.
"""

from __future__ import annotations

import struct
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from imgproxy.mapped import mapped

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_WHEN = struct.Struct("d")
_BYTES = 16 + _WHEN.size


class Level:
    """The moment in a file, after the id of the boot that it belongs to; without room for it, that of this process alone."""

    def __init__(self, path: Path) -> None:
        self._kept = mapped(path, _BYTES)
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
