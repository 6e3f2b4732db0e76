"""Many records in one session: staged by the ten thousand, resumable, what is there already told.

A session holds what was staged before a crash or a pause: so to resume is to say the same again into the same session, and only what is
not there yet is done. While one part is written down, the rows of the next are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from imgproxy.meta.database import Database
from imgproxy.meta.record import Record
from imgproxy.meta.sessions import Session, Sessions
from imgproxy.meta.staging import Row, new_rows

_CHUNK = 50_000


@dataclass(frozen=True, slots=True)
class Imported:
    """How many records were staged, and how many were live or staged before."""

    new: int
    known: int


def bulk(database: Database, session: Session, records: Iterable[Record], told: Callable[[Imported], object] = lambda _: None) -> Imported:
    """Stage the records that are neither live nor in the session; `told` how far it is, every fifty thousand."""
    sessions = Sessions(database)
    left = iter(records)
    done = Imported(0, 0)
    with ThreadPoolExecutor(1) as beside:
        ahead: list[Future[list[Row]]] = []

        def prepare() -> None:
            ahead.append(beside.submit(lambda: new_rows(session.key, islice(left, _CHUNK))))

        prepare()
        while rows := ahead.pop().result():
            new = sessions.add(session, rows, then=prepare)
            done = Imported(done.new + new, done.known + len(rows) - new)
            told(done)
    return done
