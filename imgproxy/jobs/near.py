"""Tasks in a database of this machine, and workers whose life the kernel vouches for: a lock that is gone with its holder."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from secrets import token_hex

import msgspec

from imgproxy.errors import BadTask, TaskUnfinished
from imgproxy.jobs.orders import QUICK
from imgproxy.jobs.task import LONGEST_PAUSE, Edit, Lane, Task, Tasks, Wanted
from imgproxy.meta.database import Database, connect, sound, translated

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS tasks (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
        delivery TEXT NOT NULL, open INTEGER NOT NULL, holder TEXT NOT NULL, due REAL NOT NULL, ended REAL NOT NULL, body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX IF NOT EXISTS tasks_key ON tasks (key) WHERE state = 'created';
    CREATE INDEX IF NOT EXISTS tasks_open ON tasks (due) WHERE open;
    CREATE INDEX IF NOT EXISTS tasks_dead ON tasks (seq) WHERE delivery = 'dead';
    CREATE INDEX IF NOT EXISTS tasks_ended ON tasks (ended) WHERE NOT open;
"""
_QUICK = f"(state != 'created' OR kind IN {QUICK!r})"
_IN_LANE: dict[Lane, str] = {"quick": _QUICK, "long": f"NOT {_QUICK}"}
_PAGES = 2_048
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Task).decode


class NearLedger:
    """Tasks in a SQLite database; one that is damaged is moved aside, and `moved` says so."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.with_name(f"{path.name}.boot").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.moved = moved_aside(path)
            with translated(), closing(connect(path, create=True)) as db:
                db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        self._database = Database(path, cache=_PAGES)

    def add(self, task: Task) -> Task:
        """Keep a new task, for good; or return the unfinished one of the same key."""
        with self._database.writing() as db:
            same = _one(db, "key = ? AND state = 'created'", task.key)
            if same is not None:
                return same
            columns = "id, key, kind, state, delivery, open, holder, due, ended, body"
            db.execute(
                f"INSERT INTO tasks ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (task.id, task.key, task.kind, *_columns(task))
            )
            return task

    def change(self, id: str, edit: Edit) -> Task | None:
        """Give a task another state, if `edit` has one, while nobody else changes it; None if nothing was changed."""
        with self._database.writing() as db:
            found = _one(db, "id = ?", id)
            changed = edit(found) if found is not None else None
            if changed is None:
                return None
            try:
                statement = "UPDATE tasks SET state = ?, delivery = ?, open = ?, holder = ?, due = ?, ended = ?, body = ? WHERE id = ?"
                db.execute(statement, (*_columns(changed), id))
            except sqlite3.IntegrityError as error:
                raise TaskUnfinished("another task is just doing the same") from error
            return changed

    def find(self, id: str) -> Task | None:
        """The task of that id."""
        with self._database.reading() as db:
            return _one(db, "id = ?", id)

    def same(self, key: str) -> Task | None:
        """The unfinished task of that key."""
        with self._database.reading() as db:
            return _one(db, "key = ? AND state = 'created'", key)

    def page(self, wanted: Wanted, most: int, cursor: str) -> Tasks:
        """Some of those that are wanted, the newest first."""
        terms, values = ["seq < ?"], [_place(cursor)]
        for column, value in (("state", wanted.state), ("kind", wanted.kind), ("delivery", "dead" if wanted.dead else "")):
            if value:
                terms.append(f"{column} = ?")
                values.append(value)
        statement = f"SELECT seq, body FROM tasks WHERE {' AND '.join(terms)} ORDER BY seq DESC LIMIT ?"
        with self._database.reading() as db:
            rows = db.execute(statement, (*values, most + 1)).fetchall()
        after = str(rows[most - 1][0]) if len(rows) > most else ""
        return Tasks(tuple(_decode(body) for _, body in rows[:most]), after)

    def due(self, lane: Lane, node: str, now: float, most: int) -> list[Task]:
        """Open tasks of a lane that nobody holds, and that may be looked at; those first that wait longest."""
        if node:
            return []  # all are of this one, which has no name
        terms = f"{_IN_LANE[lane]} AND holder = '' AND (due <= ? OR due > ?) ORDER BY due LIMIT ?"
        return self._some(terms, now, now + LONGEST_PAUSE, most)

    def held(self) -> list[Task]:
        """Open tasks that somebody holds."""
        return self._some("holder != ''")

    def forget(self, before: float) -> int:
        """Forget what ended before that moment and is not open; how many that were."""
        with self._database.writing() as db:
            return db.execute("DELETE FROM tasks WHERE NOT open AND ended < ?", (before,)).rowcount

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _some(self, terms: str, *values: object) -> list[Task]:
        with self._database.reading() as db:
            return [_decode(body) for (body,) in db.execute(f"SELECT body FROM tasks WHERE open AND {terms}", values)]


class NearLife:
    """The lives of workers on this machine: each holds a lock on a file of its own, which the kernel drops when it dies."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._ours: int | None = None

    def begin(self) -> str:
        """Begin to live; the name by which others ask."""
        name = f"{os.getpid()}-{token_hex(6)}"
        while self._ours is None:
            descriptor = os.open(self._directory / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if self._is_there(name, descriptor):
                self._ours = descriptor
            else:  # swept away between the two lines above
                os.close(descriptor)
        return name

    def lives(self, name: str) -> bool:
        """Whether that worker lives."""
        return self._probed(name, sweep=False)

    def sweep(self) -> None:
        """Remove what dead workers have left."""
        for path in self._directory.iterdir():
            self._probed(path.name, sweep=True)

    def beat(self) -> None:
        """Nothing need be done to live on."""

    def end(self) -> None:
        """Die, in an orderly way."""
        if self._ours is not None:
            os.close(self._ours)
            self._ours = None

    def _probed(self, name: str, *, sweep: bool) -> bool:
        try:
            descriptor = os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if sweep else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            if sweep and self._is_there(name, descriptor):
                (self._directory / name).unlink()
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _is_there(self, name: str, descriptor: int) -> bool:
        try:
            return (self._directory / name).stat().st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            return False


def _columns(task: Task) -> tuple[object, ...]:
    return (task.state, task.delivery.state, task.open, task.holder, task.due, task.ended, _encode(task))


def _one(db: sqlite3.Connection, terms: str, value: str) -> Task | None:
    row = db.execute(f"SELECT body FROM tasks WHERE {terms}", (value,)).fetchone()
    return _decode(row[0]) if row else None


def _place(cursor: str) -> int | str:
    if not cursor:
        return 2**62
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise BadTask("cursor", "is none of ours")
    return int(cursor)


def moved_aside(path: Path) -> Path | None:
    """Move a damaged database out of the way; where it lies now."""
    if not path.exists():
        return None
    try:
        with translated(), closing(connect(path)) as db:
            if sound(db):
                return None
    except Exception:  # noqa: S110 - whatever is wrong with it, it is of no use
        pass
    place = path.with_name(f"{path.name}.damaged")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(place.with_name(place.name + suffix))
    return place
