"""Open the local database; if there is none, or a damaged one, restore it from the store.

A damaged file is moved aside, not deleted: open sessions may still be read from it by hand. One process does this, all others of the
node wait for it.
"""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Literal

from imgproxy.errors import WordsLost
from imgproxy.meta.database import Database, connect, migrate, note, noted, sound, translated
from imgproxy.meta.restoring import Progress, Restored, quiet, restore
from imgproxy.stores import Store


@dataclass(frozen=True, slots=True)
class Booted:
    """The database, and how it came about; `moved` is where a damaged one lies now, and is to be said loudly."""

    database: Database
    incarnation: str
    how: Literal["kept", "restored"]
    restored: Restored | None = None
    moved: Path | None = None


def boot(path: Path, store: Store, *, progress: Progress = quiet) -> Booted:
    """The database at a path, whatever was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.boot").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        moved = None
        if path.exists():
            if _usable(path):
                return Booted(Database(path), _incarnation(path), "kept")
            moved = _aside(path)
        restored = restore(store, path, progress=progress)
        return Booted(Database(path), _incarnation(path), "restored", restored, moved)


def _usable(path: Path) -> bool:
    """Whether a database is whole and of a version that we know."""
    try:
        with translated(), closing(connect(path)) as db:
            if db.execute("PRAGMA user_version").fetchone() == (0,):
                return False
            migrate(db)
            return sound(db)
    except (WordsLost, sqlite3.Error):
        return False


def _aside(path: Path) -> Path:
    """Move a damaged database aside, with what SQLite keeps beside it; the one that was there before goes."""
    place = path.with_name(f"{path.name}.damaged")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        old = place.with_name(place.name + suffix)
        if part.exists():
            part.replace(old)
        else:
            old.unlink(missing_ok=True)
    return place


def _incarnation(path: Path) -> str:
    """The name of this life of the node, as long as its database: made at random, when there is none yet."""
    with translated(), closing(connect(path)) as db:
        db.execute("BEGIN IMMEDIATE")
        name = str(noted(db, "incarnation", "")) or token_hex(8)
        note(db, "incarnation", name)
        db.execute("COMMIT")
    return name
