"""Objects as files: where a key lies, how a file comes into place, what an `OSError` means. For the stores on a local disk.

No key holds a `~` or a `,`. So a `~` in a name marks what is the store's own and no object, and a `,` can stand for a slash.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, NamedTuple, Protocol

from imgproxy.errors import StoreDown, StoreFull, StoreTrouble
from imgproxy.stores import is_key

CHUNK = 2**20
"""So many bytes are read and written at a time."""

PAGE = 5_000
"""So many names of one directory are held at once while listing; a larger directory is read again for each page."""

STALE = 3600.0
"""A draft that nobody has touched for so many seconds was left behind."""

ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR))
"""What the system says where no plain file lies."""


# ---- where a key lies


class Found(NamedTuple):
    """An entry of a directory: the key it is, or the beginning of all keys below it; where it lies; which of the two it is."""

    stem: str
    path: str
    leaf: bool


class Layout(Protocol):
    """A way to lay keys out as files."""

    def path(self, key: str) -> str:
        """Where the object of this key lies, below the root."""

    def found(self, entry: os.DirEntry[str], stem: str, depth: int) -> Found | None:
        """What an entry is that lies `depth` directories below the root; None if it is nothing of ours."""


class Fanned:
    """Each key is one file in directories named after its first four characters; every key has its place.

    A part that is short, or would mean the directory above, gets a `~`; a slash is written as a comma.

    >>> Fanned().path("9f86d081884c7d65.jpg"), Fanned().path("a/b"), Fanned().path("ab...c")
    ('9f/86/9f86d081884c7d65.jpg', 'a,/b~/a,b', 'ab/..~/ab...c')
    """

    def path(self, key: str) -> str:
        name = key.replace("/", ",")
        return f"{part(name[:2])}/{part(name[2:4])}/{name}"

    def found(self, entry: os.DirEntry[str], stem: str, depth: int) -> Found | None:
        if depth == 2:
            key = entry.name.replace(",", "/")
            return Found(key, entry.path, True) if key[:4] == stem and entry.is_file(follow_symlinks=False) else None
        text = entry.name.rstrip("~")
        ours = part(text) == entry.name and (depth == 0 or len(stem) == 2 or not text) and entry.is_dir(follow_symlinks=False)
        return Found(stem + text.replace(",", "/"), entry.path, False) if ours else None


def part(text: str) -> str:
    """The name of the directory for one part of the keys."""
    return text if len(text) == 2 and text != ".." else text + "~"


class Plain:
    """Each key is the path it spells; a key that is the beginning of another key's path cannot be kept beside it."""

    def path(self, key: str) -> str:
        return key

    def found(self, entry: os.DirEntry[str], stem: str, depth: int) -> Found | None:  # noqa: ARG002
        if "~" in entry.name:
            return None
        if entry.is_dir(follow_symlinks=False):
            return Found(f"{stem}{entry.name}/", entry.path, False)
        return Found(stem + entry.name, entry.path, True) if entry.is_file(follow_symlinks=False) else None


def walk(root: str, layout: Layout, prefix: str, after: str) -> Iterator[Found]:
    """The files below `root` whose key begins with `prefix` and is greater than `after`, in ascending order of keys."""
    return _Walk(layout, prefix, after).below(Found("", root, False), 0)


class _Walk:
    def __init__(self, layout: Layout, prefix: str, after: str) -> None:
        self._layout = layout
        self._prefix = prefix
        self._after = after

    def below(self, directory: Found, depth: int) -> Iterator[Found]:
        last = ""
        while True:
            page = heapq.nsmallest(PAGE, self._wanted(directory, depth, last))
            for found in page:
                if found.leaf:
                    yield found
                else:
                    yield from self.below(found, depth + 1)
            if len(page) < PAGE:
                return
            last = page[-1].stem

    def _wanted(self, directory: Found, depth: int, last: str) -> Iterator[Found]:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory.path) as entries:
            for entry in entries:
                found = self._layout.found(entry, directory.stem, depth)
                if found and found.stem > last and self._leads_on(found):
                    yield found

    def _leads_on(self, found: Found) -> bool:
        if found.leaf:
            return found.stem.startswith(self._prefix) and found.stem > self._after and is_key(found.stem)
        near = found.stem.startswith(self._prefix) or self._prefix.startswith(found.stem)
        return near and (found.stem > self._after or self._after.startswith(found.stem))


# ---- how a file comes into place


@contextmanager
def draft(directory: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file without a public name; at the end that name of it is gone, whatever has happened.

    It is locked as long as it is open, so that `sweep` sees that somebody still writes.
    """
    path = directory / token_hex(16)
    with spoken():
        file = path.open("xb", buffering=0)
    try:
        with file:
            with spoken():
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path, file
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def drafted(directory: Path, source: BinaryIO) -> Iterator[tuple[Path, BinaryIO]]:
    """A draft of all that `source` still yields; a file that never had a name, and lies on the same disk, is that draft itself."""
    path = directory / token_hex(16)
    if _named(source, path):
        try:
            yield path, source
        finally:
            with suppress(OSError):
                path.unlink()
        return
    with draft(directory) as (path, file):
        pour(source, file)
        yield path, file


def nameless(directory: Path) -> BinaryIO:
    """A new file without a name: it is gone with whoever holds it open, unless it is given one."""
    try:
        return os.fdopen(os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o666), "r+b", buffering=0)
    except (AttributeError, IsADirectoryError, NotImplementedError):
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    return tempfile.TemporaryFile(dir=directory, buffering=0)


def _named(source: BinaryIO, path: Path) -> bool:
    """Whether a file that never had a name has this one now; the kernel gives it to no other."""
    try:
        number = source.fileno()
        if source.tell() != 0 or os.fstat(number).st_nlink != 0:
            return False
        os.link(f"/proc/self/fd/{number}", path, src_dir_fd=number, follow_symlinks=True)  # with a descriptor links are really followed
    except (OSError, ValueError, AttributeError):
        return False
    return True


def pour(source: BinaryIO, file: BinaryIO) -> None:
    """Write all that `source` still yields; what goes wrong while reading stays the source's own error."""
    while chunk := source.read(CHUNK):
        with spoken():
            write(file, chunk)


def write(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of it, however little the system takes at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def sync_directory(path: Path) -> None:
    """Let the names in a directory outlive a power cut."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def sweep(directory: Path, now: float) -> int:
    """Remove the drafts that were left behind; `now` is by the clock of that file system."""
    swept = 0
    for path in directory.iterdir():
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ctime < now - STALE:
                path.unlink()
                swept += 1
    return swept


def opened(path: str | Path) -> tuple[int, os.stat_result] | None:
    """A descriptor of the plain file that lies there, and what the system says of it; None if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode):
        return descriptor, facts
    os.close(descriptor)
    return None


# ---- what an error means


@contextmanager
def spoken() -> Iterator[None]:
    """Turn an `OSError` into the store's own words, which name no path."""
    try:
        yield
    except OSError as error:
        raise in_words(error) from error


def in_words(error: OSError) -> StoreTrouble:
    """The trouble that an `OSError` means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull("there is no room left on the store's disk")
    return StoreDown(f"the store's disk cannot be used: {os.strerror(error.errno or errno.EIO)}")
