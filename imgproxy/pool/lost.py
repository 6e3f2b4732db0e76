"""The ledger of originals that have cost a renderer: three losses within the hour, and the original is refused untried.

One small file for each such original, `lost/<hash>`, one line for each loss, shared by all processes of a host. The hour is counted
by the clock that runs from boot and cannot be set; losses of an earlier boot are forgotten.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from imgproxy.errors import Damaged

PERMITTED = 3
REMEMBERED = 3600.0

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Ledger:
    """Who has cost a renderer, and how often."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def refuse(self, hash: str) -> None:
        """Return if this original may be tried, else raise `Damaged`."""
        if self._losses(self._directory / hash) >= PERMITTED:
            raise Damaged("this image has cost its renderer three times within the hour")

    def add(self, hash: str) -> None:
        """Write down that this original has cost a renderer just now; forget what is long ago."""
        with suppress(OSError):  # a ledger that cannot be written forgets, and nobody is refused for it
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self._directory / hash).open("a") as file:
                file.write(f"{_boot()} {_now():.0f}\n")
            for page in self._directory.iterdir():
                if not self._losses(page):
                    # A loss written down by another process just now goes with it: the next one counts again.
                    page.unlink(missing_ok=True)

    def _losses(self, page: Path) -> int:
        try:
            lines = page.read_text(errors="replace").splitlines()
        except OSError:
            return 0
        boot, now = _boot(), _now()
        return sum(1 for line in lines if _is_recent(line, boot, now))


def _is_recent(line: str, boot: str, now: float) -> bool:
    where, _, when = line.partition(" ")
    return where == boot and when.isdecimal() and 0 <= now - int(when) + 1 <= REMEMBERED + 1


def _boot() -> str:
    return _BOOT.read_text().strip()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
