"""Followers keep up, and what was deleted is let go of exactly when nobody wants it any more."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from imgproxy.errors import Forked, NotTheWriter, StoreDown
from imgproxy.flights import Flights
from imgproxy.meta.farewell import Farewell
from imgproxy.meta.following import Follower, Progress
from imgproxy.meta.journal import key
from imgproxy.meta.level import Level
from imgproxy.meta.query import Query
from imgproxy.meta.repository import Words
from tests.meta.making import Place, commit, hash_of, live, record


def deleted(words: Words, *numbers: int) -> None:
    session = words.sessions.open()
    for number in numbers:
        words.sessions.delete(session, hash_of(number))
    words.commits.commit(session.id)


def test_a_follower_applies_what_is_new_and_answers_searches_from_its_own_copy(words: Words, here: Place) -> None:
    reader = here.node("reader")
    commit(words, record(1, title="sea"))
    commit(words, record(2, title="sky"))
    assert reader.search.page(Query(words="sea")).total == 0
    assert reader.follower.poll() == Progress(2, 0, True)
    assert reader.follower.poll() == Progress(0, 0, True)
    assert [one.hash for one in reader.search.page(Query(words="sea")).records] == [hash_of(1)]
    assert live(reader) == live(words)
    reader.close()


def test_a_follower_lets_go_of_deleted_originals_once(words: Words, here: Place, tmp_path: Path) -> None:
    reader = here.node("reader")
    let_go: list[str] = []
    follower = Follower(reader.chain, Farewell(reader.chain, let_go.append), Level(tmp_path / "level"))
    commit(words, record(1), record(2), record(3))
    deleted(words, 1, 2)
    assert follower.poll() == Progress(2, 2, True)
    assert follower.poll() == Progress(0, 0, True)
    assert sorted(let_go) == sorted(map(hash_of, (1, 2)))
    reader.close()


def test_a_follower_far_behind_catches_up_in_steps_and_says_so(words: Words, here: Place, tmp_path: Path) -> None:
    reader = here.node("reader")
    for number in range(5):
        commit(words, record(number))
    follower = Follower(reader.chain, Farewell(reader.chain, lambda _: None), Level(tmp_path / "level"), most=2)
    assert [follower.poll() for _ in range(3)] == [Progress(2, 0, False), Progress(2, 0, False), Progress(1, 0, True)]
    reader.close()


def test_the_lag_is_told_by_the_last_time_that_it_was_level(words: Words, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    real = time.monotonic
    reader = here.node("reader")
    reader.follower.poll()
    monkeypatch.setattr(time, "monotonic", lambda: real() + 100)
    assert 100 <= reader.follower.lag() < 160
    reader.follower.poll()
    assert reader.follower.lag() < 60
    reader.close()


def test_a_follower_sees_a_fork_and_goes_no_further(words: Words, here: Place) -> None:
    reader = here.node("reader")
    commit(words, record(1))
    reader.follower.poll()
    here.meta.delete(key(1))
    commit_again = here.node("another", holder="node")
    commit(commit_again, record(2))
    with pytest.raises(Forked, match="two writers have met"):
        reader.follower.poll()
    assert set(live(reader)) == {hash_of(1)}
    commit_again.close()
    reader.close()


def test_a_reading_node_cannot_commit_and_is_told_who_can(words: Words, here: Place) -> None:
    reader = here.node("reader")
    commit(words, record(1))
    session = reader.sessions.open()
    reader.sessions.put(session, record(2))
    with pytest.raises(NotTheWriter, match="node"):
        reader.commits.commit(session.id)
    words.lease.release()
    done = reader.commits.commit(session.id)
    assert done is not None
    assert done.n == 2
    with pytest.raises(NotTheWriter, match="reader"):
        commit(words, record(3))
    assert words.follower.poll().applied == 1
    assert live(words) == live(reader)
    reader.close()


def test_a_deleted_original_leaves_the_store_after_its_commit(words: Words, here: Place) -> None:
    commit(words, record(1), record(2))
    session = words.sessions.open()
    words.sessions.delete(session, hash_of(1))
    assert words.farewell.say() == 0
    words.commits.commit(session.id)
    assert here.base.head(hash_of(1)) is not None
    assert words.farewell.waiting() == 1
    assert words.farewell.say() == 1
    assert (here.base.head(hash_of(1)), words.farewell.waiting()) == (None, 0)
    assert here.base.head(hash_of(2)) is not None


@pytest.mark.parametrize("page", [1, 2, 3, 500])
def test_what_could_not_be_removed_is_tried_again_and_holds_up_no_other(words: Words, page: int) -> None:
    commit(words, *map(record, range(5)))
    deleted(words, *range(5))
    bad, tried = sorted(map(hash_of, range(5)))[:2], list[str]()
    broken = set(bad)

    def let_go(hash: str) -> None:
        tried.append(hash)
        if hash in broken:
            raise StoreDown("cut")

    farewell = Farewell(words.chain, let_go, page=page)
    told = [farewell.begin() for _ in range(3)]
    assert farewell.waiting() == 2
    assert "deleted originals are not removed yet: cut" in told
    assert set(tried) == set(map(hash_of, range(5)))
    broken.clear()
    assert [farewell.begin() for _ in range(2)] == ["", ""]
    assert farewell.waiting() == 0
    assert [hash for hash in tried if hash not in bad] == sorted(map(hash_of, range(5)))[2:]


def test_more_than_so_many_are_left_for_later(words: Words) -> None:
    commit(words, *map(record, range(3)))
    deleted(words, *range(3))
    assert (words.farewell.begin(2), words.farewell.waiting()) == ("", 3)
    assert (words.farewell.begin(3), words.farewell.waiting()) == ("", 0)


def test_what_a_session_has_taken_up_waits_until_that_is_discarded(words: Words, here: Place) -> None:
    commit(words, record(1))
    taken = words.sessions.open()
    words.sessions.edit(taken, hash_of(1), {"title": "mine"})
    other = words.sessions.open()
    words.sessions.delete(other, hash_of(1))
    deleted(words, 1)
    assert (words.farewell.waiting(), words.farewell.say()) == (0, 0)
    assert here.base.head(hash_of(1)) is not None
    words.sessions.discard(taken)
    assert (words.farewell.waiting(), words.farewell.say()) == (1, 1)  # that others delete it too keeps nothing
    assert here.base.head(hash_of(1)) is None


def test_a_reading_node_waits_until_the_store_has_let_go(words: Words, here: Place) -> None:
    commit(words, record(1))
    deleted(words, 1)
    with closing(here.node("reader")) as reader:
        assert reader.follower.poll().let_go == 0
        assert reader.follower.leaving(hash_of(1))
        assert not words.follower.leaving(hash_of(1))  # it does that itself
        words.farewell.say()
        assert not reader.follower.leaving(hash_of(1))
        assert reader.follower.poll().let_go == 1
        assert reader.follower.poll().let_go == 0


def test_a_part_of_a_farewell_renews_the_lease_and_ends_in_time(words: Words) -> None:
    commit(words, *(record(number) for number in range(5)))
    deleted(words, *range(5))
    parts: list[int] = []
    slow = Farewell(words.chain, lambda _: None, first=lambda: parts.append(words.lease.renew().beat), seconds=0.0)
    assert slow.say() == 5
    assert len(set(parts)) >= 5


def test_what_somebody_puts_again_just_now_is_not_let_go_of(words: Words, here: Place, tmp_path: Path) -> None:
    commit(words, record(1), record(2))
    deleted(words, 1, 2)
    flights = Flights(tmp_path / "flights")
    farewell = Farewell(words.chain, here.base.delete, alone=partial(flights.alone, deadline=0.0))
    session = words.sessions.open()
    with flights.alone(hash_of(1), 0.0):  # the original is there, as the upload sees it
        assert farewell.say() == 1
        words.sessions.put(session, record(1))
    assert (farewell.say(), farewell.waiting()) == (0, 0)
    assert here.base.head(hash_of(1)) is not None
    assert words.commits.commit(session.id) is not None


def test_what_is_taken_up_again_while_others_are_let_go_of_stays(words: Words, here: Place) -> None:
    commit(words, *(record(number) for number in range(5)))
    deleted(words, *range(5))
    session = words.sessions.open()
    last = max(map(hash_of, range(5)))
    number = next(number for number in range(5) if hash_of(number) == last)

    def let_go(hash: str) -> None:
        words.sessions.put(session, record(number))
        here.base.delete(hash)

    assert Farewell(words.chain, let_go).say() == 4
    assert here.base.head(last) is not None


def test_what_was_added_again_stays(words: Words, here: Place) -> None:
    commit(words, record(1), record(2))
    deleted(words, 1, 2)
    commit(words, record(1))
    session = words.sessions.open()
    words.sessions.put(session, record(2))
    words.farewell.say()
    assert here.base.head(hash_of(1)) is not None
    assert here.base.head(hash_of(2)) is not None
    assert words.commits.commit(session.id) is not None


def test_many_are_let_go_of_in_parts(words: Words) -> None:
    commit(words, *(record(number) for number in range(25)))
    deleted(words, *range(25))
    gone: list[str] = []
    assert Farewell(words.chain, gone.append, page=10).say() == 25
    assert sorted(gone) == sorted(map(hash_of, range(25)))
