"""The room of the images: who may wait there, and who need not."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from imgproxy.cache import Cache
from imgproxy.departures import Departures
from imgproxy.errors import Busy, Missing
from imgproxy.flights import Flights
from imgproxy.grammar import Base, Derived
from imgproxy.images import Images, Patience
from imgproxy.originals import Originals
from imgproxy.picture import Facts, Stamp, Study
from imgproxy.quarantine import Quarantine
from imgproxy.stores import Blob, Store
from imgproxy.stores.disk import DiskTier
from imgproxy.stores.memory import MemoryStore
from tests.plain import png


class Slow(MemoryStore):
    """A far store that hands nothing over before it is let go, and says how many are waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.waiting = threading.Semaphore(0)

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        self.waiting.release()
        assert self.go.wait(30)
        return super().get(key, fresh=fresh)


class Idle:
    """A renderer that nobody needs here."""

    def render(self, source: BinaryIO, name: Derived, stamp: Stamp | None, patience: float) -> bytes:
        raise NotImplementedError

    def probe(self, source: BinaryIO, patience: float) -> Facts:
        raise NotImplementedError

    def study(self, source: BinaryIO, patience: float) -> Study:
        raise NotImplementedError


def kept(store: Store, seed: int) -> tuple[Base, bytes]:
    data = png(8, 8, seed)
    name = Base(hashlib.sha256(data).hexdigest(), "png")
    store.put(name.hash, io.BytesIO(data))
    return name, data


def content(images: Images, name: Base) -> bytes:
    with images.open(name).file as file:
        return file.read()


def test_who_waits_for_a_far_original_takes_a_place_and_who_asks_for_a_near_one_does_not(tmp_path: Path) -> None:
    far, near, flights = Slow(), DiskTier(tmp_path / "copies", 0, 2**30), Flights(tmp_path / "flights")
    departures = Departures(tmp_path / "departures")
    originals = Originals(far, near, flights, departures, Quarantine(tmp_path / "quarantine", lambda _: None))
    images = Images(originals, Cache([], flights, departures, 2), Idle(), {}, Patience())
    (one, first), (other, second), (third, _), (copied, here) = kept(far, 1), kept(far, 2), kept(far, 3), kept(near, 4)
    with ThreadPoolExecutor(2) as threads:
        held = [threads.submit(content, images, name) for name in (one, other)]
        for _ in held:
            assert far.waiting.acquire(timeout=30)
        began = time.monotonic()
        with pytest.raises(Busy):
            images.open(third)
        assert content(images, copied) == here
        with pytest.raises(Missing):
            images.open(Base(copied.hash, "jpg"))
        assert time.monotonic() - began < 20
        far.go.set()
        assert [answer.result() for answer in held] == [first, second]
    assert content(images, third) == png(8, 8, 3)
