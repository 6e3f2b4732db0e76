"""Departures: what has left a node, so that what was begun before does not bring it back.

Whoever copies or makes something looks here first and once more when it is kept: if the mark has changed, something of that name has
been forgotten meanwhile, and what was kept is forgotten, too. Whoever forgets goes from far to near, and notes each place that has
forgotten before the next: who met it there, and would keep it nearer, hears of it.

A mark is eight bytes of a small file that all processes of a node see, and stands for many names: now and then something is forgotten for
nothing, and made again.
"""

from __future__ import annotations

import secrets
import zlib
from pathlib import Path

from imgproxy.mapped import mapped

_MARKS = 4_096
_BYTES = 8
_NAME = 64
"""So many characters of a key say what it belongs to, of a key or the beginning of one: the hash of an original."""


class Departures:
    """The marks in a file; without room for it, those of this process alone."""

    def __init__(self, path: Path) -> None:
        self._marks = mapped(path, _MARKS * _BYTES)

    def seen(self, key: str) -> bytes:
        """The mark of a key; it is another one when something of that name has left."""
        at = _place(key)
        return self._marks[at : at + _BYTES]

    def note(self, key: str) -> None:
        """Something of that name has left: what is not kept by now must not be."""
        at = _place(key)
        self._marks[at : at + _BYTES] = secrets.token_bytes(_BYTES)


def _place(key: str) -> int:
    return zlib.crc32(key[:_NAME].encode()) % _MARKS * _BYTES
