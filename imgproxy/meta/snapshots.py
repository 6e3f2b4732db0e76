"""Snapshots: the whole database as one object, so that a restore has few commits to apply.

    snapshots/<n>   zstd of a line of JSON (n, the hash of commit n, schema, size and SHA-256 of the database) and the database

A snapshot is never needed: the commits alone say everything. What is of this copy alone (sessions, superseded states) is not in it.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from imgproxy.errors import StoreLied
from imgproxy.meta.chain import Chain, Reached, unheard
from imgproxy.meta.database import MIGRATIONS, connect, moment, note, noted, translated
from imgproxy.meta.journal import save, sha256
from imgproxy.meta.packed import packing, unpacking
from imgproxy.stores import Store

STEPS = ("snapshot: composed", "snapshot: stored")
"""What `reached` is told, in this order."""

_LINE = 65_536
_COPY = 2**20
_OF_THIS_COPY = ("sessions", "staged", "past", "notes")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot says of itself: its moment, the hash of that commit, and the database that follows."""

    n: int
    commit: str
    schema: int
    bytes: int
    sha256: str


def key(n: int) -> str:
    """Where the snapshot of moment `n` lies in the store."""
    return f"snapshots/{n:012}"


def numbers(store: Store, most: int | None = None) -> list[int]:
    """The moments of the snapshots that the store lists, the newest first; an old list only costs time."""
    found = (item.key.removeprefix("snapshots/") for item in store.list("snapshots/"))
    return sorted((int(name) for name in found if name.isdigit() and (most is None or int(name) <= most)), reverse=True)


class Snapshots:
    """The snapshots of one repository, made from one copy: on demand, and when `every` so many commits have passed."""

    def __init__(self, chain: Chain, *, every: int = 200, reached: Reached = unheard) -> None:
        self._chain = chain
        self._every = every
        self._reached = reached

    def due(self) -> bool:
        """Whether it is time for one; whoever runs jobs asks now and then."""
        with self._chain.database.reading() as db:
            return moment(db) - int(noted(db, "snapshot")) >= self._every

    def take(self) -> int:
        """Store a snapshot of this moment, and return its number; nobody waits for it, neither readers nor writers."""
        with self._chain.draft() as copy, self._chain.draft() as packed:
            said = _copied(self._chain.database.path, copy)
            with copy.open("rb") as plain, packed.open("wb") as file, packing(file) as out:
                out.write(json.dumps(asdict(said)).encode() + b"\n")
                while chunk := plain.read(_COPY):
                    out.write(chunk)
            self._reached(STEPS[0])
            self._put(said, packed)
        with self._chain.database.writing() as db:
            note(db, "snapshot", max(said.n, int(noted(db, "snapshot"))))
        self._reached(STEPS[1])
        return said.n

    def _put(self, said: Snapshot, packed: Path) -> None:
        """Store it unless a whole one of that number is there: a broken one is replaced, for it is no use to anybody."""
        with packed.open("rb") as file:
            if self._chain.store.put(key(said.n), file, type="application/zstd", create=True):
                return
        with self._chain.draft() as old:
            try:
                unpack(self._chain.store, said.n, old)
            except StoreLied:
                with packed.open("rb") as file:
                    self._chain.store.put(key(said.n), file, type="application/zstd")


def unpack(store: Store, n: int, path: Path) -> Snapshot:
    """Make a file the database of a snapshot; `StoreLied` if that is damaged, of another number, or written by a newer version."""
    blob = store.get(key(n), fresh=True)
    if blob is None:
        raise StoreLied(f"snapshot {n} is gone")
    with blob, unpacking(blob.file) as plain:
        said = _said(plain)
        if said.n != n or not 1 <= said.schema <= len(MIGRATIONS):
            raise StoreLied(f"snapshot {n} is not for us")
        if save(plain, path) != said.sha256:
            raise StoreLied(f"snapshot {n} is damaged")
    return said


def _copied(source: Path, copy: Path) -> Snapshot:
    """Write the database of this moment to a new file, and leave out what is of this copy alone."""
    with translated():
        with closing(connect(source)) as db:
            db.execute("VACUUM INTO ?", (str(copy),))
        with closing(sqlite3.connect(copy, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")
            db.execute("PRAGMA secure_delete = ON")
            for table in _OF_THIS_COPY:
                db.execute(f"DELETE FROM {table}")
            n = moment(db)
            note(db, "horizon", n)
            note(db, "snapshot", n)
            row = db.execute("SELECT hash FROM commits WHERE n = ?", (n,)).fetchone()
            (schema,) = db.execute("PRAGMA user_version").fetchone()
    with copy.open("rb") as file:
        return Snapshot(n, row[0].hex() if row else "", schema, copy.stat().st_size, sha256(file))


def _said(plain: BinaryIO) -> Snapshot:
    try:
        return Snapshot(**json.loads(plain.readline(_LINE)))
    except (ValueError, TypeError) as error:
        raise StoreLied("a snapshot begins with what is no header") from error
