"""The hand that goes round the disk tier, a few files at every `put`: what was read is noted, what nobody knows is removed.

Four files for each `put` are two rounds in the time in which puts alone would renew the whole tier, with neither a thread nor a timer. So
what nginx reads without a word to the index is mostly noted in time; where the hand was too slow, whoever evicts looks once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Lock

from imgproxy.stores.disk.rows import Rows
from imgproxy.stores.disk.tree import Tree

_STEPS = 4
_ERASED = 16


class Hand:
    """Goes round and round; each process has its own."""

    def __init__(self, tree: Tree, rows: Rows) -> None:
        self._tree = tree
        self._rows = rows
        self._round: Iterator[None] = iter(())
        self._moving = Lock()

    def move(self) -> None:
        """Pass some files, unless another thread does just now."""
        if self._moving.acquire(blocking=False):
            try:
                passed = sum(1 for _ in islice(self._round, _STEPS))
                if passed < _STEPS:
                    self._round = self._rounds()
            finally:
                self._moving.release()

    def _rounds(self) -> Iterator[None]:
        for found in self._tree.values():
            with suppress(FileNotFoundError):
                self._pass_value(found.stem, found.path)
            yield
        for found in self._tree.published():
            with suppress(FileNotFoundError):
                facts = Path(found.path).lstat()
                if facts.st_nlink == 1:  # its value is gone
                    self._tree.unpublish(found.stem, facts.st_ino)
            yield
        for number, _ in enumerate(self._tree.erase()):
            if number % _ERASED == 0:
                yield

    def _pass_value(self, key: str, path: str) -> None:
        filename = "/".join(path.rsplit("/", 2)[1:])
        row = self._rows.row(key)
        if row is None or row.filename != filename:
            self._rows.disown(key, filename)
        elif self._tree.was_read(filename):
            self._rows.touch(key)
