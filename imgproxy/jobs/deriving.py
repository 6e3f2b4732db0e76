"""Make renditions ahead: several at a time, in constant memory, and those that are there already cost next to nothing."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TypeAlias

from imgproxy.errors import Busy, Error, RendererLost
from imgproxy.grammar import Derived, parse
from imgproxy.jobs import suffixes_of
from imgproxy.jobs.fetching import CANNOT_BE
from imgproxy.jobs.missing import hashes, named
from imgproxy.jobs.orders import Derive
from imgproxy.jobs.shop import Shop, Tell
from imgproxy.jobs.task import Outcome
from imgproxy.picture import MEDIA_TYPES

_TOLD = 20
_PATIENCE = 60.0
_PAUSE = 0.2

Made: TypeAlias = tuple[str, str]
"""The word for what became of a rendition (`made`, `there` or `refused`), and why it was refused."""


def derive(order: Derive, _task: str, shop: Shop, tell: Tell) -> Outcome:
    """Make what was ordered."""
    counts: Counter[str] = Counter(made=0, there=0, refused=0)
    errors: list[str] = []
    under_way: deque[tuple[str, Future[Made]]] = deque()

    def land() -> None:
        name, future = under_way.popleft()
        word, why = future.result()
        counts[word] += 1
        if why and len(errors) < _TOLD:
            errors.append(f"{name}: {why}")
        tell(dict(counts))

    with ThreadPoolExecutor(shop.hands, thread_name_prefix="derive") as crew:
        try:
            for name in _names(order, shop):
                under_way.append((name, crew.submit(_make, name, shop)))
                if len(under_way) > shop.hands * 2:
                    land()
            while under_way:
                land()
        except BaseException:
            crew.shutdown(wait=False, cancel_futures=True)
            raise
    refused = counts["refused"]
    return Outcome("warning" if refused else "succeeded", {**counts, "errors": errors}, f"{refused} could not be made" if refused else "")


def _names(order: Derive, shop: Shop) -> Iterator[str]:
    suffixes = suffixes_of(order.suffixes, order.presets, shop.presets)
    if order.hashes:
        wanted = (name for hash in sorted(set(order.hashes)) for name in named(hash, suffixes))
        return chain(order.names, (name for name in wanted if not (order.missing and shop.renditions.has(name))))
    if not suffixes:
        return iter(order.names)
    if order.missing:
        return chain(order.names, shop.renditions.missing(shop.words, suffixes, order.query))
    found = hashes(shop.words, order.query) if order.query else shop.words.sessions.hashes()
    return chain(order.names, (name for hash in found for name in named(hash, suffixes)))


def _make(text: str, shop: Shop) -> Made:
    """Make one, waiting for its turn behind those who wait for their picture."""
    name, until = parse(text), time.monotonic() + _PATIENCE
    lost = False
    while True:
        try:
            image = shop.images.open(name)
            break
        except CANNOT_BE as error:
            return "refused", _first_line(error)
        except RendererLost as error:
            if lost:
                return "refused", _first_line(error)
            lost = True
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)
    with image.file as file:
        if shop.far is not None and image.origin not in ("render", "derived") and isinstance(name, Derived) and shop.far.head(text) is None:
            shop.far.put(text, file, type=MEDIA_TYPES[name.format])  # what this node alone has is soon nobody's
    return ("made" if image.origin == "render" else "there"), ""


def _first_line(error: Error) -> str:
    return str(error).partition("\n")[0]
