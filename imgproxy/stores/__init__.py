"""A store keeps bytes under keys. A tier is a store that may forget.

The protocol is small on purpose; whatever satisfies it can be the home of originals or a shelf of the cache. The rules:

1. A key is `[a-z0-9._/-]{1,250}`, without empty, `.` or `..` segments. Anything else is a `ValueError`: no such key ever leaves
   this package.
2. Absence is `None` (or `False`), trouble is an exception (`StoreDown`, `StoreLied`, `StoreFull`). "Not here" is only said when it
   is known.
3. A reader sees all of an object or none of it. What `put` has returned from survives a power cut (of a tier: may be forgotten, is
   never half there).
4. An object is what was put last; `put(..., create=True)` leaves what is there alone and returns False. How atomic that is, and how
   soon other readers see a change, is each store's own promise: see its module.
5. `list` yields in ascending order of keys, with memory that does not grow with the number of objects.
6. A store may be used by many threads at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Protocol, runtime_checkable

_KEY = re.compile(r"(?!.*(?:^|/)\.{0,2}(?:/|$))[a-z0-9._/-]{1,250}")


@dataclass(frozen=True, slots=True)
class Item:
    """What a store says of one key without handing over the bytes.

    `type` is a media type; `note` holds few, short, ASCII words with lowercase names; `modified` is by the store's clock and
    only ever informs.
    """

    key: str
    size: int
    type: str = ""
    note: Mapping[str, str] = field(default_factory=dict)
    modified: float = 0.0


@dataclass(frozen=True, slots=True)
class Blob:
    """An open object: what is said of it, and a file to read it from once. Close it, or use it as a context."""

    item: Item
    file: BinaryIO

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Blob:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Store(Protocol):
    """The few verbs that every store has."""

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        """Open an object, or None; `fresh` asks past every stale copy, where the store has such."""

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        """What is known of an object, or None."""

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        """Keep all that `source` yields from where it stands; True unless `create` was asked and the key was there."""

    def delete(self, key: str) -> bool:
        """Remove an object; False if there was none."""

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        """The objects whose key begins with `prefix` and is greater than `after`, in order; notes and types may be missing."""

    def check(self) -> None:
        """Return if the store can be used just now, else raise what keeps it from it."""

    def close(self) -> None:
        """Let go of what is held open."""


def is_key(text: str) -> bool:
    """Whether a text is a key."""
    return _KEY.fullmatch(text) is not None


def checked_key(key: str) -> str:
    """Return `key`, or raise `ValueError` if it is none."""
    if not is_key(key):
        raise ValueError(f"not a key: {key!r}")
    return key


def whole(source: BinaryIO) -> bytes:
    """All that a source yields from where it stands, however little at a time."""
    return b"".join(iter(lambda: source.read(1 << 20), b""))


@runtime_checkable
class Sweeping(Protocol):
    """A store that can delete many objects at once."""

    def delete_prefix(self, prefix: str) -> int:
        """Delete what begins with `prefix`; returns how many that were."""


def sweep(store: Store, prefix: str) -> int:
    """Delete all objects whose key begins with `prefix`, many at once where the store can; returns how many that were."""
    if isinstance(store, Sweeping):
        return store.delete_prefix(prefix)
    return sum(store.delete(item.key) for item in store.list(prefix))
