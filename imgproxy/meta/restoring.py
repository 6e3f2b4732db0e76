"""A database out of what the store has: the newest good snapshot, and the commits after it, one by one until one is absent.

Nothing is believed unseen. A broken snapshot falls back to an older one, at last to the first commit. The chain of hashes is verified
link by link. A commit that is missing while later ones are there, or that a snapshot knew of, stops the restore: less than everything is
never called whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from imgproxy.errors import Forked, StoreLied
from imgproxy.meta.chain import Chain
from imgproxy.meta.database import Database, connect, create, migrate, moment, translated
from imgproxy.meta.journal import key
from imgproxy.meta.snapshots import numbers, unpack
from imgproxy.stores import Store

Progress = Callable[[str, int], object]
"""Told what was just done (`snapshot` or `commit`), and its number."""

_COMMITS = "SELECT n, hash, session, author, message, time, changes FROM commits ORDER BY n"
_COUNTS = "SELECT mark, number FROM counts ORDER BY mark"
_RECORDS = """
    SELECT hash, id, since, seq, md5, phash, domain, dkey, width, height, bytes, text, state FROM records ORDER BY hash
"""
_TOLD = 100


@dataclass(frozen=True, slots=True)
class Restored:
    """How a database was restored: up to which moment, from which snapshot (0: from none), past which broken ones."""

    n: int
    snapshot: int
    broken: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """What a trial restore found: differences name a commit, a mark or a record (of very many, the first); none is a proof."""

    restored: Restored
    records: int
    differences: tuple[str, ...]


def quiet(what: str, number: int) -> None:
    """Nobody watches."""


def restore(store: Store, path: Path, *, until: int | None = None, progress: Progress = quiet) -> Restored:
    """Make the database of a repository at a path where none is; of an empty store, an empty one. All at once, or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    drafts = path.with_name(f"{path.name}.drafts")
    _remove(partial)
    drafts.mkdir(parents=True, exist_ok=True)
    known = numbers(store, until)
    begun, broken = _begun(store, partial, known, progress)
    n = begun
    with closing(Database(partial)) as database:
        chain = Chain(database, store, drafts)
        while (until is None or n < until) and chain.follow(1):
            n += 1
            progress("commit", n)
    if until is None:
        _nothing_beyond(store, n, known)
    elif n < until:
        raise StoreLied(f"commit {n + 1} is not in the store")
    _into_place(partial, path)
    for left in drafts.iterdir():
        left.unlink()
    drafts.rmdir()
    return Restored(n, begun, broken)


def check(live: Database, store: Store, path: Path, *, progress: Progress = quiet) -> Proof:
    """Restore to a path where nothing is, compare with a live database at its moment, and remove what was made."""
    try:
        with live.reading() as db:
            restored = restore(store, path, until=moment(db), progress=progress)
            with translated(), closing(connect(path)) as copy:
                count, differences = _compared(db, copy)
        return Proof(restored, count, tuple(differences))
    finally:
        _remove(path)


def _begun(store: Store, partial: Path, known: list[int], progress: Progress) -> tuple[int, tuple[int, ...]]:
    """Begin with the newest snapshot that is whole and belongs to this chain, or with nothing."""
    broken = []
    for n in known:
        try:
            unpack(store, n, partial)
            with translated(), closing(connect(partial)) as db:
                migrate(db)
            with closing(Database(partial)) as database:
                Chain(database, store, partial.parent).confirm()
        except (StoreLied, Forked):
            broken.append(n)
            _remove(partial)
            continue
        progress("snapshot", n)
        return n, tuple(broken)
    create(partial)
    return 0, tuple(broken)


def _nothing_beyond(store: Store, n: int, known: list[int]) -> None:
    """Make sure that nothing in the store is newer than what was restored: or something between is lost."""
    if known and known[0] > n:
        raise StoreLied(f"commit {n + 1} is not in the store, but a snapshot of commit {known[0]} is")
    for item in store.list("commits/", after=key(n + 1)):
        raise StoreLied(f"commit {n + 1} is not in the store, but {item.key} is")


def _compared(live: Connection, copy: Connection) -> tuple[int, list[str]]:
    found: list[str] = []
    found += _differing(live, copy, _COMMITS, "commit {}")
    found += _differing(live, copy, _COUNTS, "count of {!r}")
    found += _differing(live, copy, _RECORDS, "record {}")
    copy.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    return live.execute("SELECT count(*) FROM records").fetchone()[0], found


def _differing(live: Connection, copy: Connection, statement: str, name: str) -> Iterator[str]:
    """The names of rows that are not the same in both, at most so many; both yield them in the same order."""
    told = 0
    for ours, theirs in zip_longest(live.execute(statement), copy.execute(statement)):
        if ours != theirs:
            row: tuple[Any, ...] = ours or theirs
            yield name.format(row[0].hex() if isinstance(row[0], bytes) else row[0])
            told += 1
            if told == _TOLD:
                return


def _into_place(partial: Path, path: Path) -> None:
    with translated(), closing(connect(partial)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    for kept in ("-wal", "-shm"):  # of a database that is lost: SQLite would replay its log into this one
        path.with_name(path.name + kept).unlink(missing_ok=True)
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove(path: Path) -> None:
    """Remove a database with all that SQLite keeps beside it."""
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"), path.with_name(f"{path.name}-journal")):
        name.unlink(missing_ok=True)
