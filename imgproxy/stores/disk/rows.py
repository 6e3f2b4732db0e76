"""The rows of the disk tier's index: diskcache, with files of our own and nothing ever pickled.

A row's `expire_time` is not when it expires but when it was last used, put off by `_NEVER`: so diskcache reads a row without
writing, `touch` is one small update, and what was used longest ago is what would expire first. The policy `longest-unused` evicts
in that order.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from diskcache import EVICTION_POLICY, UNKNOWN, Cache, Disk
from diskcache.core import MODE_BINARY

from imgproxy.stores.disk.tree import Tree, key_of
from imgproxy.stores.files import opened

_NEVER = 1e9
_AT_ONCE = 10
"""So many go at once: those that diskcache culls."""
_SPARED = 500
"""So many are spared at most for one that comes; if more were read than there is room for, some must go all the same."""
_PATIENCE = 0.5
"""So many seconds an index that others write is waited for."""

EVICTION_POLICY["longest-unused"] = {"init": None, "get": None, "cull": "SELECT {fields} FROM Cache ORDER BY expire_time LIMIT ?"}

_SETTINGS = {
    "eviction_policy": "longest-unused",
    "cull_limit": 0,  # `Rows.cull` keeps the bound instead: a large object must push out as many small ones as it takes
    "sqlite_synchronous": 1,  # the log is never torn, whatever it forgets
    "sqlite_mmap_size": 0,  # a database cut short under a mapping would kill the process
    "sqlite_cache_size": 1024,
    "sqlite_wal_autocheckpoint": 250,
    "sqlite_journal_size_limit": 2**20,
}


class Rotten(Exception):
    """A row that this tier has never written."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the index knows of a value."""

    filename: str
    size: int
    digest: str
    type: str = ""
    note: Mapping[str, str] = field(default_factory=dict)
    used: float = 0.0

    def tag(self) -> str:
        """The part of it that diskcache keeps as the row's tag."""
        return json.dumps([self.size, self.digest, self.type, dict(self.note)])

    @staticmethod
    def read(filename: str, tag: object, expires: object) -> Row:
        """The row that a tag tells of, or `Rotten`."""
        try:
            size, digest, type, note = json.loads(str(tag))
            row = Row(filename, int(size), str(digest), str(type), dict(note), float(str(expires)) - _NEVER)
        except (ValueError, TypeError) as error:
            raise Rotten("a tag of another kind") from error
        if not re.fullmatch("[0-9a-f]{64}", row.digest):
            raise Rotten("a tag without a digest")
        return row


@dataclass(frozen=True, slots=True)
class Draft:
    """A finished file that is to become a value, and the bytes it is charged for."""

    path: Path
    filename: str
    charge: int


class _Files(Disk):  # type: ignore[misc]
    """diskcache's files: takes drafts, gives names of files, and calls everything else rotten."""

    def __init__(self, directory: str, **settings: Any) -> None:
        super().__init__(directory, **settings)
        index = Path(directory)
        self._tree = Tree(index.parent, index.name[1:])

    def put(self, key: str) -> tuple[str, bool]:
        return key, True

    def get(self, key: object, raw: object) -> str:
        if not raw or not isinstance(key, str):
            raise Rotten("a pickled key")
        return key

    def store(self, value: Draft, read: bool, key: object = UNKNOWN) -> tuple[int, int, str, None]:  # noqa: ARG002
        self._tree.place(value.path, value.filename)
        return value.charge, MODE_BINARY, value.filename, None

    def fetch(self, mode: int, filename: object, value: object, read: bool) -> str:  # noqa: ARG002
        if mode != MODE_BINARY or not isinstance(filename, str) or key_of(filename) is None:
            raise Rotten("a value that is no file of ours")
        return filename

    def remove(self, file_path: str) -> None:
        self._tree.drop(file_path)


class Rows:
    """An opened index."""

    def __init__(self, tree: Tree, size: int) -> None:
        self._tree = tree
        self._turn = Lock()  # SQLite lets waiting writers sleep; those of one process need not
        self._cache = Cache(str(tree.index), timeout=_PATIENCE, disk=_Files, size_limit=size, **_SETTINGS)

    def row(self, key: str) -> Row | None:
        """What is known of a key; a row that is none of ours is removed."""
        try:
            filename, expires, tag = self._cache.get(key, expire_time=True, tag=True)
            if filename is None:
                return None
            row = Row.read(filename, tag, expires)
            if key_of(filename) != key:
                raise Rotten("another key's file")
        except Rotten:
            self._cache.delete(key)
            return None
        return row

    def keep(self, key: str, draft: Draft, row: Row, create: bool) -> bool:
        """Make a draft the value of a key, unless `create` is asked and there is one.

        The file comes into place while the index is locked, so `disown` never takes a value that is just coming for an orphan.
        """
        try:
            with self._turn, self._cache.transact():
                if create and self.row(key) is not None:
                    return False
                self._cache.set(key, draft, read=True, tag=row.tag(), expire=_NEVER)
        except BaseException:
            self._tree.drop(draft.filename)
            raise
        return True

    def touch(self, key: str) -> None:
        """Note that a key was used just now."""
        with self._turn:
            self._cache.touch(key, expire=_NEVER)

    def pinned(self, key: str) -> tuple[Row, int] | None:
        """What is known of a key with its value opened, while nobody can replace it; a row without its file is removed."""
        with self._turn, self._cache.transact():
            row = self.row(key)
            found = opened(self._tree.value(row.filename)) if row else None
            if row and found:
                return row, found[0]
            self._cache.delete(key)
            return None

    def forget(self, key: str, filename: str) -> None:
        """Remove a key unless it has another value by now."""
        with self._turn, self._cache.transact():
            row = self.row(key)
            if row is not None and row.filename == filename:
                self._cache.delete(key)

    def disown(self, key: str, filename: str) -> None:
        """Remove a value unless it is the one of its key."""
        with self._turn, self._cache.transact():
            row = self.row(key)
            if row is None or row.filename != filename:
                self._tree.drop(filename)

    def delete(self, key: str) -> bool:
        """Remove a key; False if there was none."""
        with self._turn:
            return bool(self._cache.delete(key))

    def cull(self) -> None:
        """Remove what was used longest ago, until the rest is within the size."""
        if self._cache.volume() > self._cache.size_limit:
            self._spare()
            with self._turn:
                self._cache.cull()
        if not 0 <= self._cache.volume() <= self._cache.size_limit:
            raise Rotten("a count of bytes that the values do not have")

    def _spare(self) -> None:
        """Note the uses of those whose turn it is to go, for nginx reads without a word to the index."""
        for _ in range(_SPARED // _AT_ONCE):
            with self._turn, self._cache.transact():
                oldest = self._cache._sql("SELECT key, filename FROM Cache ORDER BY expire_time LIMIT ?", (_AT_ONCE,)).fetchall()  # noqa: SLF001
                read = [key for key, filename in oldest if isinstance(filename, str) and self._tree.was_read(filename)]
                for key in read:
                    self._cache.touch(key, expire=_NEVER)
            if not read:
                return

    def volume(self) -> int:
        """The bytes charged for all values, and those of the index."""
        return int(self._cache.volume())

    def close(self) -> None:
        """Close the connection of this thread; others close with their threads."""
        self._cache.close()


def since(moment: float) -> float:
    """Seconds since a moment of `Row.used`."""
    return time.time() - moment


def code_of(error: BaseException | None) -> int:
    """SQLite's own (extended) code of an error, 0 if it has none; diskcache's `Timeout` has it of the error that it hides."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__context__
    return getattr(error, "sqlite_errorcode", 0) if error is not None else 0
