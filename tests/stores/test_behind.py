"""Written behind: the conformance suite, and what happens when the slower store is slow, full of trouble or gone."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from imgproxy.departures import Departures
from imgproxy.errors import StoreDown, StoreFull, StoreTrouble
from imgproxy.stores.behind import Behind
from imgproxy.stores.fs import FsStore
from imgproxy.stores.memory import MemoryStore
from tests.stores.conformance import TestConformance as TestConformance

ROOM = 64 * 2**20


class Gated(MemoryStore):
    """A store that writes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.down = False

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        self.gate.wait(30)
        if self.down:
            raise StoreDown("down")
        return super().put(key, source, type=type, note=note, create=create)


def steady(_key: str) -> bytes:
    """Nobody forgets anything."""
    return b""


@pytest.fixture
def lost() -> list[str]:
    return []


@pytest.fixture
def store(lost: list[str]) -> Iterator[Behind]:
    store = Behind(MemoryStore(), ROOM, lambda key, _: lost.append(key), steady)
    yield store
    store.close()


def test_what_waits_can_be_read_and_arrives() -> None:
    slow = Gated()
    behind = Behind(slow, ROOM, lambda *_: None, steady)
    behind.put("a", io.BytesIO(b"data"), type="image/png", note={"w": "1"})
    blob = behind.get("a")
    assert blob is not None
    assert (blob.file.read(), blob.item.type, blob.item.note) == (b"data", "image/png", {"w": "1"})
    assert slow.get("a") is None
    slow.gate.set()
    assert behind.flush(30)
    arrived = slow.get("a")
    assert arrived is not None
    assert (arrived.file.read(), arrived.item.type) == (b"data", "image/png")
    behind.close()


def test_more_than_there_is_room_for_is_dropped_and_told() -> None:
    slow = Gated()
    behind = Behind(slow, 10, lambda *_: None, steady)
    behind.put("a", io.BytesIO(b"12345678"))
    with pytest.raises(StoreFull):
        behind.put("b", io.BytesIO(b"123"))
    slow.gate.set()
    assert behind.flush(30)
    behind.put("b", io.BytesIO(b"123"))
    assert behind.flush(30)
    assert [item.key for item in slow.list()] == ["a", "b"]
    behind.close()


def test_a_write_that_fails_is_lost_and_told_and_the_next_goes_on() -> None:
    slow, lost = Gated(), []

    def note(key: str, _: StoreTrouble) -> None:
        lost.append(key)
        slow.down = False

    slow.down = True
    slow.gate.set()
    behind = Behind(slow, ROOM, note, steady)
    behind.put("a", io.BytesIO(b"1"))
    behind.put("b", io.BytesIO(b"2"))
    assert behind.flush(30)
    assert (lost, [item.key for item in slow.list()]) == (["a"], ["b"])
    behind.close()


def test_what_is_deleted_while_it_is_written_does_not_come_back() -> None:
    slow = Gated()
    behind = Behind(slow, ROOM, lambda *_: None, steady)
    behind.put("a", io.BytesIO(b"1"))
    threading.Timer(0.1, slow.gate.set).start()
    behind.delete("a")
    assert behind.flush(30)
    assert slow.get("a") is None
    behind.close()


def test_what_another_process_has_forgotten_while_it_waited_does_not_come_back(tmp_path: Path) -> None:
    slow, here, there = Gated(), Departures(tmp_path / "departures"), Departures(tmp_path / "departures")
    behind = Behind(slow, ROOM, lambda *_: None, here.seen)
    behind.put("a" * 64 + "-1x1.jpg", io.BytesIO(b"1"))
    behind.put("b" * 64 + "-1x1.jpg", io.BytesIO(b"2"))
    there.note("a" * 64 + "-")
    slow.gate.set()
    assert behind.flush(30)
    assert [item.key[0] for item in slow.list()] == ["b"]
    behind.close()


def test_it_writes_in_a_forked_process_too(tmp_path: Path) -> None:
    root = tmp_path / "derived"
    behind = Behind(FsStore(root), ROOM, lambda *_: None, steady)
    behind.put("a", io.BytesIO(b"1"))
    assert behind.flush(30)
    child = os.fork()
    if child == 0:
        behind.put("b", io.BytesIO(b"2"))
        os._exit(0 if behind.flush(30) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [item.key for item in FsStore(root).list()] == ["a", "b"]
    behind.close()
