"""Which renditions are not there: what the committed records promise, minus a listing. Nothing is written down that could rot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from io import BytesIO
from typing import Any

from imgproxy.errors import Outdated
from imgproxy.meta import query as asking
from imgproxy.meta.repository import Words
from imgproxy.stores import Item, Store

_PAGE = 500
_AT_ONCE = 100_000
_EDITIONS = "editions/"
_FIRST, _LATER = b"first", b"later"


@dataclass(frozen=True, slots=True)
class Renditions:
    """The store whose listing says which renditions there are.

    A listing does not tell an edition. What was put before the moment `since`, by the store's clock, is looked at one by one.
    """

    store: Store
    since: Callable[[], float] = lambda: math.inf

    def has(self, name: str) -> bool:
        """Whether a rendition is there, of this edition."""
        return self.store.head(name) is not None

    def missing(self, words: Words, suffixes: tuple[str, ...], query: Mapping[str, Any] | None = None, after: str = "") -> Iterator[str]:
        """The names of renditions with these suffixes that are not there: of all committed records, or of those that a search finds.

        They come in order; `after` leaves out those up to a name.
        """
        first = after[:64]
        if query:
            found = (name for hash in _in_order(words, query, first) for name in named(hash, suffixes))
            return (name for name in found if name > after and not self.has(name))
        wanted = (name for hash in words.sessions.hashes(first) for name in named(hash, suffixes) if name > after)
        return self._unlisted(wanted, first)

    def _unlisted(self, wanted: Iterator[str], first: str) -> Iterator[str]:
        since, listed = self.since(), self.store.list(after=first)
        item = next(listed, None)
        for name in wanted:
            while item is not None and item.key < name:
                item = next(listed, None)
            if item is None or item.key != name or not self._is_ours(item, since):
                yield name

    def _is_ours(self, item: Item, since: float) -> bool:
        return item.modified >= since or self.has(item.key)


def edition_since(meta: Store, edition: int) -> float:
    """From when on a repository has had this edition, by the store's clock; 0 if it never had another."""
    key = f"{_EDITIONS}{edition}"
    if meta.head(key) is None:
        first = next(meta.list(_EDITIONS), None) is None
        meta.put(key, BytesIO(_FIRST if first else _LATER), create=True)
    blob = meta.get(key, fresh=True)
    if blob is None:
        return math.inf
    with blob:
        return 0.0 if blob.file.read() == _FIRST else blob.item.modified


def named(hash: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """The names of an image's renditions, in order."""
    return (f"{hash}{suffix}" for suffix in sorted(suffixes))


def hashes(words: Words, query: Mapping[str, Any]) -> Iterator[str]:
    """The images that a search finds; from the beginning again if that takes so long that its moment is no longer kept."""
    wanted, cursor = asking.read(query), ""
    while True:
        try:
            page = words.search.page(wanted, most=_PAGE, cursor=cursor)
        except Outdated:
            cursor = ""
            continue
        yield from (record.hash for record in page.records)
        cursor = page.cursor
        if not cursor:
            return


def _in_order(words: Words, query: Mapping[str, Any], first: str) -> Iterator[str]:
    """The same in the order of hashes, from that one on; searched for again after every so many, for memory has a bound."""
    last = ""
    while True:
        some = nsmallest(_AT_ONCE, (hash for hash in hashes(words, query) if hash >= first and hash > last))
        yield from sorted(set(some))
        if len(some) < _AT_ONCE:
            return
        last = some[-1]
