"""The files of the disk tier: values, and the published names that are hard links to them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from secrets import token_hex, token_urlsafe

from imgproxy.picture import EDITION_TIME
from imgproxy.stores import is_key
from imgproxy.stores.files import Fanned, Found, part, walk

BLOCK = 4096
UNREAD = EDITION_TIME - 1
"""The time of last access that a value is given: earlier than its modification, so that the next reading is noted."""

_VALUE = re.compile(r"([^/]{2,3})/([a-z0-9._,-]{1,250})~[A-Za-z0-9_-]{4}")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_FANNED = Fanned()


def key_of(filename: object) -> str | None:
    """The key that a value's file is named after; None if no value of ours is named so."""
    match = _VALUE.fullmatch(filename) if isinstance(filename, str) else None
    if match is None or match[1] != part(match[2][:2]):
        return None
    key = match[2].replace(",", "/")
    return key if is_key(key) else None


class _Values:
    """The layout of the values: one level of directories, an ending of four characters."""

    def path(self, key: str) -> str:
        name = key.replace("/", ",")
        return f"{part(name[:2])}/{name}"

    def found(self, entry: os.DirEntry[str], stem: str, depth: int) -> Found | None:
        if depth == 0:
            stem = entry.name.rstrip("~").replace(",", "/")
            return Found(stem, entry.path, False) if entry.is_dir(follow_symlinks=False) else None
        key = key_of("/".join(entry.path.rsplit("/", 2)[1:]))
        return Found(key, entry.path, True) if key and entry.is_file(follow_symlinks=False) else None


class Tree:
    """Everything of one edition below the root of the tier."""

    def __init__(self, root: Path, edition: str) -> None:
        self.root = root
        self.index = root / f"~{edition}"
        self.names = root / edition
        self.drafts = root / "~tmp"

    @property
    def database(self) -> Path:
        return self.index / "cache.db"

    # ---- the directories

    def make(self) -> None:
        """Make the directories that are not there."""
        if not self.root.is_dir():
            self.root.parent.mkdir(parents=True, exist_ok=True)
        for path, mode in ((self.root, 0o711), (self.names, 0o711), (self.index, 0o700), (self.drafts, 0o700)):
            _make(path, mode)

    def tidy(self) -> None:
        """Move other editions out of the way, and unpublish what no process has verified since the machine was started."""
        for path in self.root.iterdir():
            if re.fullmatch("~?[0-9]+", path.name) and path not in (self.index, self.names):
                self._set_aside(path)
        boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
        seen = self.index / "boot"
        if not seen.exists() or seen.read_text() != boot:
            self._set_aside(self.names)
            self.make()
            seen.write_text(boot)

    def give_up(self) -> None:
        """Move everything of this edition out of the way."""
        self._set_aside(self.names)
        self._set_aside(self.index)

    def erase(self) -> Iterator[None]:
        """Erase what was moved out of the way, file by file."""
        for gone in sorted(self.root.glob("~gone-*")):
            for directory, _, files in os.walk(gone, topdown=False):
                for file in files:
                    with suppress(OSError):
                        Path(directory, file).unlink()
                    yield
            shutil.rmtree(gone, ignore_errors=True)

    def _set_aside(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            path.chmod(0o700)
            path.rename(self.root / f"~gone-{token_hex(8)}")

    # ---- the values

    def values(self, prefix: str = "", after: str = "") -> Iterator[Found]:
        """The values, in ascending order of keys; of one key there may be two for a moment."""
        return walk(str(self.index), _Values(), prefix, after)

    def value(self, filename: str) -> str:
        return f"{self.index}/{filename}"

    def new_filename(self, key: str) -> str:
        """A name that no value has had yet; it tells the key."""
        return f"{_Values().path(key)}~{token_urlsafe(3)}"

    def place(self, draft: Path, filename: str) -> None:
        """Make a finished draft a value."""
        value = self.index / filename
        try:
            os.link(draft, value)
        except FileNotFoundError:
            _make(value.parent, 0o700)
            os.link(draft, value)

    def drop(self, filename: str) -> None:
        """Remove a value, and its published name while that is a link to it."""
        key = key_of(filename)
        if key is None:
            return
        with suppress(OSError):
            value = Path(self.value(filename))
            inode = value.lstat().st_ino
            value.unlink()
            self.unpublish(key, inode)

    def was_read(self, filename: str) -> bool:
        """Whether a value was read since it was put, or since this was asked the last time."""
        path = self.value(filename)
        try:
            if key_of(filename) is None or os.lstat(path).st_atime <= EDITION_TIME:
                return False
            os.utime(path, (UNREAD, EDITION_TIME), follow_symlinks=False)
        except OSError:
            return False
        return True

    def make_room(self, wanted: int) -> bool:
        """Drop some values, whichever they are; False if there is none.

        The index is told nothing, because on a full disk it could not write that down.
        """
        freed = 0
        for found in chain(self.values(after=token_hex(2)), self.values()):
            if freed >= wanted:
                break
            with suppress(OSError):
                size = Path(found.path).stat().st_size
                self.drop("/".join(found.path.rsplit("/", 2)[1:]))
                freed += size + 1
        return freed > 0

    # ---- the published names

    def name(self, key: str) -> str:
        return f"{self.names}/{_FANNED.path(key)}"

    def published(self) -> Iterator[Found]:
        return walk(str(self.names), _FANNED, "", "")

    def publish(self, key: str, filename: str) -> None:
        """Let a value be seen under its plain name.

        Whoever drops the value unlinks it first and looks at the name then; here the name comes first and the look at the value
        second. So one of the two sees the other, and no name outlives its value.
        """
        name = Path(self.name(key))
        value = Path(self.value(filename))
        beside = self.drafts / token_hex(16)
        with suppress(FileNotFoundError):
            os.link(value, beside)
            try:
                inode = beside.lstat().st_ino
                _rename(beside, name)
                if not value.exists():
                    self.unpublish(key, inode)
            finally:
                beside.unlink(missing_ok=True)

    def unpublish(self, key: str, inode: int | None = None) -> None:
        """Remove a published name, if an inode is given only while it is that one."""
        name = Path(self.name(key))
        with suppress(OSError):
            if inode is None or name.lstat().st_ino == inode:
                name.unlink()
                name.parent.rmdir()
                name.parent.parent.rmdir()


def _rename(beside: Path, name: Path) -> None:
    for _ in range(3):
        try:
            beside.rename(name)
        except FileNotFoundError:  # nobody has made the directory yet, or someone has just removed the last name from it
            with suppress(FileNotFoundError):
                for directory in (name.parent.parent.parent, name.parent.parent, name.parent):
                    _make(directory, 0o711)
        else:
            return


def _make(path: Path, mode: int) -> None:
    """Make a directory with exactly this mode, whatever the umask; what is there is left as it is."""
    with suppress(FileExistsError):
        path.mkdir(mode)
        path.chmod(mode)
