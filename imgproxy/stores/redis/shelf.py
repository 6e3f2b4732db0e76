"""What Redis has, without forgiveness: a store that says so when Redis does not answer."""

from __future__ import annotations

import heapq
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError, ResponseError

from imgproxy.errors import StoreDown, StoreFull, StoreTrouble
from imgproxy.stores import Blob, Item, checked_key
from imgproxy.stores.redis.value import HEAD, MOST_WORDS, read, read_head, read_words, written

PAGE = 10_000
"""So many keys are held at once while listing."""

_BATCH = 500
_DERIVED = re.compile("[0-9a-f]{64}-[a-z0-9._-]*")
list_ = list


class Shelf:
    """The objects of one edition: all keys that begin with `space`. They disappear `expire` seconds after they were put."""

    def __init__(self, client: Redis, space: str, expire: float) -> None:
        self._redis = client
        self._space = space
        self._expire = max(1, round(expire * 1000))

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:  # noqa: ARG002
        """Open an object; a rotten one is removed, and is none."""
        name = self._name(key)
        with spoken():
            (value,) = _answers(self._pipeline().get(name))
            found = read(key, value)
            if found is not None:
                return Blob(found[0], io.BytesIO(found[1]))
            if value is not None:
                self._redis.unlink(name)
            return None

    def head(self, key: str, *, fresh: bool = False) -> Item | None:  # noqa: ARG002
        """What is known of an object."""
        name = self._name(key)
        with spoken():
            start, length = _answers(self._pipeline().getrange(name, 0, HEAD + MOST_WORDS - 1).strlen(name))
            said = read_words(key, start)
            return said.item if said and said.end == length else None

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        """Keep an object of any size, for a while."""
        name = self._name(key)
        value = written(key, source.read(), type, dict(note or {}))
        with spoken():
            if self._redis.set(name, value, px=self._expire, nx=create):
                return True
            # What is in the way may be rotten; then it is none, and reading it has removed it.
            return self.get(key) is None and bool(self._redis.set(name, value, px=self._expire, nx=True))

    def delete(self, key: str) -> bool:
        """Remove an object."""
        with spoken():
            return bool(self._redis.unlink(self._name(key)))

    def delete_prefix(self, prefix: str) -> int:
        """Remove everything made from one original; `prefix` is a hash and a `-`."""
        if not _DERIVED.fullmatch(prefix):
            raise ValueError(f"not the beginning of derived names alone: {prefix!r}")
        count = 0
        with spoken():
            keys = self._keys(prefix)
            while batch := list_(islice(keys, _BATCH)):
                count += int(self._redis.unlink(*map(self._name, batch)))
        return count

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        """The objects, a page at a time, each page out of all names: Redis has no order."""
        with spoken(StoreDown):
            while True:
                page = heapq.nsmallest(PAGE, (key for key in self._keys(prefix) if key > after))
                keys = list_(dict.fromkeys(page))
                for start in range(0, len(keys), _BATCH):
                    yield from self._listed(keys[start : start + _BATCH])
                if len(page) < PAGE:
                    return
                after = page[-1]

    def check(self) -> None:
        """Return if Redis answers."""
        with spoken(StoreDown):
            self._redis.ping()

    def close(self) -> None:
        """Close the connections."""
        self._redis.connection_pool.disconnect()

    def _name(self, key: str) -> str:
        return self._space + checked_key(key)

    def _pipeline(self) -> Any:
        return self._redis.pipeline(transaction=False)

    def _keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin so, in no order, some of them perhaps twice."""
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", self._space + prefix) + "*"
        for name in self._redis.scan_iter(pattern, 2 * _BATCH):
            key = name[len(self._space) :].decode("ascii", "replace")
            if _is_key(key):
                yield key

    def _listed(self, keys: Sequence[str]) -> Iterator[Item]:
        pipeline = self._pipeline()
        for key in keys:
            pipeline.getrange(self._name(key), 0, HEAD - 1)
        for key, head in zip(keys, _answers(pipeline), strict=True):
            item = read_head(key, head)
            if item is not None:
                yield item


def _answers(pipeline: Pipeline) -> list[Any]:
    """The answers to all commands, in one round trip; of what is no string, and so not ours, an error is the answer."""
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
            raise answer
    return answers


@contextmanager
def spoken(refused: type[StoreTrouble] = StoreFull) -> Iterator[None]:
    """Turn what the client raises into the store's own words; a Redis that is there and will not do a thing is not down."""
    try:
        yield
    except ResponseError as error:
        raise refused("Redis will not do it: it is full, or read-only, or lets nobody") from error
    except (RedisError, OSError) as error:
        raise StoreDown("Redis does not answer, or not as it should") from error


def _is_key(text: str) -> bool:
    try:
        return bool(checked_key(text))
    except ValueError:
        return False
