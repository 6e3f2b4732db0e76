"""The full-text index as a thing to look after: it is made of segments, and somebody has to merge them.

SQLite merges a little with every commit, and at the last moment everything at once: after an import that can be seconds, at the cost of
whoever commits then. So much at once is gathered and merged at once, and what piles up later is merged by `tend` in quiet moments.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from imgproxy.meta.database import CACHE, Database

_MANY = 5_000
_GATHERED = 2**27
_PAGES = 262_144
_GOOD_PART = 4


@contextmanager
def gathering(db: sqlite3.Connection, changes: int) -> Iterator[None]:
    """When there are very many changes, let the index gather more words before it writes, and keep more pages.

    What it wrote is merged at the end if it is a good part of the whole.
    """
    if changes <= _MANY:
        yield
        return
    db.execute(f"PRAGMA cache_size = -{_PAGES}")
    _tune(db, hashsize=_GATHERED, automerge=0)
    yield
    (total,) = db.execute("SELECT coalesce(max(number), 0) FROM counts WHERE mark = ''").fetchone()
    if changes * _GOOD_PART >= total:
        db.execute("INSERT INTO words (words) VALUES ('optimize')")
    _tune(db, hashsize=2**20, automerge=4)
    db.execute(f"PRAGMA cache_size = -{CACHE}")


def tend(database: Database, pages: int = 500) -> bool:
    """Merge about so many pages of the index, which is a matter of milliseconds; whether there is more to do."""
    with database.writing() as db:
        before = db.total_changes
        db.execute("INSERT INTO words (words, rank) VALUES ('merge', ?)", (pages,))
        return db.total_changes - before > 1


def _tune(db: sqlite3.Connection, *, hashsize: int, automerge: int) -> None:
    """Set how the index gathers and merges; the figures without tuning are 2**20 and 4."""
    db.execute("INSERT INTO words (words, rank) VALUES ('hashsize', ?)", (hashsize,))
    db.execute("INSERT INTO words (words, rank) VALUES ('automerge', ?)", (automerge,))
