"""Which originals a store does not have: asked before anything is said about them for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeAlias

from imgproxy.stores import Store

Absent: TypeAlias = Callable[[Iterable[str]], Iterable[str]]
"""Given hashes in ascending order, those that the store does not have."""

FEW = 2_000
"""So many are asked for one by one; more are looked up in a listing, and only what that does not have is asked for."""


def absent_from(base: Store) -> Absent:
    """How to ask this store."""

    def absent(hashes: Iterable[str]) -> Iterator[str]:
        left = iter(hashes)
        first = list(islice(left, FEW))
        more = next(left, None)
        doubtful = first if more is None else _unlisted(base, chain(first, [more], left))
        return (hash for hash in doubtful if base.head(hash, fresh=True) is None)

    return absent


def _unlisted(base: Store, hashes: Iterator[str]) -> Iterator[str]:
    """Those of many that a listing does not have; both are in ascending order."""
    listed = (item.key for item in base.list())
    key = next(listed, None)
    for hash in hashes:
        while key is not None and key < hash:
            key = next(listed, None)
        if key != hash:
            yield hash
