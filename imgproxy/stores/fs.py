"""Objects as plain files below a directory: what was put is there byte for byte, for every tool to read.

- `put` writes beside, syncs the file, gives it its name in one step and syncs the directory (and those newly made): what it
  returned from survives a power cut. `create=True` is atomic, on one host and on any file system with hard links.
- Another reader of the same directory sees every change at once; `fresh` asks nothing more.
- Type and note lie in a second file below `~notes`, none where there is nothing to say. It is in place before the object is,
  and names the version it speaks of (by its modification time), so that old bytes are never read with new words.
- `~tmp` holds what is being written. It is made when the store is opened and never later, so that a disk that went away is
  told from an empty one.
- Whoever may put symbolic links into the directories may write objects as well: a link in an object's place is no object, links
  above it are followed.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from imgproxy.errors import StoreDown
from imgproxy.stores import Blob, Item, checked_key
from imgproxy.stores.files import ABSENT, Fanned, Layout, Plain, draft, drafted, opened, spoken, sweep, sync_directory, walk, write

_STRIPES = 64
_SETTLED = 2**18
_Words = tuple[str, dict[str, str]]


class FsStore:
    """One container as one directory: fanned out for many objects, or with keys as paths for few."""

    def __init__(self, root: Path, *, fanned: bool = True) -> None:
        self._root = Path(root).absolute()
        self._drafts = self._root / "~tmp"
        self._locks = self._root / "~locks"
        self._layout: Layout = Fanned() if fanned else Plain()
        self._settled: set[str] = set()
        self._made = False
        with suppress(OSError):
            self._make()

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:  # noqa: ARG002
        place = self._layout.path(checked_key(key))
        with spoken():
            found = opened(f"{self._root}/{place}")
            if found is None:
                self._must_be_here()
                return None
            descriptor, facts = found
            return Blob(self._item(key, facts), open(descriptor, "rb"))  # noqa: PTH123

    def head(self, key: str, *, fresh: bool = False) -> Item | None:  # noqa: ARG002
        place = self._layout.path(checked_key(key))
        with spoken():
            facts = _facts(self._root / place)
            if facts is None or not stat.S_ISREG(facts.st_mode):
                self._must_be_here()
                return None
            return self._item(key, facts)

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        path = self._root / self._layout.path(checked_key(key))
        with spoken():
            self._settle(path.parent)
            if self._taken(path) and create:
                return False
        with drafted(self._drafts, source) as (written, file), spoken(), self._locked(key):
            if self._taken(path) and create:
                return False
            self._note(key, _synced(file), (type, dict(note or {})))
            return self._place(written, path, create)

    def delete(self, key: str) -> bool:
        path = self._root / self._layout.path(checked_key(key))
        with spoken():
            self._must_be_here()
            with self._locked(key):
                try:
                    path.unlink()
                except OSError as error:
                    if error.errno in ABSENT:
                        return False
                    raise
                sync_directory(path.parent)
                self._notes(key).unlink(missing_ok=True)
        return True

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        with spoken():
            self._must_be_here()
            for found in walk(str(self._root), self._layout, prefix, after):
                facts = _facts(Path(found.path))
                if facts is not None:
                    yield Item(found.stem, facts.st_size, modified=facts.st_mtime)

    def check(self) -> None:
        """Return if an object could be written just now, else raise; drafts that were left behind go by the way."""
        with spoken():
            if not self._made:
                self._make()
            self._must_be_here()
            with draft(self._drafts) as (_, file):
                write(file, b"~")
                now = _synced(file).st_ctime
            sweep(self._drafts, now)

    def close(self) -> None:
        """Nothing is held open."""

    # ---- directories

    def _make(self) -> None:
        new = [path for path in (self._drafts, *self._drafts.parents) if not path.exists()]
        self._drafts.mkdir(parents=True, exist_ok=True)
        self._locks.mkdir(exist_ok=True)
        for path in new:
            sync_directory(path.parent)
        self._made = True

    def _must_be_here(self) -> None:
        if not self._drafts.is_dir():
            raise StoreDown("the store's directory is not there")

    def _settle(self, directory: Path) -> None:
        """Make a directory, and once in every process make sure that it outlives a power cut, whoever made it."""
        name = str(directory.relative_to(self._root))
        if name in self._settled and directory.is_dir():
            return
        self._must_be_here()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError("not a key here: another key ends where this one goes on") from error
        path = directory
        while path != self._root:
            path = path.parent
            sync_directory(path)
        if len(self._settled) >= _SETTLED:
            self._settled.clear()
        self._settled.add(name)

    # ---- objects

    def _taken(self, path: Path) -> bool:
        facts = _facts(path)
        if facts is not None and stat.S_ISDIR(facts.st_mode):
            raise ValueError("not a key here: other keys begin with it")
        return facts is not None

    def _place(self, written: Path, path: Path, create: bool = False) -> bool:
        if not create:
            written.replace(path)
        else:
            try:
                os.link(written, path)
            except FileExistsError:
                return False
        sync_directory(path.parent)
        return True

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """One writer at a time for a key, over all processes: an object and its note change together."""
        path = self._locks / f"{zlib.crc32(key.encode()) % _STRIPES:02}"
        with path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # ---- notes

    def _notes(self, key: str) -> Path:
        return self._root / "~notes" / self._layout.path(key)

    def _note(self, key: str, facts: os.stat_result, words: _Words) -> None:
        """Write down what is said of the version about to come, beside what is said of the one that is there."""
        path = self._notes(key)
        said = _read(path)
        if not said and words == ("", {}):
            return
        here = _facts(self._root / self._layout.path(key))
        kept = {version: word for version, word in said.items() if here and version == str(here.st_mtime_ns)}
        kept.pop(str(facts.st_mtime_ns), None)
        self._settle(path.parent)
        with draft(self._drafts) as (written, file):
            write(file, json.dumps(kept | {str(facts.st_mtime_ns): words}).encode())
            _synced(file)
            self._place(written, path)

    def _item(self, key: str, facts: os.stat_result) -> Item:
        said = _read(self._notes(key))
        words = said.get(str(facts.st_mtime_ns)) or (list(said.values()) or [("", {})])[-1]
        return Item(key, facts.st_size, words[0], words[1], facts.st_mtime)


def _facts(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def _synced(file: BinaryIO) -> os.stat_result:
    """Let a file outlive a power cut, and say what the system knows of it."""
    now = time.time_ns()  # finer than the system's own stamp: no two versions share one
    os.utime(file.fileno(), ns=(now, now))
    os.fsync(file.fileno())
    return os.fstat(file.fileno())


def _read(path: Path) -> dict[str, _Words]:
    """What the notes at `path` say of each version; what is no notes says nothing."""
    try:
        return {version: (str(type), dict(note)) for version, (type, note) in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
