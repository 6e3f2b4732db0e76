"""The log goes into the database beside the commits, and whatever it meets there nothing is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from imgproxy.meta import checkpoint
from imgproxy.meta.database import Database, create, note, noted

LARGE = 200_000
TEXT = "x" * 50_000


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setattr(checkpoint, "LARGE", LARGE)
    create(tmp_path / "words.db")
    return Database(tmp_path / "words.db")


def size(database: Database, suffix: str = "") -> int:
    return database.path.with_name(database.path.name + suffix).stat().st_size


def write(database: Database, first: int, count: int) -> None:
    for number in range(first, first + count):
        with database.writing() as db:
            note(db, f"{number}", f"{number} {TEXT}")


def test_what_is_committed_gets_into_the_file_while_it_is_open(database: Database) -> None:
    write(database, 0, 3)
    assert size(database) < LARGE  # all of it is in the log so far
    write(database, 3, 200)
    database._checkpoint.wait()
    assert size(database) > 150 * len(TEXT)
    assert size(database, "-wal") < 60 * len(TEXT)
    database.close()


def test_a_commit_does_not_copy_for_those_before_it(database: Database) -> None:
    copied: list[bool] = []
    real = checkpoint.Checkpoint._run

    def run(self: checkpoint.Checkpoint) -> None:
        copied.append(True)
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "consider", lambda self: None)
        write(database, 0, 40)
    assert size(database) < LARGE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "_run", run)
        write(database, 40, 1)
        database._checkpoint.wait()
    assert copied == [True]
    assert size(database) > 30 * len(TEXT)
    database.close()


def test_readers_of_an_older_moment_go_on_reading_it(database: Database) -> None:
    write(database, 0, 1)
    with database.reading() as old:
        assert noted(old, "5", "none") == "none"
        write(database, 1, 20)
        database._checkpoint.wait()
        assert noted(old, "5", "none") == "none"
    with database.reading() as db:
        assert [noted(db, f"{number}") for number in range(21)] == [f"{number} {TEXT}" for number in range(21)]
    database.close()


def test_a_disk_in_trouble_is_met_again_by_a_later_commit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(database._checkpoint, "_connect", fail)
        write(database, 0, 20)
        database._checkpoint.wait()
    assert size(database) < LARGE
    write(database, 20, 1)
    database.close()
    with closing(sqlite3.connect(database.path)) as db:
        assert db.execute("SELECT count(*) FROM notes").fetchone() == (21,)
