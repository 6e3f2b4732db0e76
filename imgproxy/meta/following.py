"""A reading node that keeps up: it polls the store for the next commit, applies it, and lets go of what was deleted.

It asks for one number at a time, freshly, and never for a list. How far it is behind is told by the node's monotonic clock:
so many seconds ago one of its processes last knew this copy level with the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from imgproxy.errors import StoreTrouble
from imgproxy.meta.absent import Absent
from imgproxy.meta.chain import Chain
from imgproxy.meta.farewell import Farewell
from imgproxy.meta.level import Level
from imgproxy.meta.staging import binary


@dataclass(frozen=True, slots=True)
class Progress:
    """What one poll did: so many commits applied, so many deleted originals let go of; `level` if the store had no more.

    `hindered` says what kept this node from letting go of more: the next poll tries again.
    """

    applied: int
    let_go: int
    level: bool
    hindered: str = ""


class Follower:
    """A copy that follows the commits; call `poll` every few seconds."""

    def __init__(
        self,
        chain: Chain,
        farewell: Farewell,
        level: Level,
        *,
        absent: Absent = lambda hashes: hashes,
        writing: Callable[[], bool] = lambda: False,
        most: int = 100,
    ) -> None:
        self._chain = chain
        self._farewell = farewell
        self._absent = absent
        self._writing = writing
        self._most = most
        self._level = level

    def poll(self) -> Progress:
        """Apply what is new, at most so many commits; raise `Forked` or what the store could not do.

        What was deleted is left to the farewell of the writing node, if this is it: that one removes it from the store.
        """
        asked = time.monotonic()
        with self._chain.alone():
            self._chain.confirm()
            applied = self._chain.follow(self._most)
        level = applied < self._most
        if level:
            self._level.note(asked)
        if self._writing():
            return Progress(applied, 0, level)
        try:
            return Progress(applied, self._farewell.say(), level)
        except StoreTrouble as trouble:
            return Progress(applied, 0, level, str(trouble))

    def leaving(self, hash: str) -> bool:
        """Whether another node, the writing one, is about to remove that original from the store."""
        with self._chain.database.reading() as db:
            gone = db.execute("SELECT 1 FROM gone WHERE hash = ?", (binary(hash),)).fetchone() is not None
        return gone and not self._writing() and not list(self._absent([hash]))

    def lag(self) -> float:
        """For how many seconds this copy may have been behind."""
        return self._level.lag()
