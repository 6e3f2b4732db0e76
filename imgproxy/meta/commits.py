"""A session becomes a commit: whole, durable and live at one moment; or nothing happens and the session stays open.

The steps, with what a crash after each leaves behind:

1. the session is frozen                        -> it is thawed by the next commit, whatever that is
2. conflicts, aliases and originals are checked -> the same
3. the commit is composed in a local file       -> the same
4. the object is stored under its number        -> **the commit has happened**; the next commit, or a restore, applies it
5. it is read back, the lease once more         -> the same
6. it is applied, the session dropped           -> asking again answers with the number it has

What is large is applied while the steps 3 to 5 are taken, in a transaction that waits for them: nobody sees any of it before.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

from imgproxy.errors import Conflict, Missing, NoSession, NotTheWriter, SessionClosed, StoreLied, TooMuch, Unstored
from imgproxy.meta.absent import Absent
from imgproxy.meta.applying import CHANGES, Object, aliases_taken, apply, conflicts, counted
from imgproxy.meta.chain import Chain, Reached, unheard
from imgproxy.meta.fields import sayable
from imgproxy.meta.journal import Header, Line, compose, key, lines
from imgproxy.meta.lease import Lease
from imgproxy.meta.record import adds_nothing, from_state, remark
from imgproxy.meta.sessions import Session, Sessions
from imgproxy.meta.staging import Change, binary

STEPS = ("commit: frozen", "commit: composed", "commit: stored", "commit: read back", "commit: applying", "commit: applied")
"""What `reached` is told, in this order."""

BESIDE = 50_000
"""A commit of so many changes is applied while its object is on its way to the store."""

_TRIES = 3
_NAMED = 1_000


@dataclass(frozen=True, slots=True)
class Commit:
    """An entry of the log."""

    n: int
    hash: str
    session: str
    author: str
    message: str
    time: str
    changes: int


class Commits:
    """The commits of one repository: making them and reading them."""

    def __init__(self, chain: Chain, lease: Lease, absent: Absent, reached: Reached = unheard) -> None:
        self._chain = chain
        self._lease = lease
        self._absent = absent
        self._reached = reached

    def commit(self, session: str, author: str = "", message: str = "") -> Commit | None:
        """Commit the session of that id; None if it changes nothing. Asked again, the answer is the same commit.

        Raise `Conflict`, `Unstored`, `NoSession`, `NotTheWriter`, `Forked`, or what the store or the disk could not do; of a `StoreDown`
        or a `StoreFull` it is not known whether the commit has happened, and asking again finds out.
        """
        author, message = remark("author", author), remark("message", message)
        with self._chain.alone():
            done = self._done(session)
            if done is not None:
                return done
            self.catch_up()
            for _ in range(_TRIES):
                done = self._done(session)
                if done is not None:
                    return done
                try:
                    made = self._attempt(session, author, message)
                except Conflict:
                    if not self._spare(session):
                        raise
                    continue
                if made != "taken":
                    return self._done(session) if made == "done" else None
                self.catch_up()
        raise NotTheWriter("somebody else, just now")

    def catch_up(self) -> int:
        """Make sure that this node is the writer, and apply what a former writer, or a former life of ours, has left; how much it was.

        What was frozen by a life that ended is thawed. Ask only when `alone`.
        """
        self._lease.check()
        self._chain.confirm()
        count = self._chain.follow(reached=self._reached)
        with self._chain.database.writing() as db:
            db.execute("UPDATE sessions SET committing = NULL WHERE committing IS NOT NULL")
        return count

    def log(self, before: int | None = None, most: int = 100) -> list[Commit]:
        """The newest commits, or the newest before a number; the newest first."""
        with self._chain.database.reading() as db:
            rows = db.execute(f"SELECT {_FIELDS} FROM commits WHERE n < ? ORDER BY n DESC LIMIT ?", (before or 2**62, most))
            return [_commit(row) for row in rows]

    def of_session(self, session: str) -> int | None:
        """The number of the commit that closed the session of that id; None if none did."""
        if not session or not sayable(session):
            return None
        with self._chain.database.reading() as db:
            row = db.execute("SELECT n FROM commits WHERE session = ?", (session,)).fetchone()
        return int(row[0]) if row else None

    def find(self, n: int) -> Commit:
        """The commit of that number, or `Missing`."""
        with self._chain.database.reading() as db:
            row = db.execute(f"SELECT {_FIELDS} FROM commits WHERE n = ?", (n,)).fetchone()
        if row is None:
            raise Missing(f"no commit {n}")
        return _commit(row)

    def changes(self, n: int) -> Iterator[Line]:
        """What a commit made of each record, read from the store."""
        with self._chain.draft() as path:
            self._fetched(self.find(n), path)
            yield from lines(path)

    def history(self, hash: str, most: int = 100, before: int = 0) -> Iterator[tuple[Commit, Line]]:
        """The commits that made a live record what it is, or those before a number; the newest first; each knows the one before."""
        with self._chain.database.reading() as db:
            row = db.execute("SELECT since FROM records WHERE hash = ?", (binary(hash),)).fetchone()
        n = row[0] if row else 0
        if 1 < before <= n and self._line(before - 1, hash) is not None:
            n = before - 1  # where a part of a history ended, the next begins: nothing newer is fetched again
        while n and most:
            line = self._line(n, hash)
            if line is None:
                raise StoreLied(f"commit {n} says nothing of {hash}")
            if not before or n < before:
                yield self.find(n), line
                most -= 1
            n = line.based_on

    def _line(self, n: int, hash: str) -> Line | None:
        return next((line for line in self.changes(n) if line.hash == hash), None)

    def revert(self, n: int, sessions: Sessions, author: str = "") -> Session:
        """Open a session that goes back on a commit; `Conflict` if records were changed since. To be committed like any other."""
        with self._chain.draft() as path:
            self._fetched(self.find(n), path)
            session = sessions.open(author=author)
            try:
                sessions.stage(session, map(_reverse, lines(path), repeat(n)))
                with self._chain.database.reading() as db:
                    changed = conflicts(db, session.key)
                if changed:
                    raise Conflict(changed, f"changed since commit {n}")
            except BaseException:
                sessions.discard(session)
                raise
        return session

    def undo(self, n: int, sessions: Sessions, author: str = "") -> Commit | None:
        """Go back on a commit by a new one; None if nothing is left to go back on. What surely fails leaves no session behind."""
        session = self.revert(n, sessions, author)
        made = None
        try:
            made = self.commit(session.id, author, f"Revert commit {n}")
        finally:
            if made is None:
                with suppress(NoSession, SessionClosed):  # closed: it may have happened, which is found out
                    sessions.discard(session)
        return made

    def _attempt(self, session: str, author: str, message: str) -> str:
        """Try to commit as the next number: `done`, `empty`, or `taken` when another commit has that number."""
        with self._chain.draft() as path:
            key, said = self._frozen(session, author, message)
            self._reached(STEPS[0])
            attempt = _Attempt(key, said, path)
            try:
                with self._chain.database.reading() as db:
                    _must_fit(db, key)
                    missing = list(islice(self._absent(_added(db, key)), _NAMED))
                if missing:
                    raise Unstored(missing, "the store does not have these originals")
                if said.changes:
                    self._happen(attempt)
            except _Taken:
                self._thaw(key)
                return "taken"
            except BaseException:
                if not attempt.doubtful:
                    self._thaw(key)
                raise
            if not said.changes:
                self._thaw(key)
            return "done" if said.changes else "empty"

    def _spare(self, session: str) -> int:
        """Forget that a session adds what others have added meanwhile, if it says nothing of it that they do not; how much that was."""
        with self._chain.database.writing() as db:
            rows = db.execute(
                "SELECT s.hash, s.state, r.since, r.state FROM sessions JOIN staged s ON s.session = key JOIN records r ON r.hash = s.hash"
                " WHERE sessions.id = ? AND s.based_on = 0 AND s.state IS NOT NULL",
                (session,),
            ).fetchall()
            spare = [
                (session, hash)
                for hash, mine, since, theirs in rows
                if adds_nothing(from_state(hash.hex(), 0, mine), from_state(hash.hex(), since, theirs))
            ]
            db.executemany("DELETE FROM staged WHERE session = (SELECT key FROM sessions WHERE id = ?) AND hash = ?", spare)
        return len(spare)

    def _happen(self, attempt: _Attempt) -> None:
        """Store the object, then apply it; a large one is applied meanwhile, and becomes live when the store has it."""
        if attempt.said.changes < BESIDE:
            stored = self._kept(attempt)
            self._apply(attempt, lambda: stored)
            return
        with ThreadPoolExecutor(1) as beside:
            self._apply(attempt, beside.submit(self._kept, attempt).result)

    def _frozen(self, session: str, author: str, message: str) -> tuple[int, Header]:
        """Close the session to changes, and say what its commit will say."""
        n, previous = self._chain.newest()
        with self._chain.database.writing() as db:
            row = db.execute("SELECT key, revision, author FROM sessions WHERE id = ?", (session,)).fetchone()
            if row is None:
                raise NoSession(f"no session {session} is open")
            (count,) = db.execute("SELECT count(*) FROM staged WHERE session = ?", (row[0],)).fetchone()
            if count > CHANGES:
                raise TooMuch(f"a commit changes at most {CHANGES} records")
            db.execute("UPDATE sessions SET committing = ? WHERE key = ?", (n + 1, row[0]))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return row[0], Header(n + 1, previous, self._lease.incarnation, session, row[1], author or row[2], message, now, count)

    def _thaw(self, key: int) -> None:
        with self._chain.database.writing() as db:
            db.execute("UPDATE sessions SET committing = NULL WHERE key = ?", (key,))

    def _kept(self, attempt: _Attempt) -> Object:
        """Store the object and read it back; what is to be known of it. Raise `_Taken` if another commit has that number."""
        said = attempt.said
        with self._chain.database.reading() as db:
            made = Object(compose(db, attempt.key, said, attempt.path), counted(db, attempt.key))
        self._reached(STEPS[1])
        attempt.doubtful = True
        with attempt.path.open("rb") as file:
            note = {"sha256": made.hash, "session": said.session}
            self._chain.store.put(key(said.n), file, type="application/zstd", note=note, create=True)
        self._reached(STEPS[2])
        with self._chain.draft() as copy:
            there = self._chain.fetch(said.n, copy)
        if there is None:
            raise StoreLied(f"commit {said.n} was stored, and is not there")
        if there != made.hash:
            raise _Taken
        self._lease.still()
        self._reached(STEPS[3])
        return made

    def _apply(self, attempt: _Attempt, stored: Callable[[], Object]) -> None:
        with self._chain.database.writing() as db:
            apply(db, attempt.key, attempt.said, stored)
            self._reached(STEPS[4])
        self._reached(STEPS[5])

    def _done(self, session: str) -> Commit | None:
        with self._chain.database.reading() as db:
            row = db.execute(f"SELECT {_FIELDS} FROM commits WHERE session = ?", (session,)).fetchone()
        return _commit(row) if row else None

    def _fetched(self, commit: Commit, path: Path) -> None:
        hash = self._chain.fetch(commit.n, path)
        if hash != commit.hash:
            raise StoreLied(f"the store does not have commit {commit.n} as it was")


class _Taken(Exception):
    """Another commit has that number."""


@dataclass
class _Attempt:
    """A frozen session on its way to be the commit of that header; `doubtful` once only the store knows whether it has happened."""

    key: int
    said: Header
    path: Path
    doubtful: bool = False


_FIELDS = "n, lower(hex(hash)), session, author, message, time, changes"


def _commit(row: tuple[object, ...]) -> Commit:
    return Commit(*row)  # type: ignore[arg-type]


def _must_fit(db: sqlite3.Connection, key: int) -> None:
    changed = conflicts(db, key)
    if changed:
        raise Conflict(changed, "changed by others meanwhile")
    taken = aliases_taken(db, key)
    if taken:
        raise Conflict(taken, "an alias that another record has")


def _added(db: sqlite3.Connection, key: int) -> Iterator[str]:
    """The records of a session that are not live yet."""
    rows = db.execute(
        "SELECT hash FROM staged s WHERE session = ? AND state IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM records r WHERE r.hash = s.hash) ORDER BY hash",
        (key,),
    )
    return (hash.hex() for (hash,) in rows)


def _reverse(line: Line, n: int) -> Change:
    """What undoes a line of commit `n`, as long as nobody changed the record since."""
    before = None if line.was is None else from_state(line.hash, line.based_on, line.was)
    return Change(line.hash, before, 0 if line.state is None else n)
