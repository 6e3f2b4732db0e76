"""Originals whose records were deleted: let go of after the commit, as often as it takes.

The list is written by the commit itself, so that no crash forgets it; what a lost disk forgets, sync finds. On the writing node letting
go removes the original from the store; a reading node, when it sees that this has happened, lets go of what it has itself. What any open
session says something of stays until that is committed or discarded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

from imgproxy.errors import Error, StoreTrouble
from imgproxy.meta.absent import Absent
from imgproxy.meta.alone import Alone, undisturbed
from imgproxy.meta.chain import Chain

LetGo = Callable[[str], object]
"""Told a hash; does nothing if that was done before, raises if it could not be done."""

_PAUSE = 0.02
_FREE = """
    FROM gone WHERE NOT EXISTS (
        SELECT 1 FROM sessions CROSS JOIN staged s ON s.session = sessions.key AND s.hash = gone.hash AND s.state IS NOT NULL
    )
"""


class Farewell:
    """What is still to be let go of, and how.

    `first` makes sure of whatever must be so before, for every part anew; `which` says which of some hashes it is time for, all unless
    it is given. `alone` keeps an upload away that would take one up again. A part is of at most `page` originals, and ends after so many
    `seconds`.
    """

    def __init__(
        self,
        chain: Chain,
        let_go: LetGo,
        *,
        first: Callable[[], object] = lambda: None,
        which: Absent = lambda hashes: hashes,
        alone: Alone = nullcontext,
        page: int = 500,
        seconds: float = 3.0,
    ) -> None:
        self._chain = chain
        self._let_go = let_go
        self._first = first
        self._which = which
        self._alone = alone
        self._page = page
        self._seconds = seconds
        self._after = b""

    def waiting(self) -> int:
        """How many originals are still to be let go of, beside those that a session has taken up again."""
        with self._chain.database.reading() as db:
            return int(db.execute(f"SELECT count(*) {_FREE}").fetchone()[0])

    def pending(self, most: int) -> list[str]:
        """The first of them, in ascending order."""
        with self._chain.database.reading() as db:
            return [hash.hex() for (hash,) in db.execute(f"SELECT hash {_FREE} ORDER BY hash LIMIT ?", (most,))]

    def say(self) -> int:
        """Let go of everything that waits and that nobody has taken up again; how many they were.

        No commit happens during a part: what a session adds again is either seen here, or its commit finds the original missing; of an
        upload to this node it is always seen. Between parts a commit may. One that a store in trouble keeps holds up the others of its
        part no longer than that lasts; the trouble is raised when the part is done, and the next one begins where this one ended.
        """
        count = 0
        while True:
            with self._chain.alone():
                self._first()
                said, more = self._some()
            count += said
            if not said or not more:  # where it is time for none, the others are looked at the next time
                return count
            time.sleep(_PAUSE)

    def begin(self, most: int | None = None) -> str:
        """Let go of what can be let go of now, unless that are more than `most`; what is in the way of it, if anything.

        What is left is let go of later.
        """
        try:
            count = self.waiting()
            if count and (most is None or count <= most):
                self.say()
        except Error as error:
            return f"deleted originals are not removed yet: {error}"
        return ""

    def _some(self) -> tuple[int, bool]:
        """A part: how many were let go of, and whether there is more behind it."""
        until = time.monotonic() + self._seconds
        with self._chain.database.reading() as db:
            rows = db.execute(f"SELECT hash {_FREE} AND hash > ? ORDER BY hash LIMIT ?", (self._after, self._page)).fetchall()
        last = rows[-1][0] if len(rows) == self._page else b""
        said: list[bytes] = []
        trouble: StoreTrouble | None = None
        try:
            for hash in self._which([hash.hex() for (hash,) in rows]):
                try:
                    if self._is_let_go(hash):
                        said.append(bytes.fromhex(hash))
                except StoreTrouble as error:
                    trouble = error
                if time.monotonic() > until:
                    last = bytes.fromhex(hash)
                    break
            self._after = last
        finally:
            with self._chain.database.writing() as db:
                db.executemany("DELETE FROM gone WHERE hash = ?", [(hash,) for hash in said])
        if trouble is not None:
            raise trouble
        return len(said), bool(last)

    def _is_let_go(self, hash: str) -> bool:
        """Let go of one, unless somebody has taken it up again, or does so just now."""
        with undisturbed(self._alone, hash) as alone:
            if not alone:
                return False
            with self._chain.database.reading() as db:
                free = db.execute(f"SELECT 1 {_FREE} AND hash = ?", (bytes.fromhex(hash),)).fetchone() is not None
            if free:
                self._let_go(hash)
            return free
