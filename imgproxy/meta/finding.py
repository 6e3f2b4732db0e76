"""One live record at once, by its hash, its MD5 or its alias: for doors that only ever ask.

It reads the database that another process of this node keeps, and makes none: where there is no database, or a damaged one, every
question is answered by `WordsLost`, until there is one again.
"""

from __future__ import annotations

from pathlib import Path

from imgproxy.meta.database import Database
from imgproxy.meta.record import Record, from_state
from imgproxy.meta.repository import database_of
from imgproxy.meta.search import Search
from imgproxy.meta.sessions import Sessions

_PAGES = 1_024
"""KiB of pages that a connection keeps: a look-up reads a few."""

_BY_MD5 = "SELECT hash, since, state FROM records WHERE md5 = ? ORDER BY seq LIMIT 1"


class Finder:
    """Finds live records of the database in a directory, whenever it is there."""

    def __init__(self, directory: Path) -> None:
        self._database = Database(database_of(directory), cache=_PAGES)
        self._sessions = Sessions(self._database)
        self._search = Search(self._database)

    def by_hash(self, hash: str) -> Record | None:
        """The record of an original, by its SHA-256."""
        return self._sessions.read(hash)

    def by_md5(self, md5: str) -> Record | None:
        """The record of an original, by its MD5 in hex; should there be several, the one that came first."""
        with self._database.reading() as db:
            row = db.execute(_BY_MD5, (bytes.fromhex(md5),)).fetchone()
        return from_state(row[0].hex(), *row[1:]) if row else None

    def by_alias(self, domain: str, dkey: str) -> Record | None:
        """The record that has an alias."""
        return self._search.find(domain, dkey)

    def check(self) -> None:
        """Return if there is a database to ask, else raise `WordsLost`."""
        with self._database.reading():
            pass

    def close(self) -> None:
        """Close what is open."""
        self._database.close()
