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
from imgproxy.meta.staging import Change, binary

_CHUNK = 20_000
_ASKED = 250


@dataclass(frozen=True, slots=True)
class Imported:
    """How many records were staged, and how many were live or staged before."""

    new: int
    known: int


def bulk(database: Database, session: Session, records: Iterable[Record], told: Callable[[Imported], object] = lambda _: None) -> Imported:
    """Stage the records that are neither live nor in the session; `told` how far it is, every twenty thousand."""
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
    found: set[str] = set()
    left = iter(hashes)
    with database.reading() as db:
        while keys := [binary(hash) for hash in islice(left, _ASKED)]:
            marks = ", ".join("?" * len(keys))
            for statement, values in (
                (f"SELECT hash FROM records WHERE hash IN ({marks})", keys),
                (f"SELECT hash FROM staged WHERE session = ? AND hash IN ({marks})", [session.key, *keys]),
            ):
                found.update(hash.hex() for (hash,) in db.execute(statement, values))
    return found


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    left = iter(records)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk
