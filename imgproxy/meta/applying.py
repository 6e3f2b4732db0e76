"""A staged commit becomes live: one transaction, the same for a commit made here and for one that came from the store.

Everything that is written here follows from the commits alone, in their order: so every copy gives a record the same place, and a
place in a long answer means the same on each. Cost is proportional to the changes.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from imgproxy.errors import Forked, StoreLied
from imgproxy.meta.database import note, noted
from imgproxy.meta.index import gathering, roomy
from imgproxy.meta.journal import Header, Line, lines
from imgproxy.meta.record import Record, from_state
from imgproxy.meta.sessions import drop
from imgproxy.meta.staging import Change, stage
from imgproxy.meta.tokens import marks_of

KEPT_SECONDS = 900.0
"""For so long after a commit a search that began before it may be read on."""

KEPT_STATES = 200_000
"""A commit that replaces more states than this keeps none of them: searches that began before it end there."""

CHANGES = 2**24 - 2
"""The most records that one commit may change."""

_KEPT_COMMITS = 10_000
_ROWS = 1_000
_TABLES = (
    "CREATE TEMP TABLE IF NOT EXISTS replaced (id INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS arriving (staged INTEGER PRIMARY KEY, second INTEGER, seq INTEGER, id INTEGER)",
    "CREATE TEMP TABLE IF NOT EXISTS placed (id INTEGER PRIMARY KEY, staged INTEGER, seq INTEGER)",
    "DELETE FROM replaced",
    "DELETE FROM arriving",
    "DELETE FROM placed",
)
_ROW = "md5, phash, domain, dkey, width, height, bytes"
_STEPS = (
    """
    INSERT INTO arriving
    SELECT s.number, s.second, coalesce(r.seq, (:n << 24) + row_number() OVER (ORDER BY s.number)), iif(r.id >> 24 = s.second, r.id, NULL)
    FROM staged s LEFT JOIN records r ON r.hash = s.hash WHERE s.session = :key AND s.state IS NOT NULL
    """,
    "INSERT INTO placed SELECT id, staged, seq FROM arriving WHERE id IS NOT NULL",
    """
    INSERT INTO placed
    SELECT coalesce((SELECT max(id) + 1 FROM records WHERE id BETWEEN second << 24 AND (second << 24) + 16777215), second << 24)
           + row_number() OVER (PARTITION BY second ORDER BY staged) - 1, staged, seq
    FROM arriving WHERE id IS NULL
    """,
    "DELETE FROM records WHERE id IN replaced",
    f"""
    INSERT INTO records (id, hash, since, seq, {_ROW}, text, state)
    SELECT p.id, hash, :n, p.seq, {_ROW}, text, state FROM placed p CROSS JOIN staged ON number = p.staged ORDER BY p.id
    """,
)
_KEEP = f"""
    INSERT INTO past (id, hash, since, until, seq, {_ROW}, text, state)
    SELECT id, hash, since, :n, seq, {_ROW}, text, state FROM records WHERE id IN replaced ORDER BY id
"""
_COUNT = "INSERT INTO counts VALUES (?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number"


class Object(NamedTuple):
    """What is known of a commit once the store has it: its hash, and by how much it changes each count."""

    hash: str
    counts: Counter[str]


def apply(db: sqlite3.Connection, key: int, header: Header, stored: Callable[[], Object]) -> None:
    """Make what is staged under `key` live as the commit of that header, and close the session that it came from.

    What is `stored` is asked for at the end: it may be on its way until then.
    """
    with roomy(db, header.changes):
        _replace(db, key, header)
        _part(db, header, key)
        _settle(db, key, header)
        drop(db, key)
        _prune(db, header)
        hash, counts = stored()
        db.executemany(_COUNT, [count for count in counts.items() if count[1]])
        db.execute("DELETE FROM counts WHERE number = 0")
        _enter(db, header, hash)


def counted(db: sqlite3.Connection, key: int) -> Counter[str]:
    """By how much what is staged under `key` changes the count of each mark, and of all (the empty one), before it is live."""
    counts = _marks(db, "SELECT text FROM staged WHERE session = ? AND state IS NOT NULL", key)
    counts.subtract(_marks(db, "SELECT r.text FROM staged s CROSS JOIN records r ON r.hash = s.hash WHERE s.session = ?", key))
    return counts


def _replace(db: sqlite3.Connection, key: int, header: Header) -> None:
    steps = {"n": header.n, "key": key}
    for statement in _TABLES:
        db.execute(statement)
    db.execute("INSERT INTO replaced SELECT r.id FROM staged s CROSS JOIN records r ON r.hash = s.hash WHERE s.session = :key", steps)
    _keep(db, header.n)
    with gathering(db, key, header.changes):
        for statement in _STEPS:
            db.execute(statement, steps)


def load(db: sqlite3.Connection, header: Header, path: Path) -> int:
    """Stage a commit that came from the store, under a key of its own, and make sure that it fits."""
    db.execute("INSERT INTO sessions (id, name, author, opened) VALUES (?, '', '', '')", (f"incoming {header.n}",))
    (key,) = db.execute("SELECT last_insert_rowid()").fetchone()
    with roomy(db, header.changes):
        stage(db, key, (Change(line.hash, _record(line), line.based_on) for line in lines(path)))
    if conflicts(db, key) or aliases_taken(db, key):
        raise Forked(f"commit {header.n} does not fit what is here")
    return int(key)


def conflicts(db: sqlite3.Connection, key: int) -> list[str]:
    """The records of a session whose live version is not the one that their changes are based on."""
    rows = db.execute(
        "SELECT s.hash FROM staged s LEFT JOIN records r ON r.hash = s.hash"
        " WHERE s.session = ? AND s.based_on != coalesce(r.since, 0) ORDER BY s.number LIMIT 1000",
        (key,),
    )
    return sorted(hash.hex() for (hash,) in rows)


def aliases_taken(db: sqlite3.Connection, key: int) -> list[str]:
    """The records of a session whose alias another record has, or will have."""
    rows = db.execute(
        """
        SELECT hash FROM staged s INDEXED BY staged_by_alias WHERE session = ?1 AND domain IS NOT NULL AND (
            EXISTS (SELECT 1 FROM staged t WHERE t.session = ?1 AND t.domain = s.domain AND t.dkey = s.dkey AND t.hash != s.hash)
            OR EXISTS (
                SELECT 1 FROM records r WHERE r.domain = s.domain AND r.dkey = s.dkey AND r.hash != s.hash
                AND NOT EXISTS (SELECT 1 FROM staged u WHERE u.session = ?1 AND u.hash = r.hash)
            )
        ) LIMIT 1000
        """,
        (key,),
    )
    return sorted(hash.hex() for (hash,) in rows)


def _marks(db: sqlite3.Connection, statement: str, key: int) -> Counter[str]:
    """How many texts have each mark that is counted; the empty one stands for all."""
    found: Counter[str] = Counter()
    rows = db.execute(statement, (key,))
    while some := rows.fetchmany(_ROWS):
        found[""] += len(some)
        found.update(chain.from_iterable(marks_of(text) for (text,) in some))
    return found


def _keep(db: sqlite3.Connection, n: int) -> None:
    """Keep the states about to be replaced for those who are reading them page by page."""
    (count,) = db.execute("SELECT count(*) FROM replaced").fetchone()
    if count <= KEPT_STATES:
        db.execute(_KEEP, {"n": n})
    else:
        note(db, "horizon", n)


def _part(db: sqlite3.Connection, header: Header, key: int) -> None:
    """Enter the deleted on the list of originals to let go of, and take those off it that came back; a large commit has mostly neither."""
    if db.execute("SELECT 1 FROM gone LIMIT 1").fetchone():
        db.execute("DELETE FROM gone WHERE hash IN (SELECT hash FROM staged WHERE session = ? AND state IS NOT NULL)", (key,))
    (staying,) = db.execute("SELECT count(*) FROM arriving").fetchone()
    if staying < header.changes:
        db.execute("INSERT OR REPLACE INTO gone SELECT hash, ? FROM staged WHERE session = ? AND state IS NULL", (header.n, key))


def _enter(db: sqlite3.Connection, header: Header, hash: str) -> None:
    entry = (header.n, bytes.fromhex(hash), header.session, header.author, header.message, header.time, header.changes, time.time())
    db.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)", entry)


def _settle(db: sqlite3.Connection, key: int, header: Header) -> None:
    """Close the session that this commit was made of, if it is here; what was changed in it since goes on from this commit."""
    row = db.execute("SELECT key, revision FROM sessions WHERE id = ? AND key != ?", (header.session, key)).fetchone()
    if row is None:
        return
    if row[1] == header.revision:
        drop(db, row[0])
        return
    db.execute(
        "UPDATE staged SET based_on = ? WHERE session = ? AND hash IN (SELECT hash FROM staged WHERE session = ?)",
        (header.n, row[0], key),
    )
    db.execute("UPDATE sessions SET id = ?, committing = NULL WHERE key = ?", (token_hex(8), row[0]))


def _prune(db: sqlite3.Connection, header: Header) -> None:
    """Drop states that nobody can be reading any more, no more of them than the commit is large."""
    horizon = int(noted(db, "horizon"))
    old = (horizon, header.n, time.time() - KEPT_SECONDS)
    found = db.execute("SELECT max(n) FROM commits WHERE n > ? AND n < ? AND applied < ?", old).fetchone()[0]
    horizon = max(horizon, found or 0, header.n - _KEPT_COMMITS)
    note(db, "horizon", horizon)
    db.execute("DELETE FROM past WHERE number IN (SELECT number FROM past WHERE until <= ? LIMIT ?)", (horizon, 100 + 2 * header.changes))


def _record(line: Line) -> Record | None:
    try:
        return None if line.state is None else from_state(line.hash, line.based_on, line.state)
    except (TypeError, ValueError) as error:
        raise StoreLied("a commit has a state that is no record") from error
