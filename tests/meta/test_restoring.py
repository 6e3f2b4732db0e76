"""Snapshots, restore and boot: a lost or damaged disk costs time, and nothing else."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest

from imgproxy.errors import Forked, StoreDown, StoreLied, WordsLost
from imgproxy.meta import database, journal, restoring, snapshots
from imgproxy.meta.query import Query
from imgproxy.meta.repository import Words
from tests.meta.making import Place, commit, hash_of, live, record


def grown(words: Words, commits: int) -> None:
    """Commits that add, change and delete."""
    for number in range(commits):
        session = words.sessions.open()
        words.sessions.put(session, record(number, tags=("even",) if number % 2 == 0 else ()))
        if number:
            words.sessions.edit(session, hash_of(number - 1), {"title": f"changed by {number}"})
        if number > 2:
            words.sessions.delete(session, hash_of(number - 3))
        words.commits.commit(session.id)


def read(here: Place, key: str) -> bytes:
    blob = here.meta.get(key)
    assert blob is not None
    with blob:
        return blob.file.read()


def damage(here: Place, key: str, change: Callable[[bytes], bytes]) -> None:
    here.meta.put(key, BytesIO(change(read(here, key))))


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "rotten": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "longer": lambda data: data + b"more",
    "another": lambda _: b"nothing of ours",
}


def test_the_log_of_a_database_that_is_lost_is_not_replayed_into_the_new_one(here: Place) -> None:
    here.keep(*range(40))
    words = here.node("lost")
    commit(words, record(1))
    path = words.database.path
    log = path.with_name(f"{path.name}-wal")
    with closing(sqlite3.connect(path)) as held:  # so that the log stays
        held.execute("SELECT count(*) FROM records").fetchone()
        commit(words, record(2, title="x" * 500))
        words.close()
        old = log.read_bytes()
    assert old
    path.unlink()
    with closing(here.node("other", holder="lost")) as other:
        for number in range(3, 40):
            commit(other, record(number))
    log.write_bytes(old)
    with closing(here.node("lost")) as again:
        assert again.booted.how == "restored"
        assert set(live(again)) == {hash_of(number) for number in range(1, 40)}
        with again.database.reading() as db:
            assert database.sound(db)


def test_an_empty_store_makes_an_empty_repository(here: Place) -> None:
    words = here.node()
    assert words.booted.how == "restored"
    assert words.booted.restored == restoring.Restored(0, 0, ())
    assert live(words) == {}
    words.close()


def test_commits_alone_bring_everything_back(words: Words, here: Place) -> None:
    grown(words, 8)
    other = here.node("other")
    assert live(other) == live(words)
    assert other.booted.restored == restoring.Restored(8, 0, ())
    assert [one.n for one in other.commits.log()] == list(range(8, 0, -1))
    other.close()


def test_a_snapshot_and_the_commits_after_it_bring_everything_back(words: Words, here: Place) -> None:
    grown(words, 5)
    assert words.snapshots.take() == 5
    commit(words, record(50))
    told: list[tuple[str, int]] = []
    found = restoring.restore(here.meta, here.root / "copy.db", progress=lambda what, n: told.append((what, n)))
    assert found == restoring.Restored(6, 5, ())
    assert told == [("snapshot", 5), ("commit", 6)]


def test_a_snapshot_holds_nothing_that_was_not_committed(words: Words, here: Place) -> None:
    grown(words, 3)
    words.sessions.put(words.sessions.open("secret"), record(9, title="unpublished words"))
    words.snapshots.take()
    snapshots.unpack(here.meta, 3, here.root / "copy.db")
    assert b"unpublished" not in (here.root / "copy.db").read_bytes()
    other = here.node("other")
    assert other.sessions.all() == []
    other.close()


def test_a_snapshot_is_due_after_so_many_commits(here: Place) -> None:
    here.keep(*range(9))
    words = here.node(snapshot_every=3)
    grown(words, 2)
    assert not words.snapshots.due()
    commit(words, record(8))
    assert words.snapshots.due()
    words.snapshots.take()
    assert not words.snapshots.due()
    words.close()


@pytest.mark.parametrize("kind", sorted(DAMAGES))
def test_a_broken_snapshot_falls_back_to_an_older_one(words: Words, here: Place, kind: str) -> None:
    grown(words, 3)
    words.snapshots.take()
    commit(words, record(50))
    words.snapshots.take()
    damage(here, snapshots.key(4), DAMAGES[kind])
    proof = restoring.check(words.database, here.meta, here.root / "copy.db")
    assert proof == restoring.Proof(restoring.Restored(4, 3, (4,)), 4, ())


def test_broken_snapshots_fall_back_to_the_first_commit(words: Words, here: Place) -> None:
    grown(words, 3)
    words.snapshots.take()
    commit(words, record(50))
    words.snapshots.take()
    for n in (3, 4):
        damage(here, snapshots.key(n), DAMAGES["rotten"])
    proof = restoring.check(words.database, here.meta, here.root / "copy.db")
    assert proof.restored == restoring.Restored(4, 0, (4, 3))
    assert proof.differences == ()


def test_a_broken_snapshot_is_made_anew_and_a_whole_one_left_alone(words: Words, here: Place) -> None:
    grown(words, 3)
    words.snapshots.take()
    whole = read(here, snapshots.key(3))
    damage(here, snapshots.key(3), DAMAGES["cut"])
    words.snapshots.take()
    assert restoring.restore(here.meta, here.root / "copy.db").snapshot == 3
    again = read(here, snapshots.key(3))
    words.snapshots.take()
    assert read(here, snapshots.key(3)) == again
    assert len(whole) > 100


def test_a_snapshot_of_another_chain_is_not_believed(words: Words, here: Place, tmp_path: Path) -> None:
    from tests.meta.making import place

    strange = place(tmp_path / "strange")
    strange.keep(*range(10))
    stranger = strange.node()
    grown(stranger, 2)
    stranger.snapshots.take()
    grown(words, 2)
    here.meta.put(snapshots.key(2), BytesIO(read(strange, snapshots.key(2))))
    proof = restoring.check(words.database, here.meta, here.root / "copy.db")
    assert proof.restored.broken == (2,)
    assert proof.differences == ()
    stranger.close()


@pytest.mark.parametrize("kind", sorted(DAMAGES))
def test_a_damaged_commit_stops_the_restore(words: Words, here: Place, kind: str) -> None:
    grown(words, 4)
    damage(here, journal.key(2), DAMAGES[kind])
    with pytest.raises((StoreLied, Forked)):
        restoring.restore(here.meta, here.root / "copy.db")
    assert not (here.root / "copy.db").exists()


def test_a_commit_that_is_missing_between_others_stops_the_restore(words: Words, here: Place) -> None:
    grown(words, 4)
    here.meta.delete(journal.key(2))
    with pytest.raises(StoreLied, match="commit 2 is not in the store"):
        restoring.restore(here.meta, here.root / "copy.db")


def test_commits_that_a_snapshot_knew_of_are_not_forgotten_silently(words: Words, here: Place) -> None:
    grown(words, 4)
    words.snapshots.take()
    for n in (3, 4):
        here.meta.delete(journal.key(n))
    with pytest.raises(StoreLied, match="but a snapshot of commit 4 is"):
        restoring.restore(here.meta, here.root / "copy.db")


def test_a_store_that_is_down_is_not_an_empty_one(here: Place) -> None:
    from imgproxy.stores.fs import FsStore

    store = FsStore(here.root / "gone/meta", fanned=False)
    for directory in sorted((here.root / "gone").rglob("*"), reverse=True):
        directory.rmdir()
    with pytest.raises(StoreDown):
        restoring.restore(store, here.root / "copy.db")


def test_the_check_proves_that_a_restore_equals_the_live_database(words: Words, here: Place) -> None:
    grown(words, 6)
    words.snapshots.take()
    grown(words, 3)
    words.sessions.put(words.sessions.open(), record(70))
    proof = restoring.check(words.database, here.meta, here.root / "copy.db")
    assert (proof.restored.n, proof.records, proof.differences) == (9, len(live(words)), ())
    assert not list(here.root.glob("copy*"))


def test_the_check_finds_what_differs(words: Words, here: Place) -> None:
    grown(words, 6)
    with words.database.writing() as db:
        db.execute("UPDATE records SET state = replace(state, 'changed', 'spoiled') WHERE hash = ?", (bytes.fromhex(hash_of(4)),))
        db.execute("UPDATE counts SET number = 77 WHERE mark = '_t_even'")
    proof = restoring.check(words.database, here.meta, here.root / "copy.db")
    assert set(proof.differences) == {f"record {hash_of(4)}", "count of '_t_even'"}


def test_a_node_that_restarts_keeps_its_database_and_its_sessions(words: Words, here: Place) -> None:
    grown(words, 2)
    session = words.sessions.open("mine")
    words.sessions.put(session, record(9))
    words.close()
    again = here.node()
    assert (again.booted.how, again.booted.incarnation) == ("kept", words.booted.incarnation)
    assert again.sessions.read(hash_of(9), again.sessions.find("mine")) is not None
    again.close()


def spoiled(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "pages":
        for place in range(4_096, len(data), 4_096):
            data[place : place + 2_000] = os.urandom(2_000)
    elif how == "header":
        data[:100] = b"x" * 100
    elif how == "cut":
        del data[len(data) // 2 :]
    elif how == "empty":
        data.clear()
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["pages", "header", "cut", "empty"])
def test_a_damaged_database_is_moved_aside_and_restored(words: Words, here: Place, how: str) -> None:
    grown(words, 5)
    before = live(words)
    words.close()
    spoiled(here.root / "node/words.db", how)
    again = here.node()
    assert again.booted.how == "restored"
    assert again.booted.moved == here.root / "node/words.db.damaged"
    assert again.booted.moved.exists()
    assert live(again) == before
    commit(again, record(60))
    again.close()


def test_a_database_that_is_damaged_while_in_use_says_so(words: Words, here: Place) -> None:
    grown(words, 5)
    words.close()
    spoiled(here.root / "node/words.db", "pages")
    with pytest.raises(WordsLost):
        live(words)
    words.close()


def test_a_database_that_vanishes_while_in_use_says_so_and_is_restored(words: Words, here: Place) -> None:
    grown(words, 5)
    before = live(words)
    for path in (here.root / "node").glob("words.db*"):
        path.unlink()
    with pytest.raises(WordsLost):
        words.search.tags()
    again = here.node()
    assert live(again) == before
    assert live(words) == before
    again.close()


def test_a_database_of_a_newer_version_is_made_again_from_the_commits(words: Words, here: Place) -> None:
    grown(words, 3)
    before = live(words)
    words.close()
    with sqlite3.connect(here.root / "node/words.db") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    again = here.node()
    assert again.booted.how == "restored"
    assert live(again) == before
    again.close()


def test_a_database_and_a_snapshot_of_an_older_version_are_brought_up(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here.keep(*range(9))
    with monkeypatch.context() as older:
        for module in (database, snapshots):
            older.setattr(module, "MIGRATIONS", database.MIGRATIONS[:1])
        words = here.node()
        grown(words, 8)
        words.sessions.put(words.sessions.open("open"), record(8, title="not yet"))
        with words.database.writing() as db:
            db.execute("INSERT INTO words (words) VALUES ('delete-all')")
            for table in ("records", "past", "staged"):
                db.execute(f"UPDATE {table} SET text = ' as they told it then '")
        words.snapshots.take()
        words.close()
    again = here.node()
    assert again.booted.how == "kept"
    assert again.search.page(Query(words="changed 7")).total == 1
    assert again.search.page(Query(words="yet"), session=again.sessions.find("open")).total == 1
    assert restoring.check(again.database, here.meta, here.root / "copy.db") == restoring.Proof(restoring.Restored(8, 8, ()), 3, ())
    again.close()


def test_a_restore_that_was_killed_begins_anew(words: Words, here: Place) -> None:
    grown(words, 3)
    (here.root / "other").mkdir()
    (here.root / "other/words.db.partial").write_bytes(b"half of something")
    (here.root / "other/words.db.drafts").mkdir()
    (here.root / "other/words.db.drafts/x.draft").write_bytes(b"half")
    other = here.node("other")
    assert live(other) == live(words)
    assert {path.name for path in (here.root / "other").iterdir()} <= {"level", "words.db", "words.db.boot", "words.db-wal", "words.db-shm"}
    other.close()


def test_processes_that_boot_at_once_share_one_database(words: Words, here: Place) -> None:
    import threading

    grown(words, 3)
    opened: list[Words] = []
    threads = [threading.Thread(target=lambda: opened.append(here.node("shared"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(one.booted.how for one in opened) == ["kept", "kept", "kept", "restored"]
    assert len({one.booted.incarnation for one in opened}) == 1
    for one in opened:
        one.close()
