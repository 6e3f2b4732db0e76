"""The verbs of the disk tier."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO, cast

from imgproxy.errors import Rotten, StoreFull
from imgproxy.picture import EDITION_TIME
from imgproxy.stores import Blob, Item, checked_key
from imgproxy.stores.disk.index import Index, Opened, Unanswered
from imgproxy.stores.disk.rows import Draft, Row, since
from imgproxy.stores.disk.tree import BLOCK, UNREAD, Tree
from imgproxy.stores.files import CHUNK, draft, opened, spoken, sweep, write

_REMEMBERED = 50_000
_ROOM = 2**18
"""So many bytes are given up when the disk is full before the tier is."""

_RACY = 50_000_000
"""A file changed less than so many nanoseconds ago could be changed again without another time of change."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A published file that was verified: by what one sees that it is still that one, and how long that is believed."""

    name: str
    mark: tuple[int, int, int]
    item: Item
    until: float


@dataclass(frozen=True, slots=True)
class _Drafted:
    """A file that is written and nowhere to be found yet."""

    path: Path
    size: int
    digest: str


class DiskTier:
    """Renditions of one edition on the local disk, within `size` bytes."""

    def __init__(self, root: Path, edition: int, size: int, *, believed: float = 600.0) -> None:
        self._size = size
        self._believed = believed
        self._tree = Tree(Path(root).absolute(), str(edition))
        self._index = Index(self._tree, size)
        self._known: dict[str, _Known] = {}
        self._learning = Lock()

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:  # noqa: ARG002
        known = self._known.get(key)
        if known is not None:
            try:
                descriptor = os.open(known.name, os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                return self._looked_up(key)
            if _mark(os.fstat(descriptor)) == known.mark and time.monotonic() < known.until:
                return Blob(known.item, cast("BinaryIO", FileIO(descriptor)))
            os.close(descriptor)
        return self._looked_up(key)

    def head(self, key: str, *, fresh: bool = False) -> Item | None:  # noqa: ARG002
        blob = self.get(key)
        if blob is None:
            return None
        with blob:
            return blob.item

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        checked_key(key)
        if create and self.head(key) is not None:
            return False
        with self._drafted(source) as drafted, spoken():
            return self._kept(key, drafted, type, note or {}, create)

    def bring(self, hash: str, source: BinaryIO, type: str) -> Blob:
        """Keep all of `source` under its own SHA-256, and open it; raise `Rotten` if that is not `hash`.

        What was hashed on its way in is not read again: the blob is of the very file that was written.
        """
        checked_key(hash)
        with self._drafted(source) as drafted:
            if drafted.digest != hash:
                raise Rotten("the original does not match its name")
            with spoken():
                descriptor = os.open(drafted.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self._kept(hash, drafted, type, {}, create=False)
                    item = Item(hash, drafted.size, type, {}, os.fstat(descriptor).st_ctime)
                except BaseException:
                    os.close(descriptor)
                    raise
                return Blob(item, cast("BinaryIO", FileIO(descriptor)))

    def delete(self, key: str) -> bool:
        checked_key(key)
        self._known.pop(key, None)
        with spoken():
            row = self._index.ask(lambda index: index.rows.row(key))
            if row is not None:
                self._tree.drop(row.filename)  # first, because it needs no room on the disk; a row without its file is absent
            self._tree.unpublish(key)
            with suppress(Unanswered, StoreFull):
                self._index.ask(lambda index: index.rows.delete(key))
        return row is not None

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        last = ""
        with spoken():
            for found in self._tree.values(prefix, after):
                with suppress(FileNotFoundError):
                    facts = Path(found.path).stat()
                    if found.stem != last:
                        yield Item(found.stem, facts.st_size, modified=facts.st_ctime)
                    last = found.stem

    def check(self) -> None:
        """Return if an object could be put just now, else raise; drafts that were left behind go by the way."""
        with spoken():
            self._index.ask(lambda index: index.rows.volume())
            with draft(self._tree.drafts) as (_, file):
                write(file, b"~")
                now = os.fstat(file.fileno()).st_ctime
            sweep(self._tree.drafts, now)

    def close(self) -> None:
        self._known.clear()
        self._index.close()

    # ---- getting

    def _looked_up(self, key: str) -> Blob | None:
        """Open what the index knows, verified to its last byte; what is not as the index says is removed."""
        checked_key(key)
        with spoken(), suppress(Unanswered, StoreFull):
            found = self._found(key)
            if found is not None:
                row, descriptor = found
                if _verified(descriptor, row):
                    return self._given(key, row, descriptor)
                os.close(descriptor)
                self._index.ask(lambda index: index.rows.forget(key, row.filename))
        self._known.pop(key, None)
        return None

    def _found(self, key: str) -> tuple[Row, int] | None:
        row = self._index.ask(lambda index: index.rows.row(key))
        if row is None:
            return None
        found = opened(self._tree.value(row.filename))
        if found is not None:
            return row, found[0]
        return self._index.ask(lambda index: index.rows.pinned(key))  # replaced between the two, or lost

    def _given(self, key: str, row: Row, descriptor: int) -> Blob:
        facts = os.fstat(descriptor)
        with suppress(OSError):
            if _inode(self._tree.name(key)) != facts.st_ino:
                self._tree.publish(key, row.filename)
                facts = os.fstat(descriptor)
        if since(row.used) > self._believed:
            with suppress(Unanswered, StoreFull):
                self._index.ask(lambda index: index.rows.touch(key))
        item = Item(key, row.size, row.type, row.note, facts.st_ctime)
        if time.time_ns() - facts.st_ctime_ns > _RACY:
            self._learn(key, _Known(self._tree.name(key), _mark(facts), item, time.monotonic() + self._believed))
        return Blob(item, cast("BinaryIO", FileIO(descriptor)))

    def _learn(self, key: str, known: _Known) -> None:
        with self._learning:
            self._known.pop(key, None)
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = known

    # ---- putting

    @contextmanager
    def _drafted(self, source: BinaryIO) -> Iterator[_Drafted]:
        """All that `source` yields in a file without a public name, to be kept or not before the block ends."""
        with spoken():
            if not self._tree.drafts.is_dir():
                self._tree.make()
        try:
            with draft(self._tree.drafts) as (path, file):
                size, digest = _poured(source, file)
                with spoken():
                    os.fchmod(file.fileno(), 0o644)
                    os.utime(file.fileno(), (UNREAD, EDITION_TIME))
                yield _Drafted(path, size, digest)
        except StoreFull:
            with spoken():
                if not self._tree.make_room(_ROOM):
                    self._index.begin_anew()  # nothing is left but the index, and its log fills what there is
            raise

    def _kept(self, key: str, drafted: _Drafted, type: str, note: Mapping[str, str], create: bool) -> bool:
        row = Row(self._tree.new_filename(key), drafted.size, drafted.digest, type, dict(note))
        charge = (row.size + BLOCK - 1) // BLOCK * BLOCK + BLOCK
        if charge > self._size:
            self.delete(key)
            return True
        try:
            kept = self._index.ask(lambda index: index.rows.keep(key, Draft(drafted.path, row.filename, charge), row, create))
        except Unanswered:
            return True
        if kept:
            with suppress(OSError):
                self._tree.publish(key, row.filename)
        with suppress(OSError, Unanswered, StoreFull):
            self._index.ask(_tidied)
        return kept


def _tidied(index: Opened) -> None:
    index.rows.cull()
    index.hand.move()


def _poured(source: BinaryIO, file: BinaryIO) -> tuple[int, str]:
    """Write all that `source` still yields; say its length and digest."""
    size = 0
    digest = hashlib.sha256(usedforsecurity=False)
    while chunk := source.read(CHUNK):
        size += len(chunk)
        digest.update(chunk)
        with spoken():
            write(file, chunk)
    return size, digest.hexdigest()


def _verified(descriptor: int, row: Row) -> bool:
    """Whether a file is, to its last byte, what the index says; what the disk cannot read is not."""
    size = os.fstat(descriptor).st_size
    if size != row.size:
        return False
    digest = hashlib.sha256(usedforsecurity=False)
    try:
        for place in range(0, size, CHUNK):
            digest.update(os.pread(descriptor, CHUNK, place))
    except OSError:
        return False
    return digest.hexdigest() == row.digest


def _mark(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_ino, facts.st_size, facts.st_ctime_ns


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0
