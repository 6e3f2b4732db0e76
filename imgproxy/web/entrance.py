"""Who comes in: the bearer of a token that is known and is for this; and nobody who has tried too often.

Attempts with wrong tokens are counted for each address, in this process, in bounded memory. From an address with too many of them no
token is looked at for a while, except one that was right from there before: so nobody locks out those who share an address with him.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from imgproxy import observe
from imgproxy.errors import Forbidden, Stranger, TooManyTries
from imgproxy.security import Grant, digest_of

TRIES = 30
"""So many wrong tokens may come from an address at once."""
SECONDS = 2.0
"""And one more after so many seconds."""

_ADDRESSES = 4096
_NOBODY = "a token is needed here: Authorization: Bearer, and the token"


class Entrance:
    """Looks at tokens; `opened` tells what the bearer of one may do, or raises `Stranger`."""

    def __init__(self, opened: Callable[[str], Grant]) -> None:
        self._opened = opened
        self._tries = Tries()

    def admitted(self, environ: Mapping[str, Any], scope: str) -> Grant:
        """What the asker may do, if it is enough for that scope; else `Stranger`, `Forbidden` or `TooManyTries`."""
        said = environ.get("HTTP_AUTHORIZATION")
        if said is None:
            raise Stranger(_NOBODY)
        asker = _asker(environ)
        address = _network(asker)
        kind, _, token = said.partition(" ")
        token = token.strip()
        self._tries.check(address, digest_of(token))
        try:
            if kind.lower() != "bearer":
                raise Stranger(_NOBODY)
            grant = self._opened(token)
        except Stranger:
            self._tries.failed(address)
            observe.event("a wrong token", {"address": asker}, level="warning")
            raise
        self._tries.succeeded(address, digest_of(token))
        if not grant.allows(scope):
            observe.event("a token that is not for this", {"who": grant.name, "scope": scope}, level="warning")
            raise Forbidden("this token is not for that")
        return grant


def _asker(environ: Mapping[str, Any]) -> str:
    """The address of who asks; behind a socket, which has none, the one that the nginx at it tells."""
    told: str = environ.get("REMOTE_ADDR") or environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
    return told


class Tries:
    """Wrong tokens by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._right: OrderedDict[tuple[str, str], None] = OrderedDict()

    def check(self, address: str, digest: str) -> None:
        """Return if a token from an address may be looked at, else raise `TooManyTries`."""
        with self._lock:
            left = self._left(address)
            if left < 1 and (address, digest) not in self._right:
                raise TooManyTries(max(1, round((1 - left) * SECONDS)))

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        with self._lock:
            self._failed[address] = (max(0.0, self._left(address) - 1), self._clock())
            self._failed.move_to_end(address)
            if len(self._failed) > _ADDRESSES:
                self._failed.popitem(last=False)

    def succeeded(self, address: str, digest: str) -> None:
        """Remember a right one."""
        with self._lock:
            self._right[address, digest] = None
            self._right.move_to_end((address, digest))
            if len(self._right) > _ADDRESSES:
                self._right.popitem(last=False)

    def _left(self, address: str) -> float:
        """How many more may come just now."""
        left, since = self._failed.get(address, (float(TRIES), 0.0))
        return min(float(TRIES), left + (self._clock() - since) / SECONDS)


def _network(address: str) -> str:
    """What one asker has for himself: an address, or of the newer kind the first half of it."""
    return ":".join(address.split(":")[:4]) if address.count(":") > 1 else address
