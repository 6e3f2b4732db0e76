"""States that are not live yet: how a record becomes a row of `staged`, of an open session or of a commit on its way in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from imgproxy.errors import BadRecord
from imgproxy.meta.record import Record, state
from imgproxy.meta.tokens import searchable

_HASH_BYTES = 32
_YEAR_ONE = date(1, 1, 1).toordinal()


class Change(NamedTuple):
    """What becomes of one record: its new state (None: it is deleted), and the version that this was based on.

    Without `based_on` it is the version that is live when the change is staged.
    """

    hash: str
    record: Record | None
    based_on: int | None = None


Row = tuple[object, ...]

_COLUMNS = "second, md5, phash, domain, dkey, width, height, bytes, text, state"
_NAMES = _COLUMNS.split(", ")
_VALUES = ", ".join(f"?{place}" for place in range(4, 4 + len(_NAMES)))
_STAGE = f"""
    INSERT INTO staged (session, hash, based_on, {_COLUMNS})
    VALUES (?1, ?2, coalesce(?3, (SELECT since FROM records WHERE hash = ?2), 0), {_VALUES})
    ON CONFLICT (session, hash) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _NAMES)}
"""
_ADD = f"""
    INSERT OR IGNORE INTO staged (session, hash, based_on, {_COLUMNS})
    SELECT ?1, ?2, 0, {_VALUES} WHERE NOT EXISTS (SELECT 1 FROM records WHERE hash = ?2) AND ?3 = 0
"""
_NOTHING = (None,) * len(_NAMES)


def stage(db: sqlite3.Connection, session: int, changes: Iterable[Change]) -> None:
    """Put changes into a session; what is there for the same record is replaced, and stays based on what it was based on."""
    db.executemany(_STAGE, _rows(session, changes))


def new_rows(session: int, records: Iterable[Record]) -> list[Row]:
    """What `add` puts into a session: half of the work, for which no database is needed."""
    return list(_rows(session, (Change(record.hash, record, 0) for record in records)))


def add(db: sqlite3.Connection, rows: Iterable[Row]) -> int:
    """Put new records into their session, but none that is live or there already; how many they were."""
    before = db.total_changes
    db.executemany(_ADD, rows)
    return db.total_changes - before


def binary(hash: str) -> bytes:
    """A hash as SQLite keeps it, or `BadRecord` if it is none."""
    try:
        told = bytes.fromhex(hash)
    except ValueError:
        told = b""
    if len(told) != _HASH_BYTES or told.hex() != hash:
        raise BadRecord("hash", "is not 64 lowercase hex digits")
    return told


def second(time: str) -> int:
    """The second of a time since the year 1, by its own clock; 0 for no time.

    >>> second("0001-01-01T00:00:10"), second("2024-05-17T13:45:00+02:00") == second("2024-05-17T13:45:00")
    (10, True)
    """
    return _day(time[:10]) + _of_day(time[11:19]) if time else 0


@lru_cache(maxsize=16_384)
def _day(day: str) -> int:
    return (date.fromisoformat(day).toordinal() - _YEAR_ONE) * 86_400


@lru_cache(maxsize=16_384)
def _of_day(time: str) -> int:
    return int(time[:2] or 0) * 3_600 + int(time[3:5] or 0) * 60 + int(time[6:8] or 0)


def signed(phash: str) -> int | None:
    """A perceptual hash as SQLite keeps 64 bits."""
    if not phash:
        return None
    number = int(phash, 16)
    return number - 2**64 if number >= 2**63 else number


def _rows(session: int, changes: Iterable[Change]) -> Iterator[Row]:
    for hash, record, based_on in changes:
        yield (session, binary(hash), based_on, *(_NOTHING if record is None else _columns(record)))


def _columns(record: Record) -> Row:
    return (
        second(record.taken_at or record.added_at),
        bytes.fromhex(record.md5) or None,
        signed(record.phash),
        record.domain or None,
        record.dkey or None,
        record.width,
        record.height,
        record.bytes,
        searchable(record),
        state(record),
    )
