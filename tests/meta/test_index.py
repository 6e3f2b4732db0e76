"""The full-text index: much at once leaves it merged, small commits are tended later, and nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgproxy.clerk import Clerk
from imgproxy.errors import Conflict
from imgproxy.meta import index, restoring
from imgproxy.meta.near import near
from imgproxy.meta.query import Query
from imgproxy.meta.repository import Words
from tests.meta.making import Place, commit, hash_of, live, record
from tests.readers import until


def segments(words: Words) -> int:
    with words.database.reading() as db:
        return int(db.execute("SELECT count(DISTINCT segid) FROM words_idx").fetchone()[0])


def sound(words: Words) -> None:
    with words.database.writing() as db:
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_a_large_commit_leaves_one_segment_and_the_settings_as_they_were(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        commit(words, record(number, title="sun"))
    assert segments(words) == 3
    monkeypatch.setattr(index, "MANY", 10)
    commit(words, *(record(number, title="sun") for number in range(10, 60)))
    assert segments(words) == 1
    with words.database.reading() as db:
        said = dict(db.execute("SELECT k, v FROM words_config"))
    assert (said["hashsize"], said["automerge"]) == (2**20, 4)
    assert words.search.page(Query(words="sun")).total == 53
    sound(words)


def schema(words: Words) -> set[tuple[str, str]]:
    with words.database.reading() as db:
        return set(db.execute("SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'records'"))


def test_a_commit_of_nearly_everything_makes_the_indexes_anew(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here.keep(*range(100))
    plainly, anew = here.node("plainly"), here.node("anew", holder="plainly")
    assert schema(plainly) == schema(anew)
    monkeypatch.setattr(index, "MANY", 10)
    many = [record(number, title="sun", phash=f"{number:016x}", domain="d", dkey=f"{number}") for number in range(90)]
    made = commit(anew, *many)
    assert schema(plainly) == schema(anew)
    monkeypatch.setattr(index, "MANY", 1_000)
    plainly.follower.poll()
    assert restoring.check(anew.database, here.meta, here.root / "proof.db").differences == ()
    assert live(plainly) == live(anew)
    assert near(anew.database, f"{7:016x}", distance=0)[0].record.hash == hash_of(7)
    with pytest.raises(Conflict):
        commit(anew, record(90, domain="d", dkey="3"))
    assert made.changes == 90
    sound(anew)
    plainly.close()
    anew.close()


def test_what_piles_up_is_merged_in_quiet_moments(words: Words) -> None:
    for number in range(60):
        commit(words, record(number, title=f"sun {number}"))
    before = segments(words)
    turns = 0
    while index.tend(words.database):
        turns += 1
        assert turns < 100
    assert turns > 0
    assert segments(words) < before
    assert words.search.page(Query(words="sun")).total == 60
    sound(words)


def test_the_clerk_tends_what_small_commits_leave(words: Words, tmp_path: Path) -> None:
    for number in range(60):
        commit(words, record(number, title=f"sun {number}"))
    before = segments(words)
    clerk = Clerk(tmp_path / "run" / "clerk", 0)
    clerk.start(words)
    until(lambda: segments(words) < before, "nobody tends it")
    clerk.stop()
    sound(words)


def test_after_an_index_was_made_anew_no_small_commit_merges_it_but_the_clerk_does(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "MANY", 10)
    commit(words, *(record(number, title="sun") for number in range(50)))
    assert segments(words) == 1
    for number in range(20):
        commit(words, record(number, title=f"sun {number}"))
    assert segments(words) > 20
    clerk = Clerk(tmp_path / "run" / "clerk", 0)
    clerk.start(words)
    until(lambda: segments(words) < 4, "nobody tends it")
    clerk.stop()
    assert words.search.page(Query(words="sun")).total == 50
    sound(words)


def test_there_is_nothing_to_tend_in_an_empty_index(words: Words) -> None:
    assert not index.tend(words.database)
