"""Originals: stored once under the SHA-256 of their bytes, and checked against it before anybody sees one.

A store may be near (its files are files of this machine) or far. A near original is read where it is; it is hashed when this
process meets it first and again whenever its inode says that it was written to. A far original is copied to a local tier, hashed on the
way, and never visible there before its hash was right; libvips reads from that copy, whatever its size.

An original that does not match its name, or breaks off, is asked for once more, past stale and rotten copies. What is rotten then, too, is
marked, and refused unread until the mark lapses or the original is put again: to put it heals it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from imgproxy.departures import Departures
from imgproxy.errors import BrokenOff, Missing, Rotten, StoreDown, StoreFull, StoreLied, StoreRefused, StoreTrouble
from imgproxy.flights import Flights
from imgproxy.quarantine import Quarantine
from imgproxy.stores import Blob, Item, Store
from imgproxy.stores.files import spoken

_CHUNK = 1 << 20
_REMEMBERED = 65_536
_SOON = 5.0
"""A store that took longer than so many seconds to fail is not asked again."""


class Copies(Protocol):
    """Where originals of a far store are kept near."""

    def get(self, key: str) -> Blob | None:
        """The copy of that hash, known to be right."""

    def bring(self, hash: str, source: BinaryIO, type: str) -> Blob:
        """Keep all of `source`, and open it; raise `Rotten` if its SHA-256 is not that hash."""

    def delete(self, key: str) -> bool:
        """Forget the copy of that hash."""


class Arriving:
    """A file that is read once, and raises `BrokenOff` when its store leaves in the middle."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Read like any file."""
        try:
            with spoken():
                return self._file.read(_CHUNK if size < 0 else size)
        except StoreDown as error:
            raise BrokenOff(str(error)) from error


class Checked(Arriving):
    """The same, which raises `Rotten` at its end if its SHA-256 is not the one it should be."""

    def __init__(self, file: BinaryIO, hash: str) -> None:
        super().__init__(file)
        self._hash = hash
        self._sum = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read like any file; the last, empty read is the verdict."""
        data = super().read(size)
        if data:
            self._sum.update(data)
        elif self._sum.hexdigest() != self._hash:
            raise Rotten("the original does not match its name")
        return data

    def drain(self) -> None:
        """Read to the end for the verdict alone."""
        while self.read(_CHUNK):
            pass


class Originals:
    """The originals of one store, seen from one node."""

    def __init__(
        self,
        store: Store,
        copies: Copies | None,
        flights: Flights,
        departures: Departures,
        quarantine: Quarantine,
        spool: Path | None = None,
    ) -> None:
        self._store = store
        self._copies = copies
        self._flights = flights
        self._departures = departures
        self._quarantine = quarantine
        self._spool = spool
        self._lock = threading.Lock()
        self._right: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def open(self, hash: str, deadline: float) -> Blob:
        """The original of that hash as a local file at its beginning, its bytes known to be right; raise `Missing` if there is none."""
        if self._copies is not None:
            copy = _copy(hash, self._copies)
            return copy if copy is not None else self._copied(hash, self._copies, deadline)
        return self._twice(hash, lambda fresh: self._checked(hash, fresh))

    def at_once(self, hash: str) -> Blob | None:
        """The original, if it lies on this machine and is known to be right; None if somebody would have to wait to know."""
        if self._copies is not None:
            return _copy(hash, self._copies)
        blob = self._store.get(hash)
        if blob is None or self._is_known(hash, _identity(blob.file)):
            return blob
        blob.close()
        return None

    def alone(self, hash: str, deadline: float) -> AbstractContextManager[object]:
        """While the block runs nobody else of this host who asks here puts that original or takes it away; `Busy` at the deadline."""
        return self._flights.alone(f"{hash}.put", deadline)

    def put(self, hash: str, file: BinaryIO, type: str, note: dict[str, str]) -> bool:
        """Keep an original whose hash is known; False if it was there already, and not rotten.

        A store of which a part is away may be able to take an original, but not to say that it has none: putting the same bytes again
        does no harm, so they are put.
        """
        began, start = time.monotonic(), file.tell()
        if not self._quarantine.holds(hash):
            try:
                return self._store.put(hash, file, type=type, note=note, create=True)
            except StoreDown as error:
                if isinstance(error, StoreRefused) or time.monotonic() > began + _SOON:
                    raise
            file.seek(start)
        self._store.put(hash, file, type=type, note=note)
        self._quarantine.lift(hash)
        return True

    def head(self, hash: str) -> Item | None:
        """What the store says of an original, or None."""
        return self._store.head(hash)

    def forget(self, hash: str) -> None:
        """Remove an original from this node alone; and whatever is being made of it just now is not kept here."""
        self._departures.note(hash)
        if self._copies is not None:
            self._copies.delete(hash)
            self._departures.note(hash)  # who has looked in between may have met the copy

    def remove(self, hash: str) -> bool:
        """Remove an original from the store and from this node; False if the store had none."""
        was_there = self._store.delete(hash)
        self.forget(hash)  # last: who reads meanwhile may bring it near again, as long as the store has it
        self._quarantine.lift(hash)
        return was_there

    def _twice(self, hash: str, ask: Callable[[bool], Blob]) -> Blob:
        """What `ask` gives, if need be past stale and rotten copies; what is rotten twice, or gone with its last copy, is marked."""
        if self._quarantine.holds(hash):
            raise Rotten("the original does not match its name, and was not asked for again")
        began = time.monotonic()
        first: StoreTrouble
        try:
            return ask(False)
        except StoreLied as error:
            first = error
        except BrokenOff as error:
            if time.monotonic() > began + _SOON:
                raise
            first = error
        try:
            return ask(True)
        except (Rotten, Missing) as error:
            if not isinstance(first, Rotten):
                raise
            self._quarantine.mark(hash)
            raise first from error

    def _asked(self, hash: str, fresh: bool) -> Blob:
        blob = self._store.get(hash, fresh=fresh)
        if blob is None:
            raise Missing("no original of that hash")
        return blob

    def _checked(self, hash: str, fresh: bool) -> Blob:
        """An original of a near store, read through if this process has not seen this very file before."""
        blob = self._asked(hash, fresh)
        try:
            seen = _identity(blob.file)
            if not self._is_known(hash, seen):
                Checked(blob.file, hash).drain()
                rewind(blob.file)
                if seen is not None:
                    self._remember(hash, seen)
            return blob
        except BaseException:
            blob.close()
            raise

    def _is_known(self, hash: str, seen: tuple[int, ...] | None) -> bool:
        with self._lock:
            return seen is not None and self._right.get(hash) == seen

    def _remember(self, hash: str, seen: tuple[int, ...]) -> None:
        with self._lock:
            self._right[hash] = seen
            self._right.move_to_end(hash)
            if len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)

    def _copied(self, hash: str, copies: Copies, deadline: float) -> Blob:
        """Bring a far original near, one of all who want it."""
        with self._flights.alone(hash, deadline):
            copy = _copy(hash, copies)
            return copy if copy is not None else self._twice(hash, lambda fresh: self._brought(hash, copies, fresh))

    def _brought(self, hash: str, copies: Copies, fresh: bool) -> Blob:
        seen = self._departures.seen(hash)
        copy = self._arrived(hash, copies, fresh)
        if self._departures.seen(hash) == seen:
            return copy
        copy.close()
        with suppress(StoreTrouble):
            copies.delete(hash)
        self._departures.note(hash)
        return self._brought(hash, copies, fresh=True)  # the store knows whether it was this one that left

    def _arrived(self, hash: str, copies: Copies, fresh: bool) -> Blob:
        with self._asked(hash, fresh) as blob:
            try:
                return copies.bring(hash, Arriving(blob.file), blob.item.type)  # type: ignore[arg-type]
            except BrokenOff:
                raise
            except (StoreFull, StoreDown):
                return self._spooled(hash)

    def _spooled(self, hash: str) -> Blob:
        """The original in a nameless temporary file: for when the local tier cannot keep it."""
        with self._asked(hash, fresh=True) as blob, spoken():
            file = tempfile.TemporaryFile(dir=self._spool)  # noqa: SIM115 - the caller closes it
            source = Checked(blob.file, hash)
            try:
                while data := source.read(_CHUNK):
                    file.write(data)
                rewind(file)
            except BaseException:
                file.close()
                raise
            return Blob(blob.item, file)


def _copy(hash: str, copies: Copies) -> Blob | None:
    """A copy that is near; a place for copies that is in trouble counts as empty."""
    try:
        return copies.get(hash)
    except StoreTrouble:
        return None


def rewind(file: IO[bytes]) -> None:
    """Go back to the beginning, with what a buffer has read ahead forgotten: whoever sends by descriptor sees only where that stands."""
    file.seek(0, os.SEEK_END)
    file.seek(0)


def _identity(file: BinaryIO) -> tuple[int, ...] | None:
    """What changes when a file of this machine is written to or replaced; None for what is no such file."""
    try:
        stat = os.fstat(file.fileno())
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
