"""The commits in the store, seen from this copy: read back, verified, followed.

Each commit names the hash of the one before. So whatever two writers do to each other, and whatever a store loses, is seen here as
`Forked` before anything more is built upon it. Reads are fresh wherever a stale answer could mislead; no listing is trusted.
"""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from imgproxy.errors import Busy, Forked, StoreFull, StoreLied
from imgproxy.meta.applying import Object, apply, counted, load
from imgproxy.meta.database import Database, moment
from imgproxy.meta.journal import FIRST, Header, header, key, save
from imgproxy.stores import Store

_STALE = 3600.0

Reached = Callable[[str], object]
"""Told the name of every step that matters when it is done; for tests that kill at each."""


def unheard(step: str) -> None:
    """Nobody wants to know."""


class Chain:
    """The commits of one repository and the copy of them in one database; drafts are files that nobody misses."""

    def __init__(self, database: Database, store: Store, drafts: Path) -> None:
        self.database = database
        self.store = store
        self._drafts = drafts

    @contextmanager
    def alone(self, wait: float = 60.0) -> Iterator[None]:
        """One at a time, over all threads and processes of this node; the kernel ends it with its holder."""
        drafts = self._drafts
        drafts.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait
        with (drafts / "lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Busy("another commit takes its time") from None
                    time.sleep(0.005)
            self._sweep()
            yield

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """The path of an empty file, gone at the end; locked until then, so that nobody takes it for left behind."""
        self._drafts.mkdir(parents=True, exist_ok=True)
        path = self._drafts / f"{token_hex(8)}.draft"
        try:
            with path.open("xb") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                yield path
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StoreFull("no room for a commit on its way") from error
            raise
        finally:
            path.unlink(missing_ok=True)

    def newest(self) -> tuple[int, str]:
        """The number and the hash of the newest commit here."""
        with self.database.reading() as db:
            n = moment(db)
            row = db.execute("SELECT hash FROM commits WHERE n = ?", (n,)).fetchone()
        return n, row[0].hex() if row else FIRST

    def confirm(self) -> None:
        """Make sure that the store still has what this copy believes to be its newest commit, or raise `Forked`."""
        n, hash = self.newest()
        if n == 0:
            return
        item = self.store.head(key(n), fresh=True)
        if item is None:
            raise Forked(f"the store does not have commit {n}, which is here")
        if item.note.get("sha256") != hash:
            raise Forked(f"commit {n} in the store is not the one that is here: two writers have met")

    def follow(self, most: int | None = None, reached: Reached = unheard) -> int:
        """Apply the commits that the store has beyond this copy's, at most so many; how many they were. Ask only when `alone`."""
        count = 0
        while most is None or count < most:
            with self.draft() as path:
                if not self._next(path, reached):
                    return count
            count += 1
        return count

    def fetch(self, n: int, path: Path) -> str | None:
        """Save commit `n` to a file; its hash, or None if the store has none. A copy that went wrong is asked for twice."""
        for attempt in (1, 2):
            blob = self.store.get(key(n), fresh=True)
            if blob is None:
                return None
            with blob:
                hash = save(blob.file, path)
            if hash == blob.item.note.get("sha256", hash):
                return hash
            if attempt == 2:
                break
        raise StoreLied(f"commit {n} is damaged in the store")

    def _sweep(self) -> None:
        """Remove the drafts that a killed process has left behind."""
        for left in self._drafts.glob("*.draft"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE:
                    with left.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        left.unlink()

    def _next(self, path: Path, reached: Reached) -> bool:
        n, previous = self.newest()
        hash = self.fetch(n + 1, path)
        if hash is None:
            return False
        said = header(path)
        must_follow(said, n, previous)
        with self.database.writing() as db:
            staged = load(db, said, path)
            stored = Object(hash, counted(db, staged))
            apply(db, staged, said, lambda: stored)
            reached("follow: applied")
        reached("follow: done")
        return True


def must_follow(said: Header, n: int, previous: str) -> None:
    """Make sure that a commit is the one after commit `n` of that hash, or raise `Forked`."""
    if said.n != n + 1:
        raise Forked(f"commit {n + 1} in the store calls itself {said.n}")
    if said.previous != previous:
        raise Forked(f"commit {n + 1} in the store does not follow the commit {n} that is here: two writers have met")
