"""Originals whose records were deleted: let go of after the commit, as often as it takes.

The list is written by the commit itself, so that no crash forgets it; what a lost disk forgets, sync finds. On the writing node letting
go removes the original from the store, on a reading node from its local tier.
"""

from __future__ import annotations

from collections.abc import Callable

from imgproxy.meta.chain import Chain
from imgproxy.meta.sessions import held

LetGo = Callable[[str], object]
"""Told a hash; does nothing if that was done before, raises if it could not be done."""


class Farewell:
    """What is still to be let go of, and how."""

    def __init__(self, chain: Chain, let_go: LetGo, *, first: Callable[[], object] = lambda: None, page: int = 500) -> None:
        self._chain = chain
        self._let_go = let_go
        self._first = first
        self._page = page

    def waiting(self) -> int:
        """How many originals are still to be let go of."""
        with self._chain.database.reading() as db:
            return int(db.execute("SELECT count(*) FROM gone").fetchone()[0])

    def say(self) -> int:
        """Let go of everything that waits and that nobody has taken up again; how many they were.

        `first` makes sure of whatever must be so before. No commit happens meanwhile: what a session adds again is either seen here,
        or its commit finds the original missing.
        """
        count = 0
        while True:
            with self._chain.alone():
                self._first()
                said = self._some()
            count += said
            if said < self._page:
                return count

    def _some(self) -> int:
        with self._chain.database.reading() as db:
            rows = db.execute("SELECT hash FROM gone ORDER BY hash LIMIT ?", (self._page,)).fetchall()
            hashes = [hash for (hash,) in rows]
            free = [hash for hash in hashes if not held(db, hash)]
        for hash in free:
            self._let_go(hash.hex())
        with self._chain.database.writing() as db:
            db.executemany("DELETE FROM gone WHERE hash = ?", [(hash,) for hash in hashes])
        return len(rows)
