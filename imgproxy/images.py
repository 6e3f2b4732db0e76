"""Images: open one by its name, learn its facts, add an original, remove it with all that was made of it.

The read walk, down the stairs once and up once:

    open(name)
      base      -> the original, checked against its name
      rendition -> the tiers, near to far -> the original -> a renderer -> the tiers learn it
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

from imgproxy.cache import Cache, Recipe
from imgproxy.errors import Missing, NotAnImage, TooMuch
from imgproxy.grammar import Base, Derived, Name
from imgproxy.originals import Originals, rewind
from imgproxy.picture import HEAD, MEDIA_TYPES, Facts, Mark, Stamp, Study, sniff

_CHUNK = 1 << 20


class Renderer(Protocol):
    """Who makes pictures: the pool of disposable processes, or `render.py` in this process."""

    def render(self, source: BinaryIO, name: Derived, stamp: Stamp | None, patience: float) -> bytes:
        """The bytes of the rendition `name` of the original `source`."""

    def probe(self, source: BinaryIO, patience: float) -> Facts:
        """What the header of `source` says."""

    def study(self, source: BinaryIO, patience: float) -> Study:
        """What a look at `source` finds."""


class Image(NamedTuple):
    """An open picture on its way out, with its history: where it was found, and which tiers were in trouble. Close its file."""

    name: Name
    size: int
    file: BinaryIO
    origin: str
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Added:
    """An original that is in the store now; `new` if it was not before."""

    name: Base
    facts: Facts
    md5: str
    size: int
    new: bool


class Sums(NamedTuple):
    """What a file hashes to, and how many bytes it has."""

    sha256: str
    md5: str
    size: int


class Summing:
    """Hashes bytes as they come."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._size = 0

    def add(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        self._sha256.update(data)
        self._md5.update(data)
        self._size += len(data)

    def sums(self) -> Sums:
        """What all of them hash to."""
        return Sums(self._sha256.hexdigest(), self._md5.hexdigest(), self._size)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one asker waits at most, in seconds, and how large a file may be that is added."""

    seconds: float = 20.0
    file_bytes: int = 64 * 2**20


class Images:
    """All pictures of one repository, originals and renditions, as one node sees them."""

    def __init__(
        self, originals: Originals, cache: Cache, renderer: Renderer, marks: Mapping[str, tuple[Mark, bytes]], patience: Patience
    ) -> None:
        self._originals = originals
        self._cache = cache
        self._renderer = renderer
        self._marks = marks
        self._patience = patience

    def open(self, name: Name) -> Image:
        """The picture of that name, from where it is nearest, or made now."""
        deadline = time.monotonic() + self._patience.seconds
        if isinstance(name, Base):
            return self._original(name, deadline)
        if name.mark is not None and name.mark not in self._marks:
            raise Missing(f"no watermark profile {name.mark}")
        recipe = Recipe(str(name), MEDIA_TYPES[name.format], lambda: self._rendered(name, deadline), deadline)
        found = self._cache.fetch(recipe)
        return Image(name, found.blob.item.size, found.blob.file, found.origin, found.troubles)

    def facts(self, hash: str) -> Facts:
        """What the header of an original says."""
        deadline = time.monotonic() + self._patience.seconds
        with self._originals.open(hash, deadline) as blob:
            return self._renderer.probe(blob.file, self._patience.seconds)

    def known(self, hash: str) -> tuple[Added, Study]:
        """What `add` and `look` say of an original that is there."""
        deadline = time.monotonic() + self._patience.seconds
        with self._originals.open(hash, deadline) as blob:
            sums = self.sums(blob.file)
            study = self.look(blob.file)
        return Added(Base(hash, study.facts.type), study.facts, sums.md5, sums.size, new=False), study

    def sums(self, file: BinaryIO) -> Sums:
        """What a whole file hashes to that begins like an image, and is not too large to be one."""
        return _sums(file, self._patience.file_bytes)

    def look(self, file: BinaryIO) -> Study:
        """What a look at a file finds that is not kept yet."""
        return self._renderer.study(file, self._patience.seconds)

    def add(self, file: BinaryIO, sums: Sums | None = None, facts: Facts | None = None) -> Added:
        """Keep an original, all of `file` from its beginning; it must be an image that could be rendered.

        `sums` and `facts` are those of the file, where they are known already.
        """
        hash, md5, size = sums or self.sums(file)
        facts = facts or self._renderer.probe(file, self._patience.seconds)
        note = {"width": str(facts.width), "height": str(facts.height), "type": facts.type, "md5": md5}
        file.seek(0)
        new = self._originals.put(hash, file, MEDIA_TYPES[facts.type], note)
        return Added(Base(hash, facts.type), facts, md5, size, new)

    def alone(self, hash: str, patience: float | None = None) -> AbstractContextManager[object]:
        """Put an original, or take it away, and say so, while nobody else of this host does; `Busy` if it takes too long to be alone."""
        return self._originals.alone(hash, time.monotonic() + (self._patience.seconds if patience is None else patience))

    def remove(self, hash: str) -> bool:
        """Remove an original, and all that was made of it; False if there was none.

        Raise what a store or a tier in trouble could not do: to be done again, or what that tier has is still seen.
        """
        was_there = self._originals.remove(hash)
        self._cache.forget(f"{hash}-")
        return was_there

    def forget(self, hash: str) -> None:
        """Let this node forget an original that is gone, and all that was made of it."""
        self._originals.forget(hash)
        self._cache.forget(f"{hash}-")

    def unmake(self, name: Derived) -> bool:
        """Let every tier forget a rendition, which is made again when somebody asks for it; whether any had it."""
        return self._cache.drop(str(name))

    def _original(self, name: Base, deadline: float) -> Image:
        blob = self._originals.at_once(name.hash)
        if blob is None:
            with self._cache.waiting():
                blob = self._originals.open(name.hash, deadline)
        head = blob.file.read(HEAD)
        rewind(blob.file)
        if sniff(head) != name.type:
            blob.close()
            raise Missing(f"no {name.type} of that hash")
        return Image(name, blob.item.size, blob.file, "base")

    def _rendered(self, name: Derived, deadline: float) -> bytes:
        with ExitStack() as opened:
            original = opened.enter_context(self._originals.open(name.hash, deadline))
            stamp = None
            if name.mark is not None:
                mark, picture = self._marks[name.mark]
                stamp = Stamp(mark, io.BytesIO(picture))
            return self._renderer.render(original.file, name, stamp, deadline - time.monotonic())


def _sums(file: BinaryIO, most: int) -> Sums:
    file.seek(0, os.SEEK_END)
    size = file.tell()
    if size > most:
        raise TooMuch(f"the file has {size} bytes; limits.file_bytes allows {most}")
    file.seek(0)
    if sniff(file.read(HEAD)) is None:
        raise NotAnImage("the file begins like no image that is known here")
    file.seek(0)
    summing = Summing()
    while data := file.read(_CHUNK):
        summing.add(data)
    return summing.sums()
