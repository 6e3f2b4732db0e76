"""What a load asks of a repository that several nodes serve over one Swift: pictures of noise, put by one house, had over HTTP.

Each picture comes as an original and in a few sizes, so that there are always hits, renditions of another node, and renders. What is right
is known without asking anybody: an original proves itself, and a rendition is rendered here.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

from imgproxy import render
from imgproxy.grammar import Derived, parse
from imgproxy.images import Images
from imgproxy.limits import Limits
from tests.load import Dice, Subject
from tests.plain import noise
from tests.serving import Server
from tests.swift_fixtures import account_of
from tests.swiftbox import SwiftBox

SIDES = ((24, 16), (200, 150), (640, 600))
"""Pictures of 1 kB, 90 kB and 1.2 MB: the last is more than a store reads at once."""

SUFFIXES = ("-16x.png", "-100x.jpg", "-180x.jpg", "-400x.jpg", "-120x80-fill.webp")


def swift_settings(box: SwiftBox, prefix: str, port: int | None = None) -> dict[str, str]:
    """The settings of a repository in that Swift; with `port`, by way of whoever listens there."""
    account = account_of(box, port)
    return {
        "IMG_STORE": f"swift://{prefix}",
        "ST_AUTH": account.auth_url,
        "ST_USER": account.user,
        "ST_KEY": account.key,
        "OS_STORAGE_URL": account.storage_url,
    }


_IDLE = 30.0
"""A connection that was not used for so long may be closed at any moment."""


class Refused(Exception):
    """An answer that is neither a picture nor "not here"."""


class Album:
    """The pictures that were put, and the nodes that have them."""

    def __init__(self, images: Images, nodes: Sequence[Server]) -> None:
        self.origins: Counter[str] = Counter()
        self._images = images
        self._ports = itertools.cycle([node.port for node in nodes])
        self._bodies: dict[str, bytes] = {}
        self._kept: Mapping[int, deque[tuple[float, http.client.HTTPConnection]]] = {node.port: deque() for node in nodes}
        self.subject = Subject(self._new, self._wanted, self._right)

    def write(self, name: str, body: bytes) -> None:
        """Put a picture."""
        self._bodies[name] = body
        assert self._images.add(io.BytesIO(body)).name.hash == name

    def read(self, name: str) -> bytes | None:
        """Ask one of the nodes."""
        status, origin, body = self._answer(next(self._ports), f"/{name}")
        if status == 404:
            return None
        if status != 200:
            raise Refused(f"{status}: {json.loads(body)['detail']}")
        self.origins[origin] += 1
        return body

    @property
    def bodies(self) -> Mapping[str, bytes]:
        """The bytes of all pictures that were put, or should have been, by their hashes."""
        return self._bodies

    def close(self) -> None:
        """Close the connections."""
        for _, line in itertools.chain(*self._kept.values()):
            line.close()

    def _answer(self, port: int, path: str) -> tuple[int, str, bytes]:
        """By a connection that was used a moment ago, or a new one."""
        kept = self._kept[port]
        line = _young(kept) or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            line.request("GET", path)
            answer = line.getresponse()
            body = answer.read()
        except BaseException:
            line.close()
            raise
        kept.append((time.monotonic() + _IDLE, line))
        return answer.status, answer.headers.get("Server-Timing", ""), body

    def _new(self, dice: Dice) -> bytes:
        return noise(*dice.choice(SIDES), dice)

    def _wanted(self, dice: Dice, hash: str) -> str:
        return f"{hash}{dice.choice(SUFFIXES)}" if dice.random() < 0.7 else f"{hash}.png"

    def _right(self, name: str, body: bytes) -> bool:
        parsed = parse(name)
        if isinstance(parsed, Derived):
            return body == self._rendered(parsed)
        return hashlib.sha256(body).hexdigest() == parsed.hash

    @lru_cache(maxsize=4096)  # noqa: B019 - an album lives as long as its tests
    def _rendered(self, name: Derived) -> bytes:
        return render.render(io.BytesIO(self._bodies[name.hash]), name, Limits())


def _young(kept: deque[tuple[float, http.client.HTTPConnection]]) -> http.client.HTTPConnection | None:
    """A connection out of `kept`; those that are too old are closed."""
    with suppress(IndexError):
        while True:
            until, line = kept.pop()
            if time.monotonic() < until:
                return line
            line.close()
    return None
