"""What Swift's proxy keeps in memcached, kept in the proxy itself: there is one proxy only."""

from __future__ import annotations

import json
import time as clock
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class DictCache:
    """The part of Swift's `MemcacheRing` that its middlewares use."""

    memcache_servers = ("in-process",)

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, float]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        text, until = self._kept.get(key, ("null", 0.0))
        return None if 0 < until < clock.time() else json.loads(text)

    def set(self, key: str, value: Any, serialize: bool = True, time: float = 0, **rest: object) -> bool:
        self._kept[key] = (json.dumps(value), clock.time() + float(time) if time else 0.0)
        return True

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:
        value = max(0, int(delta) + int(self.get(key) or 0))
        self.set(key, value, time=time)
        return value

    def decr(self, key: str, delta: int = 1, time: float = 0) -> int:
        return self.incr(key, -int(delta), time)

    def delete(self, key: str, server_key: str | None = None) -> None:
        self._kept.pop(key, None)

    def set_multi(self, mapping: Mapping[str, Any], server_key: str, serialize: bool = True, time: float = 0, **rest: object) -> None:
        for key, value in mapping.items():
            self.set(key, value, time=time)

    def get_multi(self, keys: Iterable[str], server_key: str) -> list[Any]:
        return [self.get(key) for key in keys]


def filter_factory(_: Mapping[str, str], **__: str) -> Callable[[Any], Any]:
    """Put one cache before each application of a pipeline."""
    cache = DictCache()

    def around(app: Any) -> Any:
        def middleware(environ: dict[str, Any], start_response: Any) -> Any:
            environ["swift.cache"] = cache
            return app(environ, start_response)

        return middleware

    return around
