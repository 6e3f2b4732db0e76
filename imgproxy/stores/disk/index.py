"""The index of the disk tier as something that never fails: opened anew after a fork, begun anew when it is broken."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from diskcache import Timeout

from imgproxy.errors import StoreDown, StoreFull, StoreTrouble
from imgproxy.stores.disk.hand import Hand
from imgproxy.stores.disk.rows import Rotten, Rows, code_of
from imgproxy.stores.disk.tree import Tree

T = TypeVar("T")

_ERASED_AT_ONCE = 1_000
_TROUBLE = (sqlite3.Error, Timeout, Rotten, ValueError, TypeError, KeyError, AttributeError)
"""What diskcache raises over an index that is busy, broken or edited by a stranger."""

_BUSY = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOMEM))
_CANNOT_WRITE = frozenset(
    (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE)
)


class Unanswered(StoreDown):
    """The index cannot say just now."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An index as one process has opened it: its rows, its hand, and by what one sees that it is another by now."""

    rows: Rows
    hand: Hand
    process: int
    inode: int


class Index:
    """Asks the rows; whatever is wrong with them is put right here."""

    def __init__(self, tree: Tree, size: int) -> None:
        self._tree = tree
        self._size = size
        self._now: Opened | None = None
        self._inherited: list[Opened] = []

    def ask(self, work: Callable[[Opened], T]) -> T:
        """What `work` says, of an index begun anew if need be; `Unanswered` if others keep it busy."""
        opened = self._opened()
        for _ in range(2):
            try:
                return work(opened)
            except _TROUBLE as error:
                _raise_if_sound(error)
            opened = self._begun_anew(opened)
        raise Unanswered("the tier's index breaks whenever it is begun anew")

    def begin_anew(self) -> None:
        """Forget everything, index and values."""
        with suppress(StoreTrouble), self._alone():
            self._now = None
            self._tree.give_up()
            self._open()

    def close(self) -> None:
        """Let go of what is open."""
        if self._now is not None and self._now.process == os.getpid():
            self._now.rows.close()
        self._now = None

    def _opened(self) -> Opened:
        now = self._now
        if now is not None and self._is_current(now):
            return now
        with self._alone():
            return self._now if self._now is not None and self._is_current(self._now) else self._open()

    def _begun_anew(self, broken: Opened) -> Opened:
        with self._alone():
            if self._inode() == broken.inode:
                self._tree.give_up()
            return self._open()

    def _is_current(self, opened: Opened) -> bool:
        return opened.process == os.getpid() and opened.inode == self._inode()

    def _inode(self) -> int:
        try:
            return os.stat(self._tree.database).st_ino  # noqa: PTH116
        except FileNotFoundError:
            return 0

    def _open(self) -> Opened:
        """Open what is there, or begin anew if that cannot be opened; only ever by one at a time."""
        if self._now is not None and self._now.process != os.getpid():
            self._inherited.append(self._now)  # a connection that came through a fork must neither be used nor closed
        self._tree.make()
        self._tree.tidy()
        for _ in islice(self._tree.erase(), _ERASED_AT_ONCE):
            pass
        try:
            rows = Rows(self._tree, self._size)
        except _TROUBLE as error:
            _raise_if_sound(error)
            self._tree.give_up()
            rows = self._first_rows()
        self._now = Opened(rows, Hand(self._tree, rows), os.getpid(), self._inode())
        return self._now

    def _first_rows(self) -> Rows:
        self._tree.make()
        try:
            return Rows(self._tree, self._size)
        except _TROUBLE as error:
            _raise_if_sound(error)
            raise Unanswered("the tier's index cannot be made") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process and one thread at a time; the kernel lets go for whoever dies."""
        self._tree.make()
        with (self._tree.root / "~lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                with suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_UN)  # said aloud: a child forked meanwhile holds a copy of the descriptor


def _raise_if_sound(error: Exception) -> None:
    """Return if the error means a broken index; a busy index and a full disk are no reason to begin anew."""
    code = code_of(error)
    if code & 0xFF in _BUSY or (isinstance(error, Timeout) and not code):
        raise Unanswered("the tier's index is busy") from error
    if code & 0xFF == sqlite3.SQLITE_FULL:
        raise StoreFull("there is no room left on the tier's disk") from error
    if code in _CANNOT_WRITE:
        raise Unanswered("the tier's index cannot be written") from error
