"""One writer at a time: a lease in the store, renewed by who holds it, taken over when it lapses.

The lease is one small object that names its holder, and beats: every renewal writes it anew with the next number. No clock of another
machine is believed. Who wants to take over watches the object for as long as the lease lasts, by its own monotonic clock; if it does not
beat in that time it writes its own name, waits a little, and reads which name stands. A store that cannot write exclusively (Swift)
can still let two believe they won, for a moment; they are told apart by the hash chain, which is why a fork is never lost but seen.

A node that restarts without its disk is another incarnation: of the same name it takes the lease over at once, and the former
incarnation, should it still run, finds itself deposed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from io import BytesIO

from imgproxy.errors import NotTheWriter, StoreLied
from imgproxy.stores import Store

KEY = "lease"


@dataclass(frozen=True, slots=True)
class Held:
    """What the lease says: who writes, in which life, for the how manieth time it was taken and renewed."""

    holder: str
    incarnation: str
    term: int
    beat: int
    seconds: float


class Lease:
    """The lease of one repository, wanted by one node. `holder` is fit for people to read; `incarnation` is told apart from all others."""

    def __init__(self, store: Store, holder: str, incarnation: str, *, seconds: float = 30.0, settle: float = 1.0) -> None:
        self._store = store
        self._holder = holder
        self.incarnation = incarnation
        self._seconds = seconds
        self._settle = settle
        self._lock = threading.Lock()
        self._watched: tuple[Held, float] | None = None

    def check(self) -> Held:
        """Return if this node may write, after taking the lease if that is possible now; else raise `NotTheWriter`."""
        with self._lock:
            found = self.read()
            if found is not None and found.incarnation == self.incarnation:
                return found
            if found is None or found.holder == self._holder:
                return self._take(found)
            if not self._lapsed(found):
                raise NotTheWriter(found.holder)
            return self._take(found)

    def still(self) -> None:
        """Return if this node still holds the lease, else raise `NotTheWriter`."""
        found = self.read()
        if found is None or found.incarnation != self.incarnation:
            raise NotTheWriter(found.holder if found else "nobody")

    def mine(self) -> bool:
        """Whether this node holds the lease just now."""
        found = self.read()
        return found is not None and found.incarnation == self.incarnation

    def renew(self) -> Held:
        """Beat once more; to be called every third of `seconds` as long as this node wants to write."""
        held = self.check()
        with self._lock:
            beat = replace(held, beat=held.beat + 1, seconds=self._seconds)
            self._write(beat)
        return beat

    def wait(self, sleep: Callable[[float], object] = time.sleep) -> Held:
        """Wait until the lease is ours; at most as long as its holder beats."""
        while True:
            try:
                return self.check()
            except NotTheWriter:
                sleep(min(1.0, self._seconds / 10))

    def release(self) -> None:
        """Let the next writer in at once; nothing happens if this node is not the holder."""
        with self._lock:
            found = self.read()
            if found is not None and found.incarnation == self.incarnation:
                self._write(replace(found, holder="", incarnation="", beat=found.beat + 1))

    def read(self) -> Held | None:
        """What the lease says just now; None if nobody holds it."""
        blob = self._store.get(KEY, fresh=True)
        if blob is None:
            return None
        with blob:
            try:
                held = Held(**json.loads(blob.file.read(65_536)))
            except (ValueError, TypeError) as error:
                raise StoreLied("the lease is no lease") from error
        return held

    def _lapsed(self, found: Held) -> bool:
        """Whether nobody has renewed what was found for as long as it lasts, as far as this process has watched it."""
        if found.holder == "":
            return True
        now = time.monotonic()
        if self._watched is None or self._watched[0] != found:
            self._watched = (found, now)
        return now - self._watched[1] > found.seconds

    def _take(self, found: Held | None) -> Held:
        mine = Held(self._holder, self.incarnation, found.term + 1 if found else 1, 1, self._seconds)
        if found is None:
            body = BytesIO(json.dumps(asdict(mine)).encode())
            self._store.put(KEY, body, type="application/json", create=True)
        else:
            self._write(mine)
        if found is None or found.holder != self._holder:
            time.sleep(self._settle)
        won = self.read()
        if won is None or won.incarnation != self.incarnation:
            raise NotTheWriter(won.holder if won else "nobody")
        return won

    def _write(self, held: Held) -> None:
        self._store.put(KEY, BytesIO(json.dumps(asdict(held)).encode()), type="application/json")
