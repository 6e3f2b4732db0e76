"""Originals laid out for people: by the day they were taken, under names that can be read.

    2024/05/17/red-sun-over-the-sea-9f86d081884c.jpg
    2000/01/01/9f86d081884c.jpg                          ; nobody knows when, and nobody has said what

A file there is a whole file: it is written beside, hashed on the way and renamed. So a run that was stopped is run again, and what is
there already is left alone, under the name that it got when it came: a title that changes renames nothing.

Where the store is a directory of the same file system, a file here is the store's own by a hard link, and takes no room. Nobody may
write to it then: what is changed in place would be changed in the store, too.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from imgproxy.errors import Busy, Missing
from imgproxy.meta.record import Record
from imgproxy.originals import Checked
from imgproxy.stores import Store
from imgproxy.stores.files import CHUNK, spoken, write

UNKNOWN = "2000/01/01"
"""The day of what nobody knows the day of."""

_DRAFTS = ".export"
_DIGITS = 12
_LONGEST = 60
_NO_WORD = re.compile(r"[\W_]+")
_DAYS = 32


def day(record: Record) -> str:
    """The directory of a picture: the day it was taken, by the clock on the wall there."""
    return record.taken_at[:10].replace("-", "/") or UNKNOWN


def name(record: Record) -> str:
    """The name of a picture's file: its title, or else its dkey, as far as a file's name can say it, and the beginning of its hash."""
    return "-".join(word for word in (_slug(record.title) or _slug(record.dkey), _end(record)) if word)


def _slug(text: str) -> str:
    """The words of a text, with hyphens between.

    >>> _slug("Straße am Meer: 5/6!"), _slug("../../etc/passwd"), _slug("東京 2024")
    ('straße-am-meer-5-6', 'etc-passwd', '東京-2024')
    """
    words = _NO_WORD.sub("-", unicodedata.normalize("NFC", text).lower()).strip("-")
    return words.encode()[: 2 * _LONGEST].decode(errors="ignore")[:_LONGEST].strip("-")


def _end(record: Record) -> str:
    """How the name of a picture's file ends, whatever was ever said of it."""
    return f"{record.hash[:_DIGITS]}.{record.type}"


class Export:
    """A tree of originals; `link` if they may be the store's own files."""

    def __init__(self, base: Store, root: Path, *, link: bool) -> None:
        self._base = base
        self._root = root
        self._link = link
        self._there = lru_cache(maxsize=_DAYS)(self._listed)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keep the tree for this run alone; raise `Busy` if another has it."""
        drafts = self._root / _DRAFTS
        with spoken():
            drafts.mkdir(parents=True, exist_ok=True)
            lock = (drafts / "lock").open("ab")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Busy("another export is being written there") from None
            yield

    def keep(self, record: Record) -> Path | None:
        """Lay out the original of a record; where it is, below the root, or None if it was there already.

        Raise `Missing` if the store has none, `Rotten` if it is not what its name says, or what the store or the disk could not do.
        """
        folder = day(record)
        known = self._there(folder)
        place = known.get(_end(record))
        if place is not None and self._is_whole(self._root / folder / place, record):
            return None
        path = Path(folder) / (place or name(record))
        blob = self._base.get(record.hash)
        if blob is None:
            raise Missing(f"no original {record.hash}")
        with blob:
            self._write(blob.file, record.hash, self._root / path)
        known[_end(record)] = path.name
        return path

    def _write(self, source: BinaryIO, hash: str, path: Path) -> None:
        draft = self._root / _DRAFTS / "draft"
        with spoken():
            draft.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            checked = Checked(source, hash)
            if self._link and _linked(source, draft):
                checked.drain()
            else:
                _copied(checked, draft)
            with spoken():
                draft.replace(path)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)  # also when all went well: to rename one link of a file to another does nothing

    def _listed(self, folder: str) -> dict[str, str]:
        """The names in a directory, by how they end."""
        try:
            names = os.listdir(self._root / folder)  # noqa: PTH208 - names alone, of very many
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {found.rpartition("-")[2]: found for found in names}

    def _is_whole(self, path: Path, record: Record) -> bool:
        with suppress(OSError):
            facts = path.lstat()
            return stat.S_ISREG(facts.st_mode) and facts.st_size == record.bytes
        return False


def _copied(source: Checked, draft: Path) -> None:
    """Write all that a source yields, so that it outlives a power cut."""
    with spoken():
        file = draft.open("xb", buffering=0)
    with file:
        while data := source.read(CHUNK):
            with spoken():
                write(file, data)
        with spoken():
            os.fsync(file.fileno())


def _linked(source: BinaryIO, draft: Path) -> bool:
    """Give an open file another name, and let nobody write to it by either; False where the system cannot."""
    try:
        descriptor = source.fileno()
        # With a directory to start from, which an absolute path makes no use of, the system follows the link; else it would not.
        os.link(f"/proc/self/fd/{descriptor}", draft, src_dir_fd=descriptor, follow_symlinks=True)
    except OSError:
        return False
    with suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) & ~0o222)
    return True
