"""The lease: one writer, told by name, replaced when it falls silent."""

from __future__ import annotations

from io import BytesIO

import pytest

from imgproxy.errors import NotTheWriter, StoreLied
from imgproxy.meta.lease import KEY, Lease
from imgproxy.stores.memory import MemoryStore


class Clock:
    """The monotonic clock of a machine, turned by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr("imgproxy.meta.lease.time", turned)
    return turned


def lease(store: MemoryStore, name: str, incarnation: str = "") -> Lease:
    return Lease(store, name, incarnation or f"{name} 1", seconds=30.0, settle=1.0)


def test_the_first_to_ask_is_the_writer_and_stays_it(clock: Clock) -> None:
    store = MemoryStore()
    ann, ben = lease(store, "ann"), lease(store, "ben")
    assert ann.check().holder == "ann"
    with pytest.raises(NotTheWriter) as caught:
        ben.check()
    assert caught.value.holder == "ann"
    assert "ann" in str(caught.value)
    ann.still()
    assert ann.check().term == 1


def test_a_silent_writer_is_replaced_when_its_lease_lapses_and_not_before(clock: Clock) -> None:
    store = MemoryStore()
    ann, ben = lease(store, "ann"), lease(store, "ben")
    ann.check()
    for _ in range(3):
        with pytest.raises(NotTheWriter):
            ben.check()
        clock.now += 10
    with pytest.raises(NotTheWriter):
        ben.check()
    clock.now += 1
    assert ben.check().term == 2
    for ask in (ann.still, ann.check, ann.renew):
        with pytest.raises(NotTheWriter, match="ben"):
            ask()


def test_a_beating_writer_is_never_replaced(clock: Clock) -> None:
    store = MemoryStore()
    ann, ben = lease(store, "ann"), lease(store, "ben")
    for _ in range(20):
        ann.renew()
        clock.now += 10
        with pytest.raises(NotTheWriter):
            ben.check()
    assert ann.read() is not None


def test_who_waits_gets_the_lease_when_it_lapses(clock: Clock) -> None:
    store = MemoryStore()
    ann, ben = lease(store, "ann"), lease(store, "ben")
    ann.check()
    assert ben.wait(clock.sleep).holder == "ben"
    assert 1_030 < clock.now < 1_040


def test_a_released_lease_is_taken_at_once(clock: Clock) -> None:
    store = MemoryStore()
    ann, ben = lease(store, "ann"), lease(store, "ben")
    ann.check()
    ben.release()
    ann.still()
    ann.release()
    assert ben.check().holder == "ben"
    with pytest.raises(NotTheWriter):
        ann.still()


def test_the_same_node_in_a_new_life_takes_over_at_once_and_deposes_the_old_one(clock: Clock) -> None:
    store = MemoryStore()
    old, new = lease(store, "ann", "first life"), lease(store, "ann", "second life")
    old.check()
    begun = clock.now
    assert new.check().term == 2
    assert clock.now == begun
    with pytest.raises(NotTheWriter):
        old.still()


def test_of_two_who_take_over_at_the_same_time_one_gives_way(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store lets both write; who reads another name after the pause has lost."""
    store = MemoryStore()
    lease(store, "ann").check()
    ben, eve = lease(store, "ben"), lease(store, "eve")
    for rival in (ben, eve):
        with pytest.raises(NotTheWriter):
            rival.check()
    clock.now += 31
    found = eve.read()
    assert found is not None

    def eve_has_read_the_same_and_writes_later(seconds: float) -> None:
        clock.now += seconds
        monkeypatch.setattr(clock, "sleep", lambda _: None)
        eve._take(found)

    monkeypatch.setattr(clock, "sleep", eve_has_read_the_same_and_writes_later)
    with pytest.raises(NotTheWriter, match="eve"):
        ben.check()
    eve.still()


def test_what_is_no_lease_is_not_believed(clock: Clock) -> None:
    store = MemoryStore()
    for text in (b"", b"{}", b"[1]", b'{"holder": "x"}'):
        store.put(KEY, BytesIO(text))
        with pytest.raises(StoreLied):
            lease(store, "ann").check()
