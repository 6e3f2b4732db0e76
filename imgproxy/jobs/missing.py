"""Which renditions are not there: what the committed records promise, minus a listing. Nothing is written down that could rot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgproxy.errors import Outdated
from imgproxy.meta import query as asking
from imgproxy.meta.repository import Words
from imgproxy.stores import Store

_PAGE = 500
_HASH = 64


def missing(
    words: Words, renditions: Store, suffixes: tuple[str, ...], query: Mapping[str, Any] | None = None, after: str = ""
) -> Iterator[str]:
    """The names of renditions with these suffixes, of all committed records or of those that a search finds, that the store has not.

    Of all records they come in order, from behind the name `after` on.
    """
    if query:
        for hash in hashes(words, query):
            yield from (name for name in named(hash, suffixes) if renditions.head(name) is None)
        return
    listed = (item.key for item in renditions.list(after=after))
    key = next(listed, None)
    for hash in words.sessions.hashes(after[:_HASH]):
        for name in named(hash, suffixes):
            if name <= after:
                continue
            while key is not None and key < name:
                key = next(listed, None)
            if key != name:
                yield name


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
