"""The far tier: renditions in a store that other nodes share, each with its edition and its digest.

A rendition of another edition, a short one or a rotten one counts as absent; it is made anew and overwritten. An overwritten object may
be read stale for a while, but an edition, a length and a digest are never right together for the wrong bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import BinaryIO

from imgproxy.stores import Blob, Item, Store, checked_key, sweep, whole

_EDITION = "edition"
_DIGEST = "sha256"


class DerivedTier:
    """A tier over any store, of renditions of one edition."""

    def __init__(self, store: Store, edition: int) -> None:
        self._store = store
        self._edition = str(edition)

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        """A rendition of this edition whose bytes are right, or None."""
        blob = self._store.get(key, fresh=fresh)
        if blob is None:
            return None
        with blob:
            if not self._is_ours(blob.item):
                return None
            data = whole(blob.file)
        if len(data) != blob.item.size or hashlib.sha256(data).hexdigest() != blob.item.note.get(_DIGEST):
            return None
        return Blob(_without_our_words(blob.item), io.BytesIO(data))

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        """What is said of a rendition of this edition, or None."""
        item = self._store.head(key, fresh=fresh)
        return _without_our_words(item) if item is not None and self._is_ours(item) else None

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        """Keep a rendition, with its edition and digest."""
        checked_key(key)
        data = whole(source)
        words = {**(note or {}), _EDITION: self._edition, _DIGEST: hashlib.sha256(data).hexdigest()}
        return self._store.put(key, io.BytesIO(data), type=type, note=words, create=create)

    def delete(self, key: str) -> bool:
        """Remove a rendition, of whatever edition."""
        return self._store.delete(key)

    def delete_prefix(self, prefix: str) -> int:
        """Remove the renditions, of whatever edition, whose key begins with `prefix`."""
        return sweep(self._store, prefix)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        """The renditions, of whatever edition."""
        return self._store.list(prefix, after)

    def check(self) -> None:
        """As the store has it."""
        self._store.check()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _is_ours(self, item: Item) -> bool:
        return item.note.get(_EDITION) == self._edition


def _without_our_words(item: Item) -> Item:
    return replace(item, note={word: value for word, value in item.note.items() if word not in (_EDITION, _DIGEST)})
