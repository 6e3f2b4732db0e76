"""Many records in one session: staged by the thousand, resumable, what is there already told.

A session holds what was staged before a crash or a pause: so to resume is to say the same again into the same session, and only what is
not there yet is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from imgproxy.meta.database import Database
from imgproxy.meta.record import Record
from imgproxy.meta.sessions import Session, Sessions
from imgproxy.meta.staging import Change

_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class Imported:
    """How many records were staged, and how many were live or staged before."""

    new: int
    known: int


def bulk(database: Database, session: Session, records: Iterable[Record], told: Callable[[Imported], object] = lambda _: None) -> Imported:
    """Stage the records that are neither live nor in the session; `told` how far it is, every few thousand."""
    sessions = Sessions(database)
    new = there_before = 0
    for chunk in _chunks(records):
        there = known(database, session, (record.hash for record in chunk))
        changes = {record.hash: Change(record.hash, record, 0) for record in chunk if record.hash not in there}
        if changes:
            sessions.stage(session, changes.values())
        new += len(changes)
        there_before += len(chunk) - len(changes)
        told(Imported(new, there_before))
    return Imported(new, there_before)


def known(database: Database, session: Session, hashes: Iterable[str]) -> set[str]:
    """Which of these are live or in the session."""
    found = set()
    with database.reading() as db:
        for hash in hashes:
            key = bytes.fromhex(hash)
            row = db.execute(_KNOWN, (key, session.key)).fetchone()
            if row is not None:
                found.add(hash)
    return found


_KNOWN = "SELECT 1 FROM records WHERE hash = ?1 UNION ALL SELECT 1 FROM staged WHERE session = ?2 AND hash = ?1"


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    left = iter(records)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk
