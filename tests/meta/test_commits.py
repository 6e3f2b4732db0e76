"""Commits: whole or not at all, durable before they are answered, in one order for all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from imgproxy.errors import Conflict, Forked, Missing, NoSession, NotTheWriter, StoreDown, StoreFull, StoreLied, Unstored
from imgproxy.meta import commits, index, journal
from imgproxy.meta.journal import key
from imgproxy.meta.repository import Words
from imgproxy.meta.staging import Change, new_rows
from imgproxy.stores import Blob, Item, Store
from tests.meta.making import Place, commit, hash_of, live, record


@pytest.fixture(autouse=True, params=["one by one", "side by side"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit here happens both ways: applied after its object is stored, and meanwhile, as a large one is."""
    if request.param == "side by side":
        monkeypatch.setattr(commits, "BESIDE", 0)
        monkeypatch.setattr(index, "MANY", 0)


class Faulty:
    """A store that does to one verb what a test says, before or after doing it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before_put: Callable[[str], None] = lambda key: None
        self.after_put: Callable[[str], None] = lambda key: None

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        return self._store.get(key, fresh=fresh)

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        return self._store.head(key, fresh=fresh)

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        self.before_put(key)
        done = self._store.put(key, source, type=type, note=note, create=create)
        self.after_put(key)
        return done

    def delete(self, key: str) -> bool:
        return self._store.delete(key)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        return self._store.list(prefix, after)

    def check(self) -> None:
        self._store.check()

    def close(self) -> None:
        self._store.close()


def down(key: str) -> None:
    if key.startswith("commits/"):
        raise StoreDown("cut")


@pytest.fixture
def faulty(here: Place) -> Iterator[tuple[Faulty, Words]]:
    """A repository whose meta store can be told to fail."""
    here.keep(*range(10))
    store = Faulty(here.meta)
    words = Place(here.root, store, here.base).node()
    yield store, words
    words.close()


def counts(words: Words) -> dict[str, int]:
    with words.database.reading() as db:
        return dict(db.execute("SELECT mark, number FROM counts"))


def sound(words: Words) -> None:
    """The full-text index holds exactly what the records say."""
    with words.database.writing() as db:
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_a_session_becomes_live_as_a_whole_with_one_number(words: Words) -> None:
    session = words.sessions.open(author="ann")
    for number in range(3):
        words.sessions.put(session, record(number))
    done = words.commits.commit(session.id, message="first")
    assert done is not None
    assert (done.n, done.author, done.message, done.changes) == (1, "ann", "first", 3)
    assert {hash: one.version for hash, one in live(words).items()} == dict.fromkeys(map(hash_of, range(3)), 1)
    assert words.sessions.all() == []


def test_asking_again_gives_the_same_commit(words: Words) -> None:
    session = words.sessions.open()
    words.sessions.put(session, record(1))
    assert words.commits.commit(session.id) == words.commits.commit(session.id)
    assert len(words.commits.log()) == 1


def test_a_session_without_changes_makes_no_commit(words: Words) -> None:
    assert words.commits.commit(words.sessions.open().id) is None
    assert words.commits.log() == []
    with pytest.raises(NoSession):
        words.commits.commit("nobody")


def test_the_object_is_the_moment_of_truth_and_can_be_read_by_eye(words: Words, here: Place) -> None:
    commit(words, record(1, title="Sea"))
    done = commit(words, record(1, title="Sky"), record(2))
    path = here.root / "copy"
    blob = here.meta.get(key(2))
    assert blob is not None
    with blob:
        assert journal.save(blob.file, path) == done.hash == blob.item.note["sha256"]
    said = journal.header(path)
    assert (said.n, said.previous, said.changes) == (2, words.commits.find(1).hash, 2)
    changed, added = sorted(journal.lines(path), key=lambda line: -line.based_on)
    assert (changed.hash, changed.based_on, json.loads(changed.was or "")["title"]) == (hash_of(1), 1, "Sea")
    assert (added.hash, added.based_on, added.was) == (hash_of(2), 0, None)


def test_a_conflict_names_the_records_and_changes_nothing(words: Words, here: Place) -> None:
    commit(words, record(1), record(2), record(3))
    mine, theirs = words.sessions.open(), words.sessions.open()
    for number in (1, 2, 3):
        words.sessions.edit(mine, hash_of(number), {"title": "mine"})
    words.sessions.edit(theirs, hash_of(1), {"title": "theirs"})
    words.sessions.delete(theirs, hash_of(2))
    words.commits.commit(theirs.id)
    before = live(words)
    with pytest.raises(Conflict) as caught:
        words.commits.commit(mine.id)
    assert caught.value.records == sorted(map(hash_of, (1, 2)))
    assert live(words) == before
    assert here.meta.head(key(3)) is None
    assert words.sessions.size(mine) == 3
    words.sessions.forget(mine, hash_of(1))
    words.sessions.forget(mine, hash_of(2))
    done = words.commits.commit(mine.id)
    assert done is not None
    assert done.n == 3


def test_two_sessions_that_add_the_same_record_conflict(words: Words) -> None:
    mine, theirs = words.sessions.open(), words.sessions.open()
    words.sessions.put(mine, record(1))
    words.sessions.put(theirs, record(1, title="theirs"))
    words.commits.commit(mine.id)
    with pytest.raises(Conflict):
        words.commits.commit(theirs.id)


def test_who_adds_what_others_have_added_and_says_nothing_new_of_it_is_in_nobody_s_way(words: Words) -> None:
    mine, theirs = words.sessions.open(), words.sessions.open()
    words.sessions.put(mine, record(1, title="mine", tags=("a",)))
    words.sessions.put(theirs, replace(record(1, title="mine"), added_at="2024-01-02T00:00:00Z"))
    words.sessions.put(theirs, record(2))
    words.commits.commit(mine.id)
    done = words.commits.commit(theirs.id)
    assert done is not None
    assert (done.n, done.changes) == (2, 1)
    assert live(words)[hash_of(1)].tags == ("a",)
    again = words.sessions.open()
    words.sessions.add(again, new_rows(again.key, [record(3)]))
    commit(words, record(3))
    assert words.commits.commit(again.id) is None


def test_what_is_set_aside_holds_up_nobody_and_is_kept(words: Words) -> None:
    commit(words, record(1), record(2))
    session = words.sessions.open()
    for number in (1, 2):
        words.sessions.edit(session, hash_of(number), {"title": "mine"})
    commit(words, record(1, title="theirs"))
    with pytest.raises(Conflict) as caught:
        words.commits.commit(session.id)
    aside = words.sessions.set_aside(session, caught.value.records)
    assert words.commits.commit(session.id) is not None
    assert [live(words)[hash_of(number)].title for number in (1, 2)] == ["theirs", "mine"]
    (one,) = words.sessions.diff(aside)
    assert one.after is not None
    assert (one.hash, one.after.title, one.stale) == (hash_of(1), "mine", True)
    other = words.sessions.open()
    words.sessions.edit(other, hash_of(1), {"title": "newer"})
    assert words.sessions.set_aside(other, [hash_of(1)]).id == aside.id
    (one,) = words.sessions.diff(aside)
    assert one.after is not None
    assert (one.after.title, one.stale) == ("newer", False)


def test_a_change_based_on_an_old_version_conflicts(words: Words) -> None:
    commit(words, record(1))
    commit(words, record(1, title="newer"))
    session = words.sessions.open()
    words.sessions.edit(session, hash_of(1), {"title": "x"}, based_on=1)
    with pytest.raises(Conflict):
        words.commits.commit(session.id)


def test_an_alias_belongs_to_one_record(words: Words) -> None:
    commit(words, record(1, domain="shop", dkey="7"))
    session = words.sessions.open()
    words.sessions.put(session, record(2, domain="shop", dkey="7"))
    with pytest.raises(Conflict) as caught:
        words.commits.commit(session.id)
    assert caught.value.records == [hash_of(2)]
    twins = words.sessions.open()
    for number in (3, 4):
        words.sessions.put(twins, record(number, domain="shop", dkey="8"))
    with pytest.raises(Conflict):
        words.commits.commit(twins.id)
    found = words.search.find("shop", "7")
    assert found is not None
    assert found.hash == hash_of(1)


def test_two_records_may_exchange_their_aliases_in_one_commit(words: Words) -> None:
    commit(words, record(1, domain="shop", dkey="1"), record(2, domain="shop", dkey="2"))
    commit(words, record(1, domain="shop", dkey="2"), record(2, domain="shop", dkey="1"))
    assert {dkey: found.hash for dkey in "12" if (found := words.search.find("shop", dkey))} == {"1": hash_of(2), "2": hash_of(1)}
    sound(words)


def test_a_record_without_its_original_is_not_committed(words: Words, here: Place) -> None:
    session = words.sessions.open()
    words.sessions.put(session, record(1))
    words.sessions.put(session, record(5_000))
    with pytest.raises(Unstored) as caught:
        words.commits.commit(session.id)
    assert caught.value.records == [hash_of(5_000)]
    assert live(words) == {}
    here.keep(5_000)
    assert words.commits.commit(session.id) is not None


def test_very_many_originals_are_looked_up_in_a_listing(words: Words, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgproxy.meta.absent.FEW", 5)
    session = words.sessions.open()
    for number in (*range(20), 5_000, 5_001):
        words.sessions.put(session, record(number))
    with pytest.raises(Unstored) as caught:
        words.commits.commit(session.id)
    assert caught.value.records == sorted(map(hash_of, (5_000, 5_001)))


def test_counts_follow_every_change(words: Words) -> None:
    commit(words, record(1, tags=("a", "b")), record(2, tags=("a",), type="png"))
    commit(words, record(1, tags=("b", "c")))
    session = words.sessions.open()
    words.sessions.delete(session, hash_of(2))
    words.commits.commit(session.id)
    assert counts(words) == {"": 1, "_t_b": 1, "_t_c": 1, "_y_jpg": 1, "_o_landscape": 1}
    sound(words)


def test_the_log_is_read_backwards_in_parts(words: Words) -> None:
    for number in range(5):
        commit(words, record(number), message=f"number {number}")
    assert [one.n for one in words.commits.log(most=2)] == [5, 4]
    assert [(one.n, one.message) for one in words.commits.log(before=4, most=2)] == [(3, "number 2"), (2, "number 1")]
    with pytest.raises(Missing):
        words.commits.find(6)


def test_the_history_of_a_record_is_told_commit_by_commit(words: Words) -> None:
    commit(words, record(1, title="a"))
    commit(words, record(2))
    commit(words, record(1, title="b"))
    told = [(one.n, json.loads(line.state or "{}")["title"]) for one, line in words.commits.history(hash_of(1))]
    assert told == [(3, "b"), (1, "a")]
    before = {number: [one.n for one, _ in words.commits.history(hash_of(1), before=number)] for number in (1, 2, 3, 4, 9)}
    assert before == {1: [], 2: [1], 3: [1], 4: [3, 1], 9: [3, 1]}
    assert list(words.commits.history(hash_of(50))) == []


def test_a_commit_is_gone_back_on_by_a_new_one(words: Words) -> None:
    commit(words, record(1, title="a"), record(2, title="b"))
    before = {hash: one.title for hash, one in live(words).items()}
    session = words.sessions.open()
    words.sessions.edit(session, hash_of(1), {"title": "changed"})
    words.sessions.delete(session, hash_of(2))
    words.sessions.put(session, record(3))
    words.commits.commit(session.id)
    back = words.commits.revert(2, words.sessions, "ann")
    done = words.commits.commit(back.id, message="back")
    assert done is not None
    assert (done.n, done.author) == (3, "ann")
    assert {hash: one.title for hash, one in live(words).items()} == before
    sound(words)


def test_going_back_on_what_cannot_be_committed_leaves_no_session(words: Words, here: Place) -> None:
    commit(words, record(1))
    session = words.sessions.open()
    words.sessions.delete(session, hash_of(1))
    words.commits.commit(session.id)
    words.farewell.say()
    with pytest.raises(Unstored):
        words.commits.undo(2, words.sessions)
    assert words.sessions.all() == []
    here.keep(1)
    done = words.commits.undo(2, words.sessions, "ann")
    assert done is not None
    assert (done.n, done.author, done.message) == (3, "ann", "Revert commit 2")
    assert live(words).keys() == {hash_of(1)}
    with pytest.raises(Missing):
        words.commits.undo(9, words.sessions)
    assert words.sessions.all() == []


def test_going_back_on_what_was_changed_since_is_a_conflict(words: Words) -> None:
    commit(words, record(1, title="a"))
    commit(words, record(1, title="b"))
    commit(words, record(1, title="c"))
    with pytest.raises(Conflict) as caught:
        words.commits.revert(2, words.sessions)
    assert caught.value.records == [hash_of(1)]
    assert words.sessions.all() == []


def test_a_store_that_is_down_loses_nothing_and_the_session_goes_on(faulty: tuple[Faulty, Words]) -> None:
    store, words = faulty
    session = words.sessions.open()
    words.sessions.put(session, record(1))
    store.before_put = down
    for _ in range(2):
        with pytest.raises(StoreDown):
            words.commits.commit(session.id)
    assert live(words) == {}
    store.before_put = lambda key: None
    done = words.commits.commit(session.id)
    assert done is not None
    assert done.n == 1


def test_a_commit_whose_answer_was_lost_is_recognised(faulty: tuple[Faulty, Words]) -> None:
    store, words = faulty
    session = words.sessions.open()
    words.sessions.put(session, record(1))
    store.after_put = down
    with pytest.raises(StoreDown):
        words.commits.commit(session.id)
    store.after_put = lambda key: None
    done = words.commits.commit(session.id)
    assert done is not None
    assert (done.n, done.session) == (1, session.id)
    assert len(words.commits.log()) == 1
    assert list(live(words)) == [hash_of(1)]


def test_a_commit_whose_answer_was_lost_is_applied_by_the_next_of_another_session(faulty: tuple[Faulty, Words]) -> None:
    store, words = faulty
    first, second = words.sessions.open(), words.sessions.open()
    words.sessions.put(first, record(1))
    words.sessions.put(second, record(2))
    store.after_put = down
    with pytest.raises(StoreDown):
        words.commits.commit(first.id)
    store.after_put = lambda key: None
    done = words.commits.commit(second.id)
    assert done is not None
    assert done.n == 2
    assert set(live(words)) == {hash_of(1), hash_of(2)}
    again = words.commits.commit(first.id)
    assert again is not None
    assert again.n == 1


def test_what_was_changed_after_a_late_commit_goes_on_from_it(words: Words, here: Place) -> None:
    """The object arrives only after its session was thawed and changed once more."""
    session = words.sessions.open("late")
    words.sessions.put(session, record(1, title="first"))
    late: list[tuple[bytes, Mapping[str, str]]] = []
    store = Faulty(here.meta)

    def away(name: str) -> None:
        blob = here.meta.get(name) if name == key(1) else None
        if blob is not None:
            with blob:
                late.append((blob.file.read(), blob.item.note))
            here.meta.delete(name)
            raise StoreDown("cut")

    store.after_put = away
    twin = Place(here.root, store, here.base).node()
    with pytest.raises(StoreDown):
        twin.commits.commit(session.id)
    assert words.commits.commit(words.sessions.open().id) is None
    words.sessions.edit(session, hash_of(1), {"title": "second"})
    here.meta.put(key(1), BytesIO(late[0][0]), note=late[0][1])
    first = words.commits.commit(session.id)
    assert first is not None
    assert (first.n, [one.title for one in live(words).values()]) == (1, ["first"])
    done = words.commits.commit(words.sessions.find("late").id)
    assert done is not None
    assert (done.n, [one.title for one in live(words).values()]) == (2, ["second"])
    twin.close()


def test_a_disk_that_is_full_while_applying_shows_nothing_and_goes_on_when_there_is_room(
    words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = words.sessions.open()
    words.sessions.put(session, record(1))

    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("imgproxy.meta.applying._enter", full)
        with pytest.raises(StoreFull):
            words.commits.commit(session.id)
        assert live(words) == {}
        with pytest.raises(StoreFull):
            words.commits.commit(session.id)
    done = words.commits.commit(session.id)
    assert done is not None
    assert done.n == 1
    assert list(live(words)) == [hash_of(1)]


def test_a_really_full_database_refuses_and_goes_on_when_there_is_room(words: Words) -> None:
    session = words.sessions.open()
    words.sessions.put(session, record(0))
    with words.database.writing() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
    big = [record(number, description="word " * 3_000) for number in range(1, 40)]
    with pytest.raises(StoreFull):
        words.sessions.stage(session, [Change(one.hash, one) for one in big])
    assert words.sessions.size(session) == 1
    words.database.close()
    for one in big:
        words.sessions.put(session, one)
    assert words.commits.commit(session.id) is not None
    assert len(live(words)) == 40


def test_no_room_for_the_draft_is_an_error_and_the_session_stays_open(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    session = words.sessions.open()
    words.sessions.put(session, record(1))

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("imgproxy.meta.commits.compose", full)
        with pytest.raises(StoreFull):
            words.commits.commit(session.id)
    words.sessions.put(session, record(2))
    done = words.commits.commit(session.id)
    assert done is not None
    assert done.changes == 2


def test_a_store_that_gives_back_something_else_is_not_believed(faulty: tuple[Faulty, Words], here: Place) -> None:
    store, words = faulty
    session = words.sessions.open()
    words.sessions.put(session, record(1))

    def rot(name: str) -> None:
        item = here.meta.head(name)
        if name == key(1) and item is not None:
            here.meta.put(name, BytesIO(b"rot"), note=item.note)

    store.after_put = rot
    with pytest.raises(StoreLied):
        words.commits.commit(session.id)
    assert live(words) == {}


def test_a_commit_that_was_replaced_in_the_store_stops_the_writer(words: Words, here: Place) -> None:
    commit(words, record(1))
    here.meta.put(key(1), BytesIO(b"another"), note={"sha256": "0" * 64})
    session = words.sessions.open()
    words.sessions.put(session, record(2))
    with pytest.raises(Forked, match="two writers have met"):
        words.commits.commit(session.id)
    here.meta.delete(key(1))
    with pytest.raises(Forked, match="does not have commit 1"):
        words.commits.commit(session.id)
    assert words.sessions.size(session) == 1


def test_a_commit_that_follows_another_chain_stops_the_writer(words: Words, here: Place, tmp_path: Path) -> None:
    commit(words, record(1))
    other = Place(tmp_path / "other", here.meta, here.base)
    item = here.meta.get(key(1))
    assert item is not None
    with item:
        bytes_of_one = item.file.read()
    here.meta.put(key(2), BytesIO(bytes_of_one))
    session = words.sessions.open()
    words.sessions.put(session, record(2))
    with pytest.raises(Forked, match="calls itself 1"):
        words.commits.commit(session.id)
    assert other.root != here.root


def test_a_commit_that_another_writer_put_there_meanwhile_is_applied_first(faulty: tuple[Faulty, Words], here: Place) -> None:
    """Between looking and writing somebody else writes the same number: the store keeps one, and nobody loses anything."""
    store, words = faulty
    session = words.sessions.open()
    words.sessions.put(session, record(1))
    rival = here.node("rival", holder="node")
    theirs = rival.sessions.open()
    rival.sessions.put(theirs, record(2))

    def meet(name: str) -> None:
        if name == key(1):
            store.before_put = lambda name: None
            rival.commits.commit(theirs.id)

    store.before_put = meet
    done = words.commits.commit(session.id)
    assert done is not None
    assert done.n == 2
    assert set(live(words)) == {hash_of(1), hash_of(2)}
    rival.close()


def test_who_lost_the_lease_while_writing_gives_no_answer(faulty: tuple[Faulty, Words], here: Place) -> None:
    store, words = faulty
    session = words.sessions.open()
    words.sessions.put(session, record(1))
    rival = here.node("rival")

    def depose(name: str) -> None:
        if name == key(1):
            words.lease.release()
            rival.lease.check()

    store.after_put = depose
    with pytest.raises(NotTheWriter, match="rival"):
        words.commits.commit(session.id)
    with pytest.raises(NotTheWriter, match="rival"):
        words.commits.commit(session.id)
    rival.commits.catch_up()
    assert set(live(rival)) == {hash_of(1)}
    rival.close()


def test_times_inform_and_numbers_decide(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    real = time.time
    for jump in (0, -(10**9), 10**8, 0):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        commit(words, record(1, title=str(jump)))
    monkeypatch.undo()
    assert [one.n for one in words.commits.log()] == [4, 3, 2, 1]
    assert live(words)[hash_of(1)].version == 4


def test_a_place_within_a_second_is_kept_by_an_edit(words: Words) -> None:
    commit(words, *(record(number) for number in range(5)))

    def places() -> dict[bytes, Any]:
        with words.database.reading() as db:
            return dict(db.execute("SELECT hash, id FROM records"))

    before = places()
    commit(words, record(2, title="other words"))
    assert places() == before
    commit(words, record(2, taken_at="2020-01-01T00:00:00"))
    moved = places()
    assert moved.pop(bytes.fromhex(hash_of(2))) < min(moved.values())
    sound(words)
