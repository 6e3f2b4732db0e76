"""Words, tags, dates and the rest, page by page, each page of the same moment.

A search begins at the newest commit and stays there: what is committed between two pages is neither lost nor shown twice. Superseded
states are kept for a quarter of an hour; a search that takes longer is told so, and begins again.
"""

from __future__ import annotations

import heapq
import sqlite3
from dataclasses import dataclass
from itertools import islice

from imgproxy.errors import BadRecord, Busy, Outdated
from imgproxy.meta import shelves
from imgproxy.meta.database import Database, moment, noted
from imgproxy.meta.fields import sayable
from imgproxy.meta.query import Cursor, Query, mark, spelled, understood
from imgproxy.meta.record import Record, from_state
from imgproxy.meta.sessions import Session
from imgproxy.meta.shelves import View
from imgproxy.meta.tokens import tag_mark, tag_of

PAGE = 1_000
"""The most results on one page."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some results, where to go on (empty: nowhere), and how many there are in all: exactly, or at least."""

    records: tuple[Record, ...]
    cursor: str
    total: int
    exact: bool
    moment: int


class Search:
    """Searches in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, query: Query, *, most: int = 50, cursor: str = "", session: Session | None = None) -> Page:
        """A page of results; `cursor` is the one that the page before told.

        Raise `Outdated` if the moment of that cursor is no longer kept, `Busy` if this copy has not reached it.
        """
        if not 1 <= most <= PAGE:
            raise BadRecord("most", f"is not between 1 and {PAGE}")
        asked = mark(query, session.id if session else "")
        begun = understood(cursor) if cursor else None
        if begun is not None and begun.query != asked:
            raise BadRecord("cursor", "belongs to another search")
        with self._database.reading() as db:
            now = moment(db)
            at = now if begun is None else _kept(db, begun.moment, now)
            view = View(query, at, at < now, session.key if session else 0, begun.after if begun else None)
            total, exact = (begun.total, begun.exact) if begun else shelves.count(db, view)
            rows = _rows(db, view, most + 1)
        after = Cursor(asked, at, rows[most - 1][:2], total, exact) if len(rows) > most else None
        records = tuple(from_state(hash.hex(), version, state) for _, _, hash, version, state in rows[:most])
        return Page(records, spelled(after) if after else "", total, exact, at)

    def find(self, domain: str, dkey: str) -> Record | None:
        """The live record of an alias; None if there is none."""
        if not (sayable(domain) and sayable(dkey)):
            return None
        with self._database.reading() as db:
            row = db.execute("SELECT hash, since, state FROM records WHERE domain = ? AND dkey = ?", (domain, dkey)).fetchone()
        return from_state(row[0].hex(), *row[1:]) if row else None

    def tags(self, beginning: str = "", most: int = 100) -> list[tuple[str, int]]:
        """Tags and how many live records have each: those that begin like this, in order of the alphabet; or the commonest of all."""
        if not sayable(beginning):
            return []
        first = tag_mark(beginning)
        order = "mark" if beginning else "number DESC, mark"
        statement = f"SELECT mark, number FROM counts WHERE mark BETWEEN ? AND ? ORDER BY {order} LIMIT ?"
        with self._database.reading() as db:
            return [(tag_of(mark), number) for mark, number in db.execute(statement, (first, first + "\U0010ffff", most))]


def _rows(db: sqlite3.Connection, view: View, most: int) -> list[shelves.Row]:
    """The next rows of all shelves, merged in order."""
    sources = [shelves.live(db, view, most)]
    if view.past:
        sources.append(shelves.past(db, view, most))
    if view.session:
        sources.append(shelves.staged(db, view, most))
    return list(islice(heapq.merge(*sources, key=lambda row: row[:2], reverse=not view.query.oldest), most))


def _kept(db: sqlite3.Connection, begun: int, now: int) -> int:
    """The moment of a search that goes on, if it is still kept here."""
    if begun > now:
        raise Busy("this copy has not yet reached the moment of that search")
    if begun < now and begun < int(noted(db, "horizon")):
        raise Outdated("that search began too long ago: begin again")
    return begun
