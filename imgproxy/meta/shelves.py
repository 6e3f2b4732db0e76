"""Where a search looks: what is live, what was superseded lately, and what is staged in a session. One SQL statement each.

Each shelf yields `(place, number, hash, version, state)` in the order that is asked for; place and number together are unique in one
view, and are where the next page goes on. Words are found by the full-text index where there is one to ask, else by looking for the same
tokens in the same texts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import TypeAlias

from imgproxy.meta.query import UNBOUNDED, Needle, Query, needles, seconds, sizes

Row: TypeAlias = tuple[int, int, bytes, int, str]

COUNTED = 10_000
"""Up to so many are counted one by one; who finds more says "at least"."""

_LAST = 2**24 - 1
_NEW = 2**62
_EXACT_MARKS = ("_t_", "_y_", "_o_")


@dataclass(frozen=True, slots=True)
class View:
    """What one reader sees: a moment (`past`: not the newest), and the states of a session (0: of none) on top; from a place on."""

    query: Query
    moment: int
    past: bool = False
    session: int = 0
    after: tuple[int, int] | None = None


class _Where:
    """Conditions of a statement, with their values."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.values: list[object] = []

    def add(self, text: str, *values: object) -> None:
        self.texts.append(text)
        self.values += values

    def __str__(self) -> str:
        return " AND ".join(self.texts)


def live(db: sqlite3.Connection, view: View, most: int) -> Iterator[Row]:
    """What is live, as far as it was so at the view's moment."""
    found = needles(view.query)
    taken = view.query.order == "taken"
    walked = not taken and _many(db, view, found, most)
    indexed = bool(found) and not walked and not _pointed(view.query)
    where = _Where()
    if indexed:
        where.add("w.words MATCH ? AND w.rowid BETWEEN ? AND ?", _expression(found), *_span(view))
    else:
        where.add(f"{'+' * walked}r.id BETWEEN ? AND ?", *_span(view))
        _contains(where, found)
    _facts(where, view.query)
    where.add("r.since <= ?", view.moment)
    _not_staged(where, view, "r.hash")
    source = "words w CROSS JOIN records r ON r.id = w.rowid" if indexed else "records r"
    place = ("w.rowid" if indexed else "r.id") if taken else ("r.seq" if walked else "+r.seq")
    if not taken:
        _goes_on(where, view, place, "0")
    return _rows(db, f"SELECT {place}, 0, r.hash, r.since, r.state FROM {source}", where, _ordered(view, [place], most))


def past(db: sqlite3.Connection, view: View, most: int) -> Iterator[Row]:
    """What was live at the view's moment, and was superseded since."""
    where = _Where()
    place = "r.id" if view.query.order == "taken" else "r.seq"
    where.add("r.until > ? AND r.since <= ?", view.moment, view.moment)
    _dates(where, view.query, "r.id", 24)
    _contains(where, needles(view.query))
    _facts(where, view.query)
    _goes_on(where, view, place, "0")
    _not_staged(where, view, "r.hash")
    return _rows(db, f"SELECT {place}, 0, r.hash, r.since, r.state FROM past r", where, _ordered(view, [place], most))


def staged(db: sqlite3.Connection, view: View, most: int) -> Iterator[Row]:
    """What is staged in the view's session."""
    where = _Where()
    by_date = f"(r.second << 24) + {_LAST}"
    place = by_date if view.query.order == "taken" else f"coalesce((SELECT seq FROM records l WHERE l.hash = r.hash), {_NEW})"
    where.add("r.session = ? AND r.state IS NOT NULL", view.session)
    _dates(where, view.query, "r.second", 0)
    _contains(where, needles(view.query))
    _facts(where, view.query)
    _goes_on(where, view, place, "r.number")
    ordered = _ordered(view, [place, "r.number"], most)
    return _rows(db, f"SELECT {place}, r.number, r.hash, r.based_on, r.state FROM staged r", where, ordered)


def count(db: sqlite3.Connection, view: View) -> tuple[int, bool]:
    """How many there are at the newest moment, and whether that is exact or at least so many; never by looking at a million."""
    found = needles(view.query)
    known = _known(db, view, found)
    if known is not None:
        return known, True
    most = COUNTED + 1
    number, exact = _counted_live(db, view, found, most)
    if view.session:
        number += sum(1 for _ in staged(db, view, most))
    return min(number, COUNTED), exact and number <= COUNTED


def _known(db: sqlite3.Connection, view: View, found: list[Needle]) -> int | None:
    """How many there are, where that is written down: of all, and of one tag, type or orientation."""
    query = view.query
    if view.session or len(found) > 1 or query.words or query.taken_from or query.taken_to or query.md5 or query.dkey:
        return None
    mark = found[0].texts[0] if found else ""
    if found and (len(found[0].texts) > 1 or not mark.startswith(_EXACT_MARKS)):
        return None
    row = db.execute("SELECT number FROM counts WHERE mark = ?", (mark,)).fetchone()
    return int(row[0]) if row else 0


def _counted_live(db: sqlite3.Connection, view: View, found: list[Needle], most: int) -> tuple[int, bool]:
    """Look at so many candidates of the index at most, and count those that fit."""
    fits, among = _Where(), _Where()
    _facts(fits, view.query)
    _not_staged(fits, view, "r.hash")
    indexed = bool(found) and not _pointed(view.query)
    _dates(among, view.query, "w.rowid" if indexed else "r.id", 24)
    if indexed:
        among.add("w.words MATCH ?", _expression(found))
    else:
        _contains(fits, found)
    if _pointed(view.query):
        among, fits = fits, among
    source = "words w" if indexed else "records r"
    if indexed and fits.texts:
        source += " CROSS JOIN records r ON r.id = w.rowid"
    candidates = f"SELECT {str(fits) or '1'} AS fits FROM {source} WHERE {str(among) or '1'} LIMIT {most}"
    looked, number = db.execute(f"SELECT count(*), total(fits) FROM ({candidates})", fits.values + among.values).fetchone()
    return int(number), looked < most


def _many(db: sqlite3.Connection, view: View, found: list[Needle], most: int) -> bool:
    """Whether so much matches that a page is found sooner by walking in order of arrival than by sorting.

    To sort is to look at every match; to walk is to look at every record until a page is full, which is the sooner the more of them match.
    """
    if _pointed(view.query):
        return False
    (total,) = db.execute("SELECT coalesce(max(number), 0) FROM counts WHERE mark = ''").fetchone()
    enough = isqrt(total * most) + 1
    where = _Where()
    where.add("rowid BETWEEN ? AND ?", *_span(view))
    if found:
        where.add("words MATCH ?", _expression(found))
    table = "words" if found else "records"
    (number,) = db.execute(f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {where} LIMIT {enough})", where.values).fetchone()
    return bool(number == enough)


def _span(view: View) -> tuple[int, int]:
    """The first and the last place in the order of dates that is wanted: by the dates asked for, and by where the page before ended.

    One range, because the full-text index makes use of one only.
    """
    first, last = (second << 24 for second in seconds(view.query))
    last += _LAST
    if view.query.order != "taken" or view.after is None:
        return first, last
    place, number = view.after
    if view.query.oldest:
        return max(first, place + 1), last
    return first, min(last, place if number else place - 1)


def _rows(db: sqlite3.Connection, select: str, where: _Where, order: str) -> Iterator[Row]:
    yield from db.execute(f"{select} WHERE {where} {order}", where.values)


def _ordered(view: View, places: list[str], most: int) -> str:
    way = "ASC" if view.query.oldest else "DESC"
    return f"ORDER BY {', '.join(f'{place} {way}' for place in places)} LIMIT {most}"


def _pointed(query: Query) -> bool:
    """Whether the query points at very few records, by an index of its own."""
    return bool(query.md5 or (query.domain and query.dkey))


def _dates(where: _Where, query: Query, column: str, shift: int) -> None:
    if query.taken_from or query.taken_to:
        first, last = seconds(query)
        where.add(f"{column} BETWEEN ? AND ?", first << shift, (last << shift) + (1 << shift) - 1)


def _contains(where: _Where, found: list[Needle]) -> None:
    """The same as the index says, by looking at the tokens."""
    for needle in found:
        ways = " OR ".join("instr(r.text, ?)" for _ in needle.texts)
        where.add(f"({ways})", *(f" {text}" if needle.open else f" {text} " for text in needle.texts))


def _facts(where: _Where, query: Query) -> None:
    for column, least, most in sizes(query):
        if (least, most) != UNBOUNDED:
            where.add(f"r.{column} BETWEEN ? AND ?", least, most)
    if query.md5:
        where.add("r.md5 = ?", bytes.fromhex(query.md5))
    if query.domain:
        where.add("r.domain = ?", query.domain)
    if query.dkey:
        where.add("r.dkey = ?", query.dkey)


def _goes_on(where: _Where, view: View, place: str, number: str) -> None:
    """After the last result of the page before."""
    if view.after is not None:
        where.add(f"({place}, {number}) {'>' if view.query.oldest else '<'} (?, ?)", *view.after)


def _not_staged(where: _Where, view: View, column: str) -> None:
    if view.session:
        where.add(f"{column} NOT IN (SELECT hash FROM staged WHERE session = ?)", view.session)


def _expression(found: list[Needle]) -> str:
    """What is to be found, as the full-text index wants it said; tokens hold no quotes."""
    return " AND ".join("(" + " OR ".join(f'"{text}"{" *" if needle.open else ""}' for text in needle.texts) + ")" for needle in found)
