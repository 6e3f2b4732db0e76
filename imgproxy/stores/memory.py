"""Objects in the memory of this process: without a size a store for tests and short lives, with one a tier.

- `create=True` is atomic and every change is seen at once, by the threads of this process; no other process sees anything.
- With a size, what was used longest ago goes first, so that the bytes of all objects stay within it; what alone is larger is
  forgotten as soon as it is put.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from io import BytesIO
from threading import Lock
from types import MappingProxyType
from typing import BinaryIO

from imgproxy.stores import Blob, Item, checked_key


class MemoryStore:
    """Objects in a dictionary, bounded by `size` bytes if one is given."""

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._held = 0
        self._objects: OrderedDict[str, tuple[Item, bytes]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:  # noqa: ARG002
        found = self._found(key)
        return Blob(found[0], BytesIO(found[1])) if found else None

    def head(self, key: str, *, fresh: bool = False) -> Item | None:  # noqa: ARG002
        found = self._found(key)
        return found[0] if found else None

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        checked_key(key)
        data = _all_of(source)
        item = Item(key, len(data), type, MappingProxyType(dict(note or {})), time.time())
        with self._lock:
            if create and key in self._objects:
                return False
            self._drop(key)
            self._keep(item, data)
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
                yield found[0]

    def check(self) -> None:
        """Memory can always be used."""

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._objects.clear()
            self._held = 0

    def _found(self, key: str) -> tuple[Item, bytes] | None:
        with self._lock:
            found = self._objects.get(checked_key(key))
            if found is not None:
                self._objects.move_to_end(key)
            return found

    def _keep(self, item: Item, data: bytes) -> None:
        if self._size is not None:
            if len(data) > self._size:
                return
            while self._held + len(data) > self._size:
                self._drop(next(iter(self._objects)))
        self._objects[item.key] = (item, data)
        self._held += len(data)

    def _drop(self, key: str) -> bool:
        dropped = self._objects.pop(key, None)
        self._held -= len(dropped[1]) if dropped else 0
        return dropped is not None


def _all_of(source: BinaryIO) -> bytes:
    pieces = []
    while piece := source.read(2**20):
        pieces.append(piece)
    return b"".join(pieces)
