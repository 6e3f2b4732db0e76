"""The store in memory: the conformance suite without and with a bound, and how it is bounded."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgproxy.departures import Departures
from imgproxy.stores.memory import MemoryStore
from tests.stores.conformance import TestConformance as TestConformance
from tests.stores.conformance import body, keys


@pytest.fixture(params=[None, 64 * 2**20], ids=["store", "tier"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore(request.param)


def test_a_tier_stays_within_its_size_and_forgets_what_was_used_longest_ago() -> None:
    tier = MemoryStore(100)
    for name in "abcd":
        tier.put(name, io.BytesIO(b"x" * 25))
    tier.get("a")
    tier.head("b")
    tier.put("e", io.BytesIO(b"x" * 26))
    assert keys(tier) == ["a", "b", "e"]


def test_a_larger_new_version_makes_room_without_counting_the_old_one_twice() -> None:
    tier = MemoryStore(100)
    tier.put("a", io.BytesIO(b"x" * 40))
    tier.put("b", io.BytesIO(b"x" * 40))
    tier.put("b", io.BytesIO(b"x" * 60))
    assert keys(tier) == ["a", "b"]


def test_what_alone_is_larger_than_the_tier_is_forgotten_and_takes_nothing_else_with_it() -> None:
    tier = MemoryStore(100)
    tier.put("a", io.BytesIO(b"x" * 40))
    tier.put("b", io.BytesIO(b"old"))
    assert tier.put("b", io.BytesIO(b"x" * 101)) is True
    assert keys(tier) == ["a"]


def test_what_is_as_large_as_the_tier_is_kept() -> None:
    tier = MemoryStore(100)
    tier.put("a", io.BytesIO(b"x" * 100))
    assert body(tier, "a") == b"x" * 100


def test_the_bound_holds_while_threads_put_and_delete() -> None:
    tier = MemoryStore(1000)

    def use(number: int) -> int:
        most = 0
        for turn in range(200):
            tier.put(f"{number}-{turn % 7}", io.BytesIO(b"x" * (turn % 90)))
            tier.delete(f"{number}-{(turn + 3) % 7}")
            most = max(most, sum(item.size for item in tier.list(f"{number}-")))
        return most

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(use, range(4))) <= 1000
    assert sum(item.size for item in tier.list()) <= 1000
    for item in list(tier.list()):
        tier.delete(item.key)
    tier.put("all", io.BytesIO(b"x" * 1000))
    assert keys(tier) == ["all"]


def test_nobody_can_change_a_note_from_outside() -> None:
    store = MemoryStore()
    note = {"width": "1"}
    store.put("a", io.BytesIO(b"x"), note=note)
    note["width"] = "2"
    item = store.head("a")
    assert item is not None
    assert dict(item.note) == {"width": "1"}
    with pytest.raises(TypeError):
        item.note["width"] = "3"  # type: ignore[index]


def test_a_closed_store_has_let_go_of_everything() -> None:
    store = MemoryStore(10)
    store.put("a", io.BytesIO(b"x" * 10))
    store.close()
    assert keys(store) == []
    store.put("b", io.BytesIO(b"x" * 10))
    assert keys(store) == ["b"]


def test_what_another_process_has_forgotten_is_forgotten_here(tmp_path: Path) -> None:
    here, there = Departures(tmp_path / "departures"), Departures(tmp_path / "departures")
    store = MemoryStore(100, here.seen)
    for key in ("a" * 64 + "-1x1.jpg", "b" * 64 + "-1x1.jpg"):
        store.put(key, io.BytesIO(b"1"))
    there.note("a" * 64 + "-")
    assert store.get("a" * 64 + "-1x1.jpg") is None
    assert store.head("b" * 64 + "-1x1.jpg") is not None
    store.put("a" * 64 + "-1x1.jpg", io.BytesIO(b"2"))
    assert store.get("a" * 64 + "-1x1.jpg") is not None
