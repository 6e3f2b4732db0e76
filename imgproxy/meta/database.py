"""The local database: its connections, its schema, and what its errors mean.

WAL with `synchronous=FULL`: what a transaction has returned from survives a power cut. Readers never wait and each sees one moment;
writers take turns, over all processes, and what they have logged is copied into the file beside them (`checkpoint.py`). A file that
vanished or was replaced is noticed before the next transaction.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from imgproxy.errors import Busy, Error, StoreFull, WordsLost
from imgproxy.meta.checkpoint import Checkpoint
from imgproxy.meta.record import from_state
from imgproxy.meta.tokens import searchable

MIGRATIONS = sorted((Path(__file__).parent / "schema").glob("[0-9][0-9][0-9].sql"))
"""The schema, step by step; `user_version` says how many steps a database has seen."""

CACHE = 32_768
"""So many KiB of pages each connection keeps, unless it is told otherwise."""

_IDLE = 8
_PRAGMAS = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = OFF;
    PRAGMA wal_autocheckpoint = 32768;
    PRAGMA temp_store = MEMORY;
    PRAGMA journal_size_limit = 67108864;
"""
_SHM_SIZE = 4874


class Database:
    """One database file and the connections to it; used by any number of threads and processes at once.

    `wait` is how many seconds a writer waits for its turn, `cache` how many KiB of pages each connection keeps.
    """

    def __init__(self, path: Path, *, wait: float = 15.0, cache: int = CACHE) -> None:
        self.path = path
        self._wait = wait
        self._cache = cache
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._inherited: list[sqlite3.Connection] = []  # of the parent process: neither to be used nor to be closed here
        self._seen: tuple[int, ...] = ()
        self._checkpoint = Checkpoint(path, lambda: connect(path, wait=wait, cache=0))

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one moment, whatever is written meanwhile."""
        yield from self._within("BEGIN")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction of its own: all of it happens when the block is left, or nothing if that raises."""
        yield from self._within("BEGIN IMMEDIATE")
        self._checkpoint.consider()

    def close(self) -> None:
        """Close what is not in use; the database may be used again."""
        self._checkpoint.wait()
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _within(self, begin: str) -> Iterator[sqlite3.Connection]:
        with translated():
            connection = self._taken()
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                connection.close()
                raise
            self._given_back(connection)

    def _taken(self) -> sqlite3.Connection:
        seen = self._identity()
        with self._lock:
            if seen != self._seen:
                if self._seen[:1] != seen[:1]:
                    self._inherited += self._idle
                self._idle, self._seen = [], seen
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = connect(self.path, wait=self._wait, cache=self._cache)
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def _given_back(self, connection: sqlite3.Connection) -> None:
        seen = self._identity()
        with self._lock:
            if len(self._idle) < _IDLE and seen == self._seen:
                self._idle.append(connection)
                return
        connection.close()

    def _identity(self) -> tuple[int, ...]:
        """This process and this very file: a connection belongs to both."""
        try:
            facts = self.path.stat()
        except OSError as error:
            raise WordsLost("the local database is not there") from error
        return os.getpid(), facts.st_dev, facts.st_ino


def connect(path: Path, *, wait: float = 15.0, cache: int = CACHE, create: bool = False) -> sqlite3.Connection:
    """A connection to a database file, which must be there unless it may be made."""
    mode = "rwc" if create else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=wait, isolation_level=None, check_same_thread=False
    )
    try:
        connection.executescript(_PRAGMAS)
        connection.execute(f"PRAGMA cache_size = -{cache}")
    except BaseException:
        connection.close()
        raise
    return connection


def create(path: Path) -> None:
    """Make an empty database."""
    with translated(), closing(connect(path, create=True)) as connection:
        migrate(connection)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to the newest schema, step by step; `WordsLost` if it is newer than this program."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise WordsLost("the database was written by a newer version of this program")
    connection.create_function("told", 1, _told, deterministic=True)
    for step, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script.read_text()}\nPRAGMA user_version = {step};\nCOMMIT;")


@contextmanager
def translated() -> Iterator[None]:
    """What SQLite raises, in our own words."""
    try:
        yield
    except sqlite3.Error as error:
        meaning = _meaning(error)
        if meaning is None:
            raise
        raise meaning from error


def sound(connection: sqlite3.Connection) -> bool:
    """Whether every page of a database is readable and in its place."""
    return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))


def noted(connection: sqlite3.Connection, name: str, default: int | str = 0) -> int | str:
    """What this copy remembers under a name."""
    row = connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
    return row[0] if row else default


def note(connection: sqlite3.Connection, name: str, value: int | str) -> None:
    """Remember something under a name."""
    connection.execute("INSERT INTO notes VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value))


def moment(connection: sqlite3.Connection) -> int:
    """The number of the newest commit here: the moment that readers of this connection see."""
    return int(connection.execute("SELECT coalesce(max(n), 0) FROM commits").fetchone()[0])


def _told(state: str) -> str:
    """All that a search compares of the record of a state; for a schema that tells it anew."""
    return searchable(from_state("", 0, state))


def _meaning(error: sqlite3.Error) -> Error | None:
    code = getattr(error, "sqlite_errorcode", 0) or 0
    kind = code & 0xFF
    if kind == sqlite3.SQLITE_FULL or code == _SHM_SIZE:
        return StoreFull("no room for the local database")
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy("the local database is being written to")
    if kind in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    ):
        return WordsLost("the local database is damaged or gone; starting again restores it")
    return None
