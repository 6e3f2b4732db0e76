"""A shared tier in Redis: small renditions, for all nodes at once, and never anybody's only copy.

- What is larger than `largest` is forgotten as soon as it is put, and everything after `expire` seconds. How much there is in all is
  bounded by Redis itself: give it `maxmemory` and `maxmemory-policy allkeys-lru`. Without that policy, a full Redis forgets what is put.
- `create=True` is atomic, and every node sees a change at once, as long as there is one Redis. After a failover what was put last may be
  gone, or be again what it was before.
- A value carries its lengths, and a digest of its key, its words and its bytes. What does not agree is no object, and is removed.
- Redis down, slow, loading or locked is a tier that forgets: `get` and `head` say None, `put` says True. That costs one caller a moment,
  and then nobody asks, but for one caller in `pause`. `delete` and `list` raise: there, to say nothing would be a lie.
- A listing reads all names of its prefix, once for every `PAGE` objects that it yields; what comes and goes meanwhile may be missed.
- Keys begin with `imgproxy:<edition>:`, so nobody is given what another edition has made.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from imgproxy.errors import StoreFull, StoreTrouble
from imgproxy.stores import Blob, Item, checked_key
from imgproxy.stores.guarded import Guard, Guarded
from imgproxy.stores.redis.shelf import PAGE, Shelf, spoken

__all__ = ["PAGE", "RedisTier", "Terms", "client", "spoken"]

_URL = re.compile(r"rediss?://[^/?#]+(?:/[0-9]{1,5})?|unix://(?:[^/?#@]*@)?/[^?#]+(?:\?db=[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the tier keeps and for how long; how long it waits for Redis, and how long it leaves one alone that is down.

    `largest` is in bytes, all others in seconds.
    """

    largest: int = 256 * 2**10
    expire: float = 7 * 86400.0
    connect: float = 0.2
    read: float = 0.25
    pause: float = 1.0


class RedisTier:
    """A tier in the Redis of a URL: `redis://[user:password@]host:port[/0]`, `rediss://...` or `unix:///path[?db=0]`."""

    def __init__(self, url: str, edition: int, terms: Terms | None = None) -> None:
        terms = terms or Terms()
        self._largest = terms.largest
        self._store = Guarded(Shelf(client(url, terms), f"imgproxy:{edition}:", terms.expire), Guard(failures=1, pause=terms.pause))

    @property
    def down(self) -> bool:
        """Whether Redis is known to be down just now."""
        return self._store.down

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        """Open an object, its bytes known to be right; None also if Redis cannot say."""
        try:
            return self._store.get(key, fresh=fresh)
        except StoreTrouble:
            return None

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        """What is known of an object; None also if Redis cannot say."""
        try:
            return self._store.head(key, fresh=fresh)
        except StoreTrouble:
            return None

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        """Keep an object, or forget it at once: too large, no room, no answer. No older version of it survives that, if Redis answers."""
        checked_key(key)
        data = _at_most(source, self._largest + 1)
        try:
            if len(data) <= self._largest:
                return self._store.put(key, io.BytesIO(data), type=type, note=note, create=create)
            if create:
                return self._store.head(key) is None
            self._store.delete(key)
        except StoreFull:
            self._forget(key)
        except StoreTrouble:
            pass
        return True

    def delete(self, key: str) -> bool:
        """Remove an object; raises if Redis cannot say."""
        return self._store.delete(key)

    def delete_prefix(self, prefix: str) -> int:
        """Remove everything made from one original, many at a time; `prefix` is a hash and a `-`."""
        return self._store.delete_prefix(prefix)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        """The objects that are not forgotten yet; raises if Redis cannot say. Nothing is said of types and notes."""
        return self._store.list(prefix, after)

    def check(self) -> None:
        """Return if Redis answers."""
        self._store.check()

    def close(self) -> None:
        """Close the connections; using the tier again opens new ones."""
        self._store.close()

    def _forget(self, key: str) -> None:
        try:
            self._store.delete(key)
        except StoreTrouble:
            return


def client(url: str, terms: Terms) -> redis.Redis:
    """A client that answers within these terms, or raises; what has to do with Redis elsewhere in the house begins with it, too."""
    if not _URL.fullmatch(url):
        raise ValueError("expected redis://host:port/0, rediss://host:port/0 or unix:///path?db=0")
    # No greetings, no second tries: a connection costs one moment, and what is due after a failure is decided elsewhere.
    pool = redis.ConnectionPool.from_url(
        url,
        socket_connect_timeout=terms.connect,
        socket_timeout=terms.read,
        protocol=2,
        driver_info=None,
        retry=Retry(NoBackoff(), 0),
        max_connections=1024,
    )
    return redis.Redis(connection_pool=pool)


def _at_most(source: BinaryIO, count: int) -> bytes:
    taken = bytearray()
    while len(taken) < count and (more := source.read(count - len(taken))):
        taken += more
    return bytes(taken)
