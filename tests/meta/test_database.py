"""The local database: durable by its settings, one moment for each reader, and no error of SQLite's own."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from imgproxy.errors import Busy, StoreFull, WordsLost
from imgproxy.meta.database import MIGRATIONS, Database, connect, create, migrate, note, noted, sound


@pytest.fixture
def database(tmp_path: Path) -> Database:
    create(tmp_path / "words.db")
    return Database(tmp_path / "words.db", wait=0.2)


def test_every_connection_syncs_what_it_commits(database: Database) -> None:
    with database.writing() as db:
        asked = ("journal_mode", "synchronous", "user_version")
        assert [db.execute(f"PRAGMA {name}").fetchone()[0] for name in asked] == ["wal", 2, len(MIGRATIONS)]
    database.close()


def test_a_reader_sees_one_moment_whatever_is_written(database: Database) -> None:
    with database.reading() as reader:
        assert noted(reader, "x") == 0
        with database.writing() as writer:
            note(writer, "x", 1)
        assert noted(reader, "x") == 0
    with database.reading() as reader:
        assert noted(reader, "x") == 1
    database.close()


def test_a_block_that_raises_changes_nothing(database: Database) -> None:
    def fail() -> None:
        with database.writing() as db:
            note(db, "x", 1)
            raise KeyError("no")

    with pytest.raises(KeyError):
        fail()
    with database.reading() as db:
        assert noted(db, "x") == 0
    database.close()


def test_a_writer_that_waits_too_long_is_told_that_it_is_busy(database: Database) -> None:
    with database.writing(), pytest.raises(Busy), database.writing():
        pass
    database.close()


def test_no_room_and_damage_are_told_in_our_words(database: Database) -> None:
    def fill() -> None:
        with database.writing() as db:
            db.execute("PRAGMA max_page_count = 1")
            for number in range(1_000):
                note(db, f"{number}" * 50, "x" * 1_000)

    with pytest.raises(StoreFull):
        fill()
    with database.writing() as db:
        note(db, "x", 1)
    database.close()
    database.path.write_bytes(b"no database at all, " * 500)
    with pytest.raises(WordsLost), database.reading():
        pass


def test_threads_share_connections_one_at_a_time(database: Database) -> None:
    def count() -> None:
        for _ in range(50):
            with database.writing() as db:
                note(db, "count", int(noted(db, "count")) + 1)

    patient = Database(database.path)
    database = patient
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with database.reading() as db:
        assert noted(db, "count") == 200
    database.close()


def test_a_child_of_a_fork_opens_its_own_connections(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from imgproxy.meta.database import Database, create, note, noted
path = Path({str(tmp_path / "words.db")!r})
create(path)
database = Database(path)
with database.writing() as db:
    note(db, "parent", 1)
inherited = list(map(id, database._idle))
pid = os.fork()
if pid == 0:
    with database.writing() as db:
        assert id(db) not in inherited
        note(db, "child", 1)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
with database.reading() as db:
    assert (noted(db, "parent"), noted(db, "child")) == (1, 1)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_file_that_was_replaced_is_opened_anew(database: Database, tmp_path: Path) -> None:
    with database.writing() as db:
        note(db, "x", 1)
    create(tmp_path / "other.db")
    (tmp_path / "other.db").replace(database.path)
    for name in ("words.db-wal", "words.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with database.reading() as db:
        assert noted(db, "x") == 0
    database.close()


def test_every_step_of_the_schema_makes_the_next(tmp_path: Path) -> None:
    path = tmp_path / "words.db"
    create(path)
    db = connect(path)
    assert sound(db)
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    db.close()
    again = connect(path)
    migrate(again)
    again.close()


def test_the_read_walk_never_loads_the_words() -> None:
    """Images go on being served without the database, because nothing that serves them knows of it."""
    ask = "import sys, imgproxy.images, imgproxy.web.read; sys.exit(any(name.startswith('imgproxy.meta') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", ask], check=True, timeout=60)


def test_sqlite_is_new_enough_here() -> None:
    assert sqlite3.sqlite_version_info >= (3, 37)
