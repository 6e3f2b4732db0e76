"""The breaker before a remote store: unnoticed while all is well, quick when it is not, and back by itself."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, BinaryIO, cast

import pytest

from imgproxy.errors import StoreDown, StoreLied
from imgproxy.stores import Blob, Item, guarded
from imgproxy.stores.guarded import Guard, Guarded
from imgproxy.stores.memory import MemoryStore
from imgproxy.stores.swift import Container, Patience, Swift, SwiftStore
from tests.cutter import Cutter, Rule
from tests.stores.conformance import HASH, body, keys
from tests.stores.conformance import TestConformance as TestConformance
from tests.swift_fixtures import account_of, new_store
from tests.swift_fixtures import swift as swift
from tests.swift_fixtures import swift_box_1 as swift_box_1
from tests.swiftbox import SwiftBox

LARGE = bytes(range(256)) * 10_000
HASTE = Patience(connect=0.5, read=0.5, total=1.0, tries=1, pause=0.02)


@pytest.fixture
def store() -> Guarded:
    return Guarded(MemoryStore())


@pytest.fixture
def cutter(swift_box_1: SwiftBox) -> Iterator[Cutter]:
    with Cutter(swift_box_1.info["port"]) as cutter:
        yield cutter


@pytest.fixture
def remote(swift: Swift, cutter: Cutter, swift_box_1: SwiftBox) -> Iterator[SwiftStore]:
    """A store in Swift by way of the cutter, with two objects."""
    direct = new_store(swift)
    direct.put("k", io.BytesIO(b"body"))
    direct.put("large", io.BytesIO(LARGE))
    store = SwiftStore(Container(direct._name), Swift(account_of(swift_box_1, cutter.port), HASTE))
    store.check()
    yield store
    store.close()


def fail(store: Guarded, times: int) -> None:
    for _ in range(times):
        with pytest.raises(StoreDown):
            store.head("k")


def test_after_some_failures_in_a_row_the_store_is_known_to_be_down(remote: SwiftStore, cutter: Cutter) -> None:
    store = Guarded(remote, Guard(failures=3, pause=60))
    cutter.misbehave(Rule("refuse"))
    fail(store, 2)
    assert not store.down
    fail(store, 1)
    assert store.down


def test_an_answer_in_between_forgives_the_failures_before(remote: SwiftStore, cutter: Cutter) -> None:
    store = Guarded(remote, Guard(failures=3, pause=60))
    for _ in range(3):
        cutter.misbehave(Rule("refuse"))
        fail(store, 2)
        cutter.misbehave(None)
        assert body(store, "k") == b"body"
    assert not store.down


def test_while_it_is_known_to_be_down_every_verb_fails_at_once_and_says_why(remote: SwiftStore, cutter: Cutter) -> None:
    store = Guarded(remote, Guard(failures=2, pause=60))
    cutter.misbehave(Rule("hang"))
    fail(store, 2)
    knocks = cutter.connections
    source = io.BytesIO(b"never read")
    verbs: list[Callable[[], object]] = [
        lambda: store.get("k"),
        lambda: store.head("k", fresh=True),
        lambda: store.put("k", source),
        lambda: store.delete("k"),
        lambda: store.delete_prefix(HASH + "-"),
        lambda: list(store.list()),
        lambda: store.check(),
    ]
    began = time.monotonic()
    for _ in range(100):
        for verb in verbs:
            with pytest.raises(StoreDown, match="Swift took too long"):
                verb()
    assert time.monotonic() - began < 5
    assert cutter.connections == knocks
    assert source.tell() == 0


def test_one_at_a_time_sees_whether_it_is_back(remote: SwiftStore, cutter: Cutter) -> None:
    store = Guarded(remote, Guard(failures=2, pause=0.2))
    cutter.misbehave(Rule("hang"))
    fail(store, 2)
    knocks = cutter.connections
    until = time.monotonic() + 2

    def ask(_: int) -> None:
        while time.monotonic() < until:
            with pytest.raises(StoreDown):
                store.head("k")
            time.sleep(0.01)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))
    assert 2 <= cutter.connections - knocks <= 5


def test_a_store_that_is_back_is_found_by_itself(remote: SwiftStore, cutter: Cutter) -> None:
    store = Guarded(remote, Guard(failures=2))
    cutter.misbehave(Rule("hang"))
    fail(store, 50)
    cutter.misbehave(None)
    deadline = time.monotonic() + 5
    while store.down and time.monotonic() < deadline:
        with suppress(StoreDown):
            store.check()
        time.sleep(0.05)
    assert not store.down
    assert body(store, "k") == b"body"


class Probed(MemoryStore):
    """A store in memory that fails, or hangs, as it is told."""

    well = False

    def __init__(self) -> None:
        super().__init__()
        self.trouble: BaseException | None = None
        self.hold: threading.Event | None = None
        self.asked = 0

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        self.asked += 1
        if self.hold is not None:
            self.hold.wait(30)
        if self.trouble is not None:
            raise self.trouble
        return super().head(key, fresh=fresh)

    def check(self) -> None:
        if not self.well:
            self.head("k")


class PartlyAway(Probed):
    """A store that is well as a whole, whatever it says of an object."""

    well = True


@pytest.mark.parametrize("trouble", [StoreLied("nonsense"), ValueError("not a key"), KeyboardInterrupt()], ids=repr)
def test_what_is_no_downtime_does_not_count(trouble: BaseException) -> None:
    probed = Probed()
    store = Guarded(probed, Guard(failures=2, pause=60))
    probed.trouble = trouble
    for _ in range(10):
        with pytest.raises(type(trouble)):
            store.head("k")
    assert not store.down
    assert probed.asked == 10


def test_a_probe_that_ends_in_something_else_lets_the_next_one_see() -> None:
    probed = Probed()
    store = Guarded(probed, Guard(failures=1, pause=0.01))
    probed.trouble = StoreDown("down")
    fail(store, 1)
    time.sleep(0.02)
    probed.trouble = RuntimeError("the caller went away")
    with pytest.raises(RuntimeError):
        store.head("k")
    probed.trouble = None
    assert store.head("k") is None
    assert not store.down


def test_quick_failures_of_a_store_that_is_well_as_a_whole_shut_out_nobody() -> None:
    probed = PartlyAway()
    store = Guarded(probed, Guard(failures=2, pause=60))
    probed.trouble = StoreDown("a server is away")
    fail(store, 20)
    assert not store.down
    assert probed.asked == 20


def test_many_quick_failures_at_one_moment_shut_out_nobody_either() -> None:
    probed = PartlyAway()
    store = Guarded(probed, Guard(failures=5, pause=60))
    probed.trouble = StoreDown("a server is away")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: fail(store, 50), range(16)))
    assert not store.down
    assert probed.asked == 800


def test_slow_failures_count_however_well_the_store_says_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "_QUICK", 0.0)
    probed = PartlyAway()
    store = Guarded(probed, Guard(failures=2, pause=60))
    probed.trouble = StoreDown("took too long")
    fail(store, 2)
    assert store.down


def test_a_store_that_is_back_in_part_lets_everybody_in_again() -> None:
    probed = Probed()
    store = Guarded(probed, Guard(failures=1, pause=0.01))
    probed.trouble = StoreDown("down")
    fail(store, 1)
    assert store.down
    probed.well = True
    time.sleep(0.02)
    fail(store, 1)
    assert not store.down


def test_a_probe_that_hangs_holds_nobody_up_for_long() -> None:
    probed = Probed()
    store = Guarded(probed, Guard(failures=1, pause=0.01))
    probed.trouble = StoreDown("down")
    fail(store, 1)
    time.sleep(0.02)
    probed.hold = threading.Event()
    hanging = threading.Thread(target=lambda: fail(store, 1))
    hanging.start()
    while probed.asked < 2:
        time.sleep(0.001)
    held, probed.hold, probed.trouble = probed.hold, None, None
    deadline = time.monotonic() + 5
    while store.down and time.monotonic() < deadline:
        with suppress(StoreDown):
            store.get("k")
        time.sleep(0.05)
    assert not store.down
    probed.trouble = StoreDown("down")
    held.set()
    hanging.join(10)


def test_a_body_that_breaks_off_counts_as_a_failure(remote: SwiftStore, cutter: Cutter) -> None:
    store = Guarded(remote, Guard(failures=1, pause=60))
    cutter.misbehave(Rule("cut", after=1_000_000))
    blob = store.get("large")
    assert blob is not None
    with blob, pytest.raises(StoreDown):
        blob.file.read()
    assert store.down


def test_a_body_is_the_same_behind_the_guard(remote: SwiftStore) -> None:
    store = Guarded(remote)
    assert (body(store, "k"), body(store, "large")) == (b"body", LARGE)
    blob = store.get("large")
    assert blob is not None
    with blob:
        assert blob.file.read(10) == LARGE[:10]
        assert blob.file.read() == LARGE[10:]


class Dripping(io.RawIOBase):
    """Bytes without end, one by one."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        time.sleep(0.01)
        buffer[:1] = b"x"
        return 1


class SlowStore(MemoryStore):
    """A store whose objects come byte by byte, and know when they are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[BinaryIO] = []

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        self.given.append(cast("BinaryIO", io.BufferedReader(Dripping())))
        return Blob(Item(key, 10_000), self.given[-1])


def test_reading_ends_at_the_deadline_however_slowly_it_goes_on() -> None:
    slow = SlowStore()
    store = Guarded(slow, Guard(seconds=0.5))
    blob = store.get("k")
    assert blob is not None
    began = time.monotonic()
    with blob, pytest.raises(StoreDown, match="took too long"):
        blob.file.read()
    assert time.monotonic() - began < 20
    assert slow.given[0].closed


def test_a_prefix_is_deleted_together_where_the_store_can_and_one_by_one_where_not(remote: SwiftStore) -> None:
    for store in (Guarded(remote), Guarded(MemoryStore())):
        names = [f"{HASH}-{width}x.webp" for width in range(100, 105)]
        for name in [*names, HASH]:
            store.put(name, io.BytesIO(b"x"))
        assert store.delete_prefix(HASH + "-") == len(names)
        assert keys(store, HASH) == [HASH]


def test_types_and_notes_pass_through(remote: SwiftStore) -> None:
    note: Mapping[str, str] = {"edition": "3"}
    store = Guarded(remote)
    assert store.put("n", io.BytesIO(b"x"), type="image/png", note=note, create=True) is True
    item = store.head("n", fresh=True)
    assert item is not None
    assert (item.type, dict(item.note)) == ("image/png", note)
