"""Sync: what differs is found and repaired, what is wanted or young is spared, and a listing is never believed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgproxy.errors import NotAnImage, NotTheWriter
from imgproxy.flights import Flights
from imgproxy.meta.commits import Commit, Commits
from imgproxy.meta.record import Record
from imgproxy.meta.repository import Words
from imgproxy.meta.sync import Difference, Repairs, Sync, orphans
from imgproxy.stores import Item
from imgproxy.stores.memory import MemoryStore
from tests.meta.making import Place, body, commit, hash_of, live, record


def synced(words: Words, here: Place, grace: float = -1.0) -> Sync:
    return Sync(words.chain, words.commits, here.base, grace=grace)


def differing(sync: Sync) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"lost": set(), "stray": set(), "odd": set()}
    for kind, key in sync.differences():
        found[kind].add(key)
    return found


@pytest.fixture
def uneven(here: Place) -> Iterator[Words]:
    """Records 0 to 9, originals 0 to 4 and 20 to 24, and something odd."""
    here.keep(*range(10), *range(20, 25))
    words = here.node()
    commit(words, *(record(number) for number in range(10)))
    for number in range(5, 10):
        here.base.delete(hash_of(number))
    here.base.put("odd/key", BytesIO(b"?"))
    yield words
    words.close()


def test_a_stray_that_somebody_puts_again_just_now_is_not_deleted(uneven: Words, here: Place, tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock")
    sync = Sync(uneven.chain, uneven.commits, here.base, alone=partial(flights.alone, deadline=0.0), grace=-1.0)
    with flights.alone(hash_of(20), 0.0):
        assert sync.run(Repairs(stray="delete"))["deleted"] == len(STRAY) - 1
    assert here.base.head(hash_of(20)) is not None


LOST = {hash_of(number) for number in range(5, 10)}
STRAY = {hash_of(number) for number in range(20, 25)}


def test_every_difference_is_reported_and_nothing_is_touched(uneven: Words, here: Place) -> None:
    told: list[Difference] = []
    tally = synced(uneven, here).run(told=told.append)
    assert [one.key for one in told] == sorted(LOST | STRAY | {"odd/key"})
    assert {name: tally[name] for name in ("records", "objects", "lost", "stray", "odd", "spared", "deleted")} == {
        "records": 10, "objects": 11, "lost": 5, "stray": 5, "odd": 1, "spared": 0, "deleted": 0,
    }  # fmt: skip
    assert len(live(uneven)) == 10
    assert sum(1 for _ in here.base.list()) == 11
    assert len(uneven.commits.log()) == 1


def test_entries_without_originals_are_dropped_by_one_commit(uneven: Words, here: Place) -> None:
    assert synced(uneven, here).run(Repairs(lost=True))["dropped"] == 5
    assert set(live(uneven)) == set(map(hash_of, range(5)))
    assert [(one.n, one.author, one.changes) for one in uneven.commits.log(most=1)] == [(2, "sync", 5)]
    assert differing(synced(uneven, here))["lost"] == set()


def test_originals_without_entries_are_deleted(uneven: Words, here: Place) -> None:
    assert synced(uneven, here).run(Repairs(stray="delete"))["deleted"] == 5
    assert {item.key for item in here.base.list()} == {*map(hash_of, range(5)), "odd/key"}
    assert differing(synced(uneven, here)) == {"lost": LOST, "stray": set(), "odd": {"odd/key"}}


def test_originals_without_entries_are_adopted_as_new_records(uneven: Words, here: Place) -> None:
    def facts(hash: str) -> Record:
        if hash == hash_of(24):
            raise NotAnImage("text")
        return record(next(number for number in range(20, 25) if hash_of(number) == hash))

    assert synced(uneven, here).run(Repairs(stray="adopt", facts=facts))["adopted"] == 4
    assert set(live(uneven)) == set(map(hash_of, (*range(10), *range(20, 24))))
    assert differing(synced(uneven, here))["stray"] == {hash_of(24)}


def test_repairing_all_leaves_both_equal(uneven: Words, here: Place) -> None:
    synced(uneven, here).run(Repairs(lost=True, stray="delete"))
    assert differing(synced(uneven, here)) == {"lost": set(), "stray": set(), "odd": {"odd/key"}}
    assert uneven.sessions.all() == []


def test_what_is_young_or_wanted_by_a_session_or_let_go_of_is_spared(uneven: Words, here: Place) -> None:
    tally = synced(uneven, here, grace=3_600.0).run(Repairs(stray="delete"))
    assert (tally["stray"], tally["spared"], tally["deleted"]) == (0, 5, 0)
    session = uneven.sessions.open()
    uneven.sessions.put(session, record(20))
    gone = uneven.sessions.open()
    uneven.sessions.delete(gone, hash_of(0))
    uneven.commits.commit(gone.id)
    tally = synced(uneven, here).run(Repairs(stray="delete"))
    assert (tally["stray"], tally["spared"], tally["deleted"]) == (4, 2, 4)
    assert here.base.head(hash_of(0)) is not None
    assert uneven.commits.commit(session.id) is not None


def test_what_has_no_date_counts_as_young(uneven: Words, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = here.base.head

    def undated(key: str, *, fresh: bool = False) -> Item | None:
        item = real(key)
        return Item(item.key, item.size) if item else None

    monkeypatch.setattr(here.base, "head", undated)
    tally = synced(uneven, here).run(Repairs(stray="delete"))
    assert (tally["spared"], tally["deleted"]) == (5, 0)


def test_age_is_told_by_the_clock_of_the_store(uneven: Words, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("imgproxy.stores.memory.time.time", lambda: real() + 7_200)
    assert synced(uneven, here, grace=3_600.0).run()["stray"] == 5


def test_a_listing_that_lies_deletes_nothing(uneven: Words, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that misses what is there, and has what is gone."""
    whole = [Item(hash_of(number), 1) for number in sorted((*range(3, 10), *range(20, 30)), key=hash_of)]
    monkeypatch.setattr(here.base, "list", lambda prefix="", after="": iter(whole))
    found = differing(synced(uneven, here))
    assert found["lost"] == set()
    assert found["stray"] == STRAY
    monkeypatch.setattr(here.base, "list", lambda prefix="", after="": iter(()))
    assert differing(synced(uneven, here)) == {"lost": LOST, "stray": set(), "odd": set()}


def test_what_is_recorded_between_looking_and_deleting_stays(uneven: Words, here: Place) -> None:
    sync = synced(uneven, here)

    def meanwhile(one: Difference) -> None:
        if one.key == hash_of(21):
            commit(uneven, record(21))

    assert sync.run(Repairs(stray="delete"), told=meanwhile)["deleted"] == 4
    assert here.base.head(hash_of(21)) is not None


def test_entries_that_others_change_meanwhile_are_left_to_them(uneven: Words, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    last = max(LOST)
    real = uneven.commits.commit

    def theirs_first(session: str, author: str = "", message: str = "") -> Commit | None:
        if not uneven.commits.log(before=3)[1:]:
            theirs = uneven.sessions.open()
            uneven.sessions.edit(theirs, last, {"title": "mine"})
            real(theirs.id)
        return real(session, author, message)

    monkeypatch.setattr(Commits, "commit", lambda _, session, author="", message="": theirs_first(session, author, message))
    synced(uneven, here).run(Repairs(lost=True))
    assert set(live(uneven)) == {*map(hash_of, range(5)), last}
    assert live(uneven)[last].title == "mine"


def test_only_the_writer_deletes(uneven: Words, here: Place) -> None:
    reader = here.node("reader")
    with pytest.raises(NotTheWriter):
        synced(reader, here).run(Repairs(stray="delete"))
    assert here.base.head(hash_of(20)) is not None
    reader.close()


def test_renditions_without_an_original_are_found(here: Place) -> None:
    here.keep(1, 2)
    derived = MemoryStore()
    names = [f"{hash_of(number)}-{width}x.webp" for number in (1, 2, 3, 4) for width in (10, 20)]
    for name in (*names, "no-name"):
        derived.put(name, BytesIO(b"x"))
    assert list(orphans(here.base, derived)) == sorted([name for name in names if name[:64] in (hash_of(3), hash_of(4))] + ["no-name"])


def test_a_listing_that_misses_an_original_orphans_no_rendition(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here.keep(1)
    derived = MemoryStore()
    derived.put(f"{hash_of(1)}-10x.webp", BytesIO(b"x"))
    monkeypatch.setattr(here.base, "list", lambda prefix="", after="": iter(()))
    assert list(orphans(here.base, derived)) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_the_merge_finds_exactly_the_differences(words: Words, here: Place, recorded: set[int], stored: set[int]) -> None:
    session = words.sessions.open()
    for hash in live(words):
        words.sessions.delete(session, hash)
    here.keep(*range(61))
    for number in recorded:
        words.sessions.put(session, record(number))
    words.commits.commit(session.id)
    with words.database.writing() as db:
        db.execute("DELETE FROM gone")
    for item in list(here.base.list()):
        here.base.delete(item.key)
    for number in stored:
        here.base.put(hash_of(number), BytesIO(body(number)))
    counts: Counter[str] = Counter()
    found = list(synced(words, here).differences(counts))
    assert {one.key for one in found if one.kind == "lost"} == set(map(hash_of, recorded - stored))
    assert {one.key for one in found if one.kind == "stray"} == set(map(hash_of, stored - recorded))
    assert (counts["records"], counts["objects"]) == (len(recorded), len(stored))


def test_an_original_that_comes_back_while_the_others_are_looked_at_keeps_its_record(uneven: Words, here: Place) -> None:
    healed = min(LOST)
    number = next(number for number in range(100) if hash_of(number) == healed)

    def passing(key: str) -> None:
        if key > healed:
            here.keep(number)

    synced(uneven, here).run(Repairs(lost=True), passing=passing)
    assert set(live(uneven)) & LOST == {healed}
    assert here.base.head(healed) is not None
