"""Objects in the memory of this process: without a size a store for tests and short lives, with one a tier.

- `create=True` is atomic and every change is seen at once, by the threads of this process; no other process sees anything.
- What another process has forgotten is forgotten here, too, if there is a `mark` that then changes.
- With a size, what was used longest ago goes first, so that the bytes of all objects stay within it; what alone is larger is
  forgotten as soon as it is put.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from threading import Lock
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

from imgproxy.stores import Blob, Item, checked_key


class _Kept(NamedTuple):
    item: Item
    data: bytes
    mark: bytes


def _alone(_key: str) -> bytes:
    return b""


class MemoryStore:
    """Objects in a dictionary, bounded by `size` bytes if one is given.

    `mark` says of a key what changes when it is forgotten elsewhere.
    """

    def __init__(self, size: int | None = None, mark: Callable[[str], bytes] = _alone) -> None:
        self._size = size
        self._mark = mark
        self._held = 0
        self._objects: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:  # noqa: ARG002
        found = self._found(key)
        return Blob(found.item, BytesIO(found.data)) if found else None

    def head(self, key: str, *, fresh: bool = False) -> Item | None:  # noqa: ARG002
        found = self._found(key)
        return found.item if found else None

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        mark = self._mark(checked_key(key))
        data = _all_of(source)
        item = Item(key, len(data), type, MappingProxyType(dict(note or {})), time.time())
        with self._lock:
            if create and key in self._objects:
                return False
            self._drop(key)
            self._keep(_Kept(item, data, mark))
        return True

    def delete(self, key: str) -> bool:
        with self._lock:
            return self._drop(checked_key(key))

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix) and key > after)
        for key in keys:
            found = self._objects.get(key)
            if found is not None:
                yield found.item

    def check(self) -> None:
        """Memory can always be used."""

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._objects.clear()
            self._held = 0

    def _found(self, key: str) -> _Kept | None:
        with self._lock:
            found = self._objects.get(checked_key(key))
            if found is None:
                return None
            if found.mark != self._mark(key):
                self._drop(key)
                return None
            self._objects.move_to_end(key)
            return found

    def _keep(self, kept: _Kept) -> None:
        size = len(kept.data)
        if self._size is not None:
            if size > self._size:
                return
            while self._held + size > self._size:
                self._drop(next(iter(self._objects)))
        self._objects[kept.item.key] = kept
        self._held += size

    def _drop(self, key: str) -> bool:
        dropped = self._objects.pop(key, None)
        self._held -= len(dropped.data) if dropped else 0
        return dropped is not None


def _all_of(source: BinaryIO) -> bytes:
    pieces = []
    while piece := source.read(2**20):
        pieces.append(piece)
    return b"".join(pieces)
