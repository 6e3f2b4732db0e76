"""Sessions: changes that nobody else sees until they are committed, all at once.

A session holds the full new state of every record that it changes, with the version that was live when it first did. Reading inside
shows these states on top of what is live. There may be any number; the one named `default` is shared by all who ask for none. Open
sessions are of this node alone: what must not be lost is committed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import NamedTuple, TypeVar

from imgproxy.errors import Missing, NoSession, SessionClosed
from imgproxy.meta.database import Database
from imgproxy.meta.fields import sayable
from imgproxy.meta.index import roomy
from imgproxy.meta.record import Record, edited, from_state, remark
from imgproxy.meta.staging import Change, Row, add, binary, stage

DEFAULT = "default"
ASIDE = "set aside"
"""The session of what could not be committed with the others of the default one."""

_Said = TypeVar("_Said")
_PATIENCE = 30.0
_LOOK = 0.05
_PAGE = 500
_HASHES = 2_000
_CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class Session:
    """An open session; `idle` is for how many seconds of running time nobody changed it."""

    key: int
    id: str
    name: str
    author: str
    opened: str
    idle: float
    revision: int
    committing: int | None


class Difference(NamedTuple):
    """What a session makes of one record: live state and new state, None for none; `stale` if the live one changed meanwhile."""

    hash: str
    before: Record | None
    after: Record | None
    stale: bool


class Sessions:
    """The open sessions of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, name: str = "", author: str = "") -> Session:
        """Open a session; if one of that name is open, it is that one."""
        name, author = remark("name", name, 100), remark("author", author)
        with self._database.writing() as db:
            return _open(db, name, author)

    def find(self, which: str) -> Session:
        """The open session of that id or name, or `NoSession`; the default session is opened if need be."""
        if not sayable(which):
            raise NoSession("no such session is open")
        with self._database.reading() as db:
            found = _find(db, which or DEFAULT)
        if found is None and which in ("", DEFAULT):
            return self.open(DEFAULT)
        if found is None:
            raise NoSession(f"no session {which!r} is open")
        return found

    def all(self) -> list[Session]:
        """Every open session, the oldest first."""
        with self._database.reading() as db:
            return [_session(row) for row in db.execute(f"SELECT {_FIELDS} FROM sessions ORDER BY key")]

    def size(self, session: Session) -> int:
        """How many records a session changes."""
        with self._database.reading() as db:
            return int(db.execute("SELECT count(*) FROM staged WHERE session = ?", (session.key,)).fetchone()[0])

    def say(self, session: Session, say: Callable[[Session], _Said]) -> _Said:
        """Say something in a session; if it is the default one, and is committed just now, in the next one."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return say(session)
            except (NoSession, SessionClosed):
                if session.name != DEFAULT or time.monotonic() > until:
                    raise
                time.sleep(_LOOK)
                session = self.find(DEFAULT)

    def stage(self, session: Session, changes: Iterable[Change]) -> int:
        """Put changes into a session, in one transaction for every twenty thousand; how many they were."""
        count = 0
        for chunk in _chunks(changes):
            with self._changing(session) as db:
                stage(db, session.key, chunk)
            count += len(chunk)
        return count

    def add(self, session: Session, rows: Sequence[Row], then: Callable[[], object] = lambda: None) -> int:
        """Stage those of many records that are neither live nor in the session, in one transaction; how many they were.

        `then` is called before the transaction is written down, for which the disk is needed and nothing else.
        """
        with self._changing(session) as db, roomy(db, len(rows)):
            new = add(db, rows)
            then()
            return new

    def put(self, session: Session, record: Record, based_on: int | None = None) -> None:
        """Give a record this state in a session."""
        self.stage(session, [Change(record.hash, record, based_on)])

    def introduce(self, session: Session, record: Record, said: Mapping[str, object], *, edits: bool = True) -> Record:
        """Give a picture its first record; if it has one by now, change in that what is said. What the session then shows.

        Unless somebody `edits`, a record that there is by now stays as it is, and one that is deleted in the session stays deleted.
        """
        with self._changing(session) as db:
            seen = _seen(db, session, record.hash)
            if not edits:
                known = seen or _live(db, record.hash)
                if known is not None:
                    return known
            shown = record if seen is None else edited(seen, said)
            stage(db, session.key, [Change(record.hash, shown, 0 if seen is None else None)])
            return shown

    def delete(self, session: Session, hash: str, check: Callable[[Record], object] = lambda _: None) -> None:
        """Delete a record in a session, or raise `Missing`; one that is only there forgets that it was ever added.

        `check` may raise something when it has seen the record as the session shows it, before anything happens.
        """
        with self._changing(session) as db:
            record = _seen(db, session, hash)
            if record is None:
                raise Missing("no record of that hash")
            check(record)
            stage(db, session.key, [Change(hash, None)])
            db.execute(
                "DELETE FROM staged WHERE session = ? AND hash = ?2 AND state IS NULL AND based_on = 0"
                " AND NOT EXISTS (SELECT 1 FROM records WHERE hash = ?2)",
                (session.key, binary(hash)),
            )

    def edit(self, session: Session, hash: str, changes: object, based_on: int | None = None) -> Record:
        """Change what people say of a record, on top of what the session shows; the new state."""
        return self.rework(session, hash, lambda record: edited(record, changes), based_on)

    def rework(self, session: Session, hash: str, change: Callable[[Record], Record], based_on: int | None = None) -> Record:
        """Give a record the state that `change` makes of the one that the session shows, or raise `Missing`."""
        with self._changing(session) as db:
            record = _seen(db, session, hash)
            if record is None:
                raise Missing("no record of that hash")
            changed = change(record)
            stage(db, session.key, [Change(hash, changed, based_on)])
            return changed

    def read(self, hash: str, session: Session | None = None) -> Record | None:
        """A record as it is live, or as a session shows it; None if there is none."""
        with self._database.reading() as db:
            return _live(db, hash) if session is None else _seen(db, session, hash)

    def hashes(self, first: str = "") -> Iterator[str]:
        """The hashes of all live records, in order, from that one on; read some thousands at a time."""
        last, beyond = binary(first) if first else b"", ">="
        while True:
            with self._database.reading() as db:
                rows = db.execute(f"SELECT hash FROM records WHERE hash {beyond} ? ORDER BY hash LIMIT ?", (last, _HASHES)).fetchall()
            beyond = ">"
            for (last,) in rows:
                yield last.hex()
            if len(rows) < _HASHES:
                return

    def diff(self, session: Session, after: str = "") -> Iterator[Difference]:
        """What a session changes, in the order of hashes, from behind that one on; read a few hundred at a time."""
        last = binary(after) if after else b""
        while True:
            with self._database.reading() as db:
                rows = db.execute(_DIFF, (session.key, last, _PAGE)).fetchall()
            for hash, based_on, since, before, after in rows:
                yield Difference(
                    hash.hex(),
                    from_state(hash.hex(), since, before) if before else None,
                    from_state(hash.hex(), based_on, after) if after else None,
                    based_on != (since or 0),
                )
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def forget(self, session: Session, hash: str) -> bool:
        """Take back what a session makes of one record; whether it made anything of it."""
        with self._changing(session) as db:
            return db.execute("DELETE FROM staged WHERE session = ? AND hash = ?", (session.key, binary(hash))).rowcount > 0

    def set_aside(self, session: Session, hashes: Iterable[str]) -> Session:
        """Move what a session makes of some records to the session of what is set aside, so that the rest may go on; that session."""
        with self._changing(session) as db:
            aside = _open(db, ASIDE, "")
            if aside.committing is not None:
                raise SessionClosed(f"session {aside.id} is just being committed")
            rows = [(aside.key, session.key, binary(hash)) for hash in hashes]
            db.executemany("UPDATE OR REPLACE staged SET session = ? WHERE session = ? AND hash = ?", rows)
            db.execute("UPDATE sessions SET revision = revision + 1, idle = 0 WHERE key = ?", (aside.key,))
            return aside

    def discard(self, session: Session) -> None:
        """Close a session and forget its changes."""
        with self._changing(session) as db:
            drop(db, session.key)

    def expire(self, elapsed: float, limit: float) -> list[str]:
        """Let so many seconds of running time pass, and discard what nobody changed for longer than `limit`; the ids of these.

        Not the default session, which everybody's changes are in.
        Whoever calls this now and then measures `elapsed` by a monotonic clock: no jump of the time of day forgets anything.
        """
        with self._database.writing() as db:
            db.execute("UPDATE sessions SET idle = idle + ?", (elapsed,))
            old = db.execute(
                "SELECT key, id FROM sessions WHERE idle > ? AND committing IS NULL AND name != ?", (limit, DEFAULT)
            ).fetchall()
            for key, _ in old:
                drop(db, key)
            return [id for _, id in old]

    def holds(self, hash: str) -> bool:
        """Whether any open session changes this record."""
        with self._database.reading() as db:
            return held(db, binary(hash))

    @contextmanager
    def _changing(self, session: Session) -> Iterator[sqlite3.Connection]:
        """A transaction that changes an open session."""
        with self._database.writing() as db:
            row = db.execute("SELECT committing FROM sessions WHERE id = ?", (session.id,)).fetchone()
            if row is None:
                raise NoSession(f"session {session.id} is no longer open")
            if row[0] is not None:
                raise SessionClosed(f"session {session.id} is just being committed")
            db.execute("UPDATE sessions SET revision = revision + 1, idle = 0 WHERE key = ?", (session.key,))
            yield db


def drop(db: sqlite3.Connection, key: int) -> None:
    """Close a session with all that is staged in it."""
    db.execute("DELETE FROM sessions WHERE key = ?", (key,))
    if db.execute("SELECT 1 FROM sessions LIMIT 1").fetchone():
        db.execute("DELETE FROM staged WHERE session = ?", (key,))
    else:
        db.execute("DELETE FROM staged")  # of a million, a hundred times faster


def held(db: sqlite3.Connection, hash: bytes) -> bool:
    """Whether any open session changes this record."""
    row = db.execute("SELECT 1 FROM sessions JOIN staged ON staged.session = key AND staged.hash = ? LIMIT 1", (hash,)).fetchone()
    return row is not None


_FIELDS = "key, id, name, author, opened, idle, revision, committing"
_DIFF = """
    SELECT s.hash, s.based_on, r.since, r.state, s.state FROM staged s LEFT JOIN records r ON r.hash = s.hash
    WHERE s.session = ? AND s.hash > ? ORDER BY s.hash LIMIT ?
"""


def _session(row: tuple[object, ...]) -> Session:
    return Session(*row)  # type: ignore[arg-type]


def _find(db: sqlite3.Connection, which: str) -> Session | None:
    row = db.execute(f"SELECT {_FIELDS} FROM sessions WHERE id = ?1 OR (name = ?1 AND name != '')", (which,)).fetchone()
    return _session(row) if row else None


def _open(db: sqlite3.Connection, name: str, author: str) -> Session:
    found = _find(db, name) if name else None
    if found is not None:
        return found
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    db.execute("INSERT INTO sessions (id, name, author, opened) VALUES (?, ?, ?, ?)", (token_hex(8), name, author, now))
    return _session(db.execute(f"SELECT {_FIELDS} FROM sessions WHERE key = last_insert_rowid()").fetchone())


def _live(db: sqlite3.Connection, hash: str) -> Record | None:
    row = db.execute("SELECT since, state FROM records WHERE hash = ?", (binary(hash),)).fetchone()
    return from_state(hash, *row) if row else None


def _seen(db: sqlite3.Connection, session: Session, hash: str) -> Record | None:
    row = db.execute("SELECT based_on, state FROM staged WHERE session = ? AND hash = ?", (session.key, binary(hash))).fetchone()
    if row is None:
        return _live(db, hash)
    return from_state(hash, *row) if row[1] is not None else None


def _chunks(changes: Iterable[Change]) -> Iterator[list[Change]]:
    chunk: list[Change] = []
    for change in changes:
        chunk.append(change)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
