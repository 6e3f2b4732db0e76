"""The indexes as a thing to look after: made anew where very much arrives, and tended in quiet moments.

The full-text index is made of segments, and somebody has to merge them. SQLite merges a little with every commit, and at the last moment
everything at once: after an import that can be seconds, at the cost of whoever commits then. So much at once is gathered and merged at
once, and what piles up later is merged by `tend`. To make indexes anew of a million records takes half the time of putting a million
entries each into its place.

An index that was made anew is one large piece, and counts as no older than the small ones that come next: the eighth small commit would
merge it with them, which for a million records takes it four seconds. So from then on SQLite lets more pieces lie, and `tend` comes first.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from imgproxy.meta.database import CACHE, Database

MANY = 5_000
"""Fewer changes than this are nothing special."""

_PIECES = 500
_GOOD_PART = 4
_GATHERED = 2**29
_ROOM = 3 * _GATHERED
_PART_OF_MEMORY = 16
_SAMPLE = 1_000


@contextmanager
def roomy(db: sqlite3.Connection, changes: int) -> Iterator[None]:
    """When there are very many changes, keep more pages in memory meanwhile."""
    if changes <= MANY:
        yield
        return
    db.execute(f"PRAGMA cache_size = -{_room() // 1024}")
    yield
    db.execute(f"PRAGMA cache_size = -{CACHE}")


@contextmanager
def gathering(db: sqlite3.Connection, session: int, changes: int) -> Iterator[None]:
    """When there are very many changes, let the full-text index gather more words before it writes; the other indexes may wait.

    What it wrote is merged at the end if it is a good part of the whole. If nearly all of what they hold is new, all of them are made anew.
    """
    if changes <= MANY:
        yield
        return
    (before,) = db.execute("SELECT coalesce(max(number), 0) FROM counts WHERE mark = ''").fetchone()
    _tune(db, hashsize=min(_GATHERED, _room()), automerge=0)
    anew = changes >= before * _GOOD_PART
    dropped = _dropped(db, session) if anew else []
    yield
    for statement in dropped:
        db.execute(statement)
    if anew:
        db.execute("INSERT INTO words (words) VALUES ('rebuild')")
    elif changes * _GOOD_PART >= before:
        db.execute("INSERT INTO words (words) VALUES ('optimize')")
    _tune(db, hashsize=2**20, automerge=4)
    db.execute("INSERT INTO words (words, rank) VALUES ('crisismerge', ?)", (_PIECES,))


def tend(database: Database, pages: int = 500) -> bool:
    """Merge about so many pages of the index, which is a matter of milliseconds; whether there is more to do."""
    with database.writing() as db:
        before = db.total_changes
        db.execute("INSERT INTO words (words, rank) VALUES ('merge', ?)", (pages,))
        return db.total_changes - before > 1


def _dropped(db: sqlite3.Connection, session: int) -> list[str]:
    """Drop the indexes of what is live, but none that what is staged has nothing for, and what keeps the words level.

    The statements that make them again.
    """
    found = db.execute("SELECT type, name, sql FROM sqlite_schema WHERE type IN ('index', 'trigger') AND tbl_name = 'records'").fetchall()
    wanted = [(type, name, statement) for type, name, statement in found if type == "trigger" or _filled(db, session, statement)]
    for type, name, _ in wanted:
        db.execute(f"DROP {type} {name}")
    return [statement for _, _, statement in wanted]


def _filled(db: sqlite3.Connection, session: int, statement: str) -> bool:
    """Whether the first of what is staged has something for an index."""
    part = statement.partition(" WHERE ")[2] or "1"
    sample = f"SELECT * FROM staged WHERE session = ? ORDER BY number LIMIT {_SAMPLE}"
    return db.execute(f"SELECT 1 FROM ({sample}) WHERE {part} LIMIT 1", (session,)).fetchone() is not None


def _room() -> int:
    """So many bytes of memory are well spent on a large commit: a gigabyte and a half, but less where there is little."""
    return min(_ROOM, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _PART_OF_MEMORY)


def _tune(db: sqlite3.Connection, *, hashsize: int, automerge: int) -> None:
    """Set how the index gathers and merges; the figures without tuning are 2**20 and 4."""
    db.execute("INSERT INTO words (words, rank) VALUES ('hashsize', ?)", (hashsize,))
    db.execute("INSERT INTO words (words, rank) VALUES ('automerge', ?)", (automerge,))
