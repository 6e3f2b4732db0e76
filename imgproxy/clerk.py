"""The clerk of a node: does what nobody asks for, in the background of a server.

- commits what was changed outside of any session, so long after it was changed (`autocommit`), and sets aside what cannot be;
- follows what other nodes commit, and lets this node forget what they have deleted;
- removes deleted originals from the store, again and again until that succeeds;
- keeps the lease as long as this node goes on writing, and lets the next writer in when it does not;
- takes the snapshots that are due;
- forgets sessions that nobody has changed for very long (`kept`);
- tends the full-text index, which small commits leave in small pieces.

Of all processes of a node one has the clerk: who holds a lock that the kernel drops with its holder. Nothing here may be lost: what is
not done now is done later, by this one or the next.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from imgproxy.errors import Busy, Conflict, Error, NoSession, StoreTrouble, Unstored
from imgproxy.meta.index import tend
from imgproxy.meta.repository import Words
from imgproxy.meta.sessions import DEFAULT, Session

FOLLOW = 5.0
"""Other nodes' commits are asked for again after so many seconds."""
LINGER = 60.0
"""For so many seconds after its last commit a node stays the writer."""
AGAIN = 30.0
"""What failed is tried again after so many seconds."""

EXPIRY = 60.0
"""Forgotten sessions are looked for after so many seconds."""

_TICK = 1.0
_SOON = 0.05
_NEIGHBOUR = 2.0
_FEW = 100

Told = Callable[[str, dict[str, object]], object]
"""Hears what the clerk has done, and what went wrong."""


class Clerk:
    """The clerk of one node, in one of its processes; `lock` is a file that all of them share, the others are seconds (0: never)."""

    def __init__(self, lock: Path, autocommit: float, told: Told = lambda _event, _words: None, *, kept: float = 0.0) -> None:
        self._lock = lock
        self._autocommit = autocommit
        self._kept = kept
        self.told = told
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, words: Words) -> None:
        """Begin, in a thread of its own, as soon as no other process of the node has the clerk."""
        self._thread = threading.Thread(target=self._run, args=(words,), name="clerk", daemon=True)
        self._thread.start()

    def stop(self, wait: float = 20.0) -> None:
        """Finish what is being done, let the next writer in, and end."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(wait)

    def _run(self, words: Words) -> None:
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("ab") as lock:
            while not self._stopped.is_set():
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._work(words)
                    return
                self._stopped.wait(_NEIGHBOUR)

    def _work(self, words: Words) -> None:
        rounds = [
            Round("commit", _Autocommit(words, self._autocommit, self.told).run, min(_TICK, self._autocommit / 2 or _TICK)),
            Round("follow", _Following(words, self.told).run, FOLLOW),
            Round("farewell", lambda: _farewell(words), _TICK),
            Round("lease", _Lease(words).run, FOLLOW),
            Round("snapshot", lambda: _snapshot(words), FOLLOW),
            Round("forget sessions", _Expiry(words, self._kept, self.told).run, min(EXPIRY, self._kept / 2 or EXPIRY)),
            Round("tend the index", lambda: tend(words.database), FOLLOW, unfinished=_SOON),
        ]
        while not self._stopped.wait(max(0.0, min(one.at for one in rounds) - time.monotonic())):
            for one in rounds:
                self._once(one)
        with suppress(Error):
            step_down(words)

    def _once(self, one: Round) -> None:
        if self._stopped.is_set() or time.monotonic() < one.at:
            return
        try:
            more = one.do()
            one.at = time.monotonic() + (one.unfinished if more else one.every)
        except Error as error:
            one.at = time.monotonic() + (one.every if isinstance(error, Busy) else AGAIN)
            self.told(f"the clerk could not {one.name}", {"why": str(error), "again": AGAIN})
        except Exception as error:
            one.at = time.monotonic() + AGAIN
            self.told(f"the clerk could not {one.name}", {"why": repr(error), "again": AGAIN})


class Round:
    """Something that is done every so many seconds, sooner while it says that it is `unfinished`; `at` is when it is due."""

    def __init__(self, name: str, do: Callable[[], object], every: float, *, unfinished: float = 0.0) -> None:
        self.name = name
        self.do = do
        self.every = every
        self.unfinished = unfinished
        self.at = time.monotonic()


class _Autocommit:
    """Commits the default session so long after it was changed."""

    def __init__(self, words: Words, after: float, told: Told) -> None:
        self._words = words
        self._after = after
        self._told = told
        self._since: float | None = None

    def run(self) -> None:
        if not self._after:
            return
        session = _default(self._words)
        if session is None or not self._words.sessions.size(session):
            self._since = None
            return
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._after:
            self._since = None
            self._commit(session)

    def _commit(self, session: Session) -> None:
        """Commit it; what keeps it from that is set aside, so that what one says holds up nobody else, and the rest is committed soon."""
        try:
            made = self._words.commits.commit(session.id, message="")
        except (Conflict, Unstored) as error:
            aside = self._words.sessions.set_aside(session, error.records)
            said: dict[str, object] = {"why": error.why, "records": error.records[:20], "session": aside.id, "name": aside.name}
            self._told("records that cannot be committed were set aside", said)
            return
        except NoSession:
            return
        if made is not None:
            self._told("committed", {"commit": made.n, "changes": made.changes})


class _Expiry:
    """Discards sessions that nobody has changed for so long, by running time: no jump of the clock forgets one."""

    def __init__(self, words: Words, kept: float, told: Told) -> None:
        self._words = words
        self._kept = kept
        self._told = told
        self._last = time.monotonic()

    def run(self) -> None:
        now, last = time.monotonic(), self._last
        self._last = now
        if self._kept and self._words.sessions.all():
            gone = self._words.sessions.expire(now - last, self._kept)
            if gone:
                self._told("sessions that nobody changed were forgotten", {"sessions": gone})


class _Following:
    """Keeps level with what other nodes commit; what hinders this node from forgetting is told once, and hinders nothing else."""

    def __init__(self, words: Words, told: Told) -> None:
        self._words = words
        self._told = told
        self._hindered = ""

    def run(self) -> None:
        while True:
            done = self._words.follower.poll()
            if done.hindered and not self._hindered:
                self._told("deleted pictures are not forgotten yet", {"why": done.hindered})
            self._hindered = done.hindered
            if done.level:
                return


class _Lease:
    """Keeps the lease while this node writes, and gives it back afterwards."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._newest = -1
        self._since = time.monotonic()

    def run(self) -> None:
        words = self._words
        if not words.lease.mine():
            return
        newest, _ = words.chain.newest()
        if newest != self._newest:
            self._newest, self._since = newest, time.monotonic()
        if time.monotonic() - self._since < LINGER or _owes(words):
            words.lease.renew()
        else:
            step_down(words)


def _default(words: Words) -> Session | None:
    return next((one for one in words.sessions.all() if one.name == DEFAULT), None)


def _owes(words: Words) -> bool:
    """Whether the store may still have originals that only the writing node removes; what tiers are to forget is every node's."""
    pending = words.farewell.pending(_FEW)
    return len(pending) == _FEW or len(list(words.originals.absent(pending))) < len(pending)


def _farewell(words: Words) -> None:
    if words.farewell.waiting() and words.lease.mine():
        words.farewell.say()


def _snapshot(words: Words) -> None:
    if words.snapshots.due() and words.lease.mine():
        words.snapshots.take()


def step_down(words: Words) -> None:
    """Let the next writer in, unless there is something left that only the writer may do; not while this node is committing."""
    with suppress(StoreTrouble), words.chain.alone():
        if not _owes(words):
            words.lease.release()
