"""The tiers: near first, taught from far, made once; and the waiting room."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from imgproxy import flights
from imgproxy.cache import Cache, Found, Recipe, Tier
from imgproxy.departures import Departures
from imgproxy.errors import Busy, Damaged, Missing, RendererLost, StoreDown
from imgproxy.flights import Flights
from imgproxy.stores import Blob, Item, Store
from imgproxy.stores.memory import MemoryStore

KEY = "a-1x1.jpg"


class Broken:
    """A store that can never say."""

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        raise StoreDown("broken")

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        raise StoreDown("broken")

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        raise StoreDown("broken")

    def delete(self, key: str) -> bool:
        raise StoreDown("broken")

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        raise StoreDown("broken")

    def check(self) -> None:
        raise StoreDown("broken")

    def close(self) -> None:
        pass


class Kitchen:
    """Makes bytes and counts how often."""

    def __init__(self, work: Callable[[], bytes] = lambda: b"made") -> None:
        self.made = 0
        self._work = work
        self._lock = threading.Lock()

    def recipe(self, key: str = KEY, seconds: float = 30.0) -> Recipe:
        return Recipe(key, "image/jpeg", self._make, time.monotonic() + seconds)

    def _make(self) -> bytes:
        with self._lock:
            self.made += 1
        return self._work()


def cache(tmp_path: Path, *stores: Store, places: int = 64) -> Cache:
    tiers = [Tier(f"tier{place}", store) for place, store in enumerate(stores)]
    return Cache(tiers, Flights(tmp_path / "flights"), Departures(tmp_path / "departures"), places)


def content(found: Found | None) -> bytes:
    assert found is not None
    with found.blob as blob:
        return blob.file.read()


def test_what_is_nowhere_is_made_and_every_tier_learns_it(tmp_path: Path) -> None:
    near, far, kitchen = MemoryStore(), MemoryStore(), Kitchen()
    tiers = cache(tmp_path, near, far)
    found = tiers.fetch(kitchen.recipe())
    assert (found.origin, content(found), kitchen.made) == ("render", b"made", 1)
    assert near.head(KEY) is not None
    assert far.head(KEY) is not None


def test_the_second_time_it_comes_from_the_nearest_tier(tmp_path: Path) -> None:
    tiers, kitchen = cache(tmp_path, MemoryStore(), MemoryStore()), Kitchen()
    tiers.fetch(kitchen.recipe()).blob.close()
    assert tiers.fetch(kitchen.recipe()).origin == "tier0"
    assert kitchen.made == 1


def test_near_learns_from_far(tmp_path: Path) -> None:
    near, far, kitchen = MemoryStore(), MemoryStore(), Kitchen()
    far.put(KEY, io.BytesIO(b"old"), type="image/jpeg")
    found = cache(tmp_path, near, far).fetch(kitchen.recipe())
    assert (found.origin, content(found), kitchen.made) == ("tier1", b"old", 0)
    learned = near.get(KEY)
    assert learned is not None
    assert learned.item.type == "image/jpeg"


def test_a_tier_in_trouble_counts_as_forgetful_and_is_told(tmp_path: Path) -> None:
    far, kitchen = MemoryStore(), Kitchen()
    tiers = cache(tmp_path, Broken(), far)
    made = tiers.fetch(kitchen.recipe())
    assert (made.origin, made.troubles) == ("render", ("tier0",))
    again = tiers.fetch(kitchen.recipe())
    assert (again.origin, kitchen.made) == ("tier1", 1)
    assert "tier0" in again.troubles


def test_without_any_tier_pictures_are_made_each_time(tmp_path: Path) -> None:
    tiers, kitchen = cache(tmp_path), Kitchen()
    assert content(tiers.fetch(kitchen.recipe())) == content(tiers.fetch(kitchen.recipe())) == b"made"
    assert kitchen.made == 2


@pytest.mark.parametrize("store", [MemoryStore(), Broken()], ids=["kept", "not kept"])
def test_many_who_ask_at_once_share_one_making(tmp_path: Path, store: Store) -> None:
    kitchen = Kitchen(lambda: time.sleep(0.2) or b"made")  # type: ignore[func-returns-value]
    tiers = cache(tmp_path, store)
    with ThreadPoolExecutor(32) as threads:
        answers = [threads.submit(tiers.fetch, kitchen.recipe()) for _ in range(32)]
        found = [answer.result() for answer in answers]
    assert kitchen.made == 1
    assert [one.origin for one in found].count("render") == 1
    assert {content(one) for one in found} == {b"made"}


def test_two_caches_over_one_tier_make_once(tmp_path: Path) -> None:
    kitchen, shared = Kitchen(lambda: time.sleep(0.1) or b"made"), MemoryStore()  # type: ignore[func-returns-value]
    with ThreadPoolExecutor(16) as threads:
        answers = [threads.submit(cache(tmp_path, shared).fetch, kitchen.recipe()) for _ in range(16)]
        assert {content(answer.result()) for answer in answers} == {b"made"}
    assert kitchen.made == 1


def test_an_error_that_would_be_everyones_is_shared_and_does_not_stick(tmp_path: Path) -> None:
    def spoil() -> bytes:
        time.sleep(0.1)
        raise Damaged("broken")

    tiers, kitchen, store = cache(tmp_path, MemoryStore()), Kitchen(spoil), MemoryStore()
    with ThreadPoolExecutor(16) as threads:
        answers = [threads.submit(tiers.fetch, kitchen.recipe()) for _ in range(16)]
        for answer in answers:
            with pytest.raises(Damaged):
                answer.result()
    assert kitchen.made == 1
    assert list(store.list()) == []
    good = Kitchen()
    assert content(tiers.fetch(good.recipe())) == b"made"


class Asked(MemoryStore):
    """A store that counts how often it is asked."""

    times = 0

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        self.times += 1
        return super().get(key, fresh=fresh)


def test_a_far_tier_is_asked_once_for_what_nobody_has(tmp_path: Path) -> None:
    far = Asked()
    found = cache(tmp_path, MemoryStore(), far).fetch(Kitchen().recipe())
    assert (found.origin, far.times) == ("render", 1)


def test_what_another_process_made_while_we_waited_for_it_is_found_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far, kitchen, locked = Asked(), Kitchen(), flights._locked
    ours = cache(tmp_path, MemoryStore(), far)
    tried = threading.Event()

    def noticed(file: int, lock: bytes) -> bool:
        held = locked(file, lock)
        tried.set()
        return held

    with ThreadPoolExecutor(1) as threads:
        with Flights(tmp_path / "flights").alone(KEY, time.monotonic() + 30):
            monkeypatch.setattr(flights, "_locked", noticed)
            waiting = threads.submit(ours.fetch, kitchen.recipe())
            assert tried.wait(30)
            far.put(KEY, io.BytesIO(b"made there"))
        assert content(waiting.result()) == b"made there"
    assert kitchen.made == 0


def test_the_loss_of_the_leaders_renderer_is_the_leaders_alone(tmp_path: Path) -> None:
    first = threading.Event()

    def lose_once() -> bytes:
        if not first.is_set():
            first.set()
            time.sleep(0.1)
            raise RendererLost("killed")
        return b"made"

    tiers, kitchen = cache(tmp_path, MemoryStore()), Kitchen(lose_once)
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(tiers.fetch, kitchen.recipe()) for _ in range(8)]
        errors = [answer.exception() for answer in answers]
    assert sum(isinstance(error, RendererLost) for error in errors) == 1
    assert sum(error is None for error in errors) == 7
    assert kitchen.made == 2


def test_hits_are_answered_while_the_waiting_room_is_full(tmp_path: Path) -> None:
    go, store = threading.Event(), MemoryStore()
    store.put("b-1x1.jpg", io.BytesIO(b"there"))
    tiers = cache(tmp_path, store, places=2)
    slow = Kitchen(lambda: bytes(go.wait(30)))
    with ThreadPoolExecutor(2) as threads:
        held = [threads.submit(tiers.fetch, slow.recipe(f"{n}-1x1.jpg")) for n in range(2)]
        while slow.made < 2:
            time.sleep(0.005)
        with pytest.raises(Busy):
            tiers.fetch(slow.recipe("c-1x1.jpg"))
        assert content(tiers.fetch(slow.recipe("b-1x1.jpg"))) == b"there"
        go.set()
        for answer in held:
            answer.result()


def test_nobody_waits_beyond_the_deadline(tmp_path: Path) -> None:
    go = threading.Event()
    tiers, slow = cache(tmp_path, MemoryStore()), Kitchen(lambda: bytes(go.wait(30)))
    with ThreadPoolExecutor(1) as threads:
        leader = threads.submit(tiers.fetch, slow.recipe())
        while not slow.made:
            time.sleep(0.005)
        with pytest.raises(Busy):
            tiers.fetch(slow.recipe(seconds=0.05))
        go.set()
        leader.result()


def test_forgetting_takes_what_was_made_of_one_original_and_nothing_else(tmp_path: Path) -> None:
    near, far = MemoryStore(), MemoryStore()
    for store in (near, far):
        for key in ("a-1x1.jpg", "a-2x2.jpg", "ab-1x1.jpg"):
            store.put(key, io.BytesIO(b"x"))
    cache(tmp_path, near, far).forget("a-")
    assert [item.key for item in near.list()] == [item.key for item in far.list()] == ["ab-1x1.jpg"]


def test_a_tier_that_cannot_forget_is_told_of_when_the_others_have_forgotten(tmp_path: Path) -> None:
    near, far = MemoryStore(), MemoryStore()
    tiers = cache(tmp_path, near, Broken(), far)
    for remove, key in ((tiers.forget, "a-"), (tiers.drop, "a-1x1.jpg")):
        for store in (near, far):
            store.put("a-1x1.jpg", io.BytesIO(b"x"))
        with pytest.raises(StoreDown):
            remove(key)
        assert list(near.list()) == list(far.list()) == []


def test_what_is_being_made_when_its_original_leaves_is_kept_nowhere(tmp_path: Path) -> None:
    near, far, departures = MemoryStore(), MemoryStore(), Departures(tmp_path / "departures")  # of another process
    tiers = cache(tmp_path, near, far)

    def made_of(what: list[bytes]) -> Callable[[], bytes]:
        def work() -> bytes:
            if not what:
                raise Missing("no original of that hash")
            departures.note(KEY[:64])
            tiers.forget(KEY[:64])
            return what.pop()

        return work

    gone = Kitchen(made_of([b"old"]))
    with pytest.raises(Missing):
        tiers.fetch(gone.recipe())
    assert (near.head(KEY), far.head(KEY), gone.made) == (None, None, 2)
    assert content(tiers.fetch(Kitchen().recipe())) == b"made"
    assert near.head(KEY) is not None


def test_who_asks_while_it_leaves_is_not_given_what_was_made_before(tmp_path: Path) -> None:
    departures, began, go = Departures(tmp_path / "departures"), threading.Event(), threading.Event()
    tiers = cache(tmp_path, Broken())

    def leaving() -> bytes:
        if began.is_set():
            raise Missing("no original of that hash")
        began.set()
        assert go.wait(30)
        return b"old"

    kitchen = Kitchen(leaving)
    with ThreadPoolExecutor(2) as threads:
        leader = threads.submit(tiers.fetch, kitchen.recipe())
        assert began.wait(30)
        departures.note(KEY)
        late = threads.submit(tiers.fetch, kitchen.recipe())
        time.sleep(0.05)
        go.set()
        for asked in (leader, late):
            with pytest.raises(Missing):
                asked.result(30)


def test_what_is_made_while_something_else_of_the_same_mark_leaves_is_made_again(tmp_path: Path) -> None:
    departures, near = Departures(tmp_path / "departures"), MemoryStore()
    noted: list[str] = []

    def marked() -> bytes:
        if not noted:
            departures.note(KEY)
            noted.append(KEY)
        return b"made"

    kitchen = Kitchen(marked)
    assert content(cache(tmp_path, near).fetch(kitchen.recipe())) == b"made"
    assert (kitchen.made, near.head(KEY) is not None) == (2, True)


def test_what_is_being_learned_when_its_original_leaves_is_not_kept(tmp_path: Path) -> None:
    departures = Departures(tmp_path / "departures")

    class Leaving(MemoryStore):
        def get(self, key: str, *, fresh: bool = False) -> Blob | None:
            found = super().get(key)
            departures.note(key)
            self.delete(key)
            return found

    near, far = MemoryStore(), Leaving()
    far.put(KEY, io.BytesIO(b"old"))
    assert cache(tmp_path, near, far).find(KEY) is None
    assert near.head(KEY) is None


def test_what_was_met_far_away_before_it_was_forgotten_there_is_not_kept_near(tmp_path: Path) -> None:
    """The reader begins after the departure was noted first, and before the far tier has forgotten."""
    departures, met = Departures(tmp_path / "departures"), threading.Event()
    far, near, go = MemoryStore(), MemoryStore(), threading.Event()

    class Slow(MemoryStore):
        def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
            met.set()
            assert go.wait(30)
            return near.put(key, source)

        def delete(self, key: str) -> bool:
            return near.delete(key)

    key = "a" * 64 + "-1x1.jpg"
    far.put(key, io.BytesIO(b"old"))
    departures.note(key)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(cache(tmp_path, Slow(), far).find, key)
        assert met.wait(30)
        cache(tmp_path, near, far).forget("a" * 64 + "-")
        go.set()
        assert reading.result() is None
    assert near.head(key) is None


def test_what_is_met_far_away_before_a_late_keeper_forgets_it_again_is_not_kept_near(tmp_path: Path) -> None:
    departures, met, go = Departures(tmp_path / "departures"), threading.Event(), threading.Event()
    far, key = MemoryStore(), "a" * 64 + "-1x1.jpg"

    class Slow(MemoryStore):
        def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
            met.set()
            assert go.wait(30)
            return super().put(key, source)

    class Teaching(MemoryStore):
        """Far away; while something is put there, somebody meets it."""

        def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
            far.put(key, source)
            reading.append(threads.submit(cache(tmp_path, slow, far).find, key))
            return met.wait(30)

        def delete(self, key: str) -> bool:
            return far.delete(key)

    slow = Slow()
    reading: list[Future[Found | None]] = []
    with ThreadPoolExecutor(1) as threads:
        late = cache(tmp_path, MemoryStore(), Teaching())

        def forgotten_meanwhile() -> bytes:
            if reading:
                raise Missing("no original of that hash")
            departures.note(key)
            return b"made"

        with pytest.raises(Missing):
            late.fetch(Kitchen(forgotten_meanwhile).recipe(key))
        assert far.head(key) is None
        go.set()
        assert reading[0].result() is None
    assert slow.head(key) is None


def test_departures_are_seen_by_all_processes_and_without_a_place_by_one(tmp_path: Path) -> None:
    one, other, alone = (Departures(tmp_path / place) for place in ("here", "here", "no/such/directory"))
    before = one.seen(KEY), alone.seen(KEY)
    other.note(KEY)
    assert one.seen(KEY) != before[0]
    assert Departures(tmp_path / "here").seen(KEY) == one.seen(KEY)
    assert alone.seen(KEY) == before[1]
    alone.note(KEY)
    assert alone.seen(KEY) != before[1]


def test_a_key_that_is_dropped_is_in_no_tier_and_is_made_again(tmp_path: Path) -> None:
    near, far, kitchen = MemoryStore(), MemoryStore(), Kitchen()
    tiers = cache(tmp_path, near, far)
    tiers.fetch(kitchen.recipe()).blob.close()
    tiers.fetch(kitchen.recipe(f"{KEY}x")).blob.close()
    assert (tiers.drop(KEY), tiers.drop(KEY)) == (True, False)
    assert (near.head(KEY), far.head(KEY)) == (None, None)
    assert tiers.find(f"{KEY}x") is not None
    assert tiers.fetch(kitchen.recipe()).origin == "render"
