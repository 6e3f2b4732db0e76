"""The worker: some threads that take tasks from the queue until they are told to stop, and one that looks after everything else.

A task is taken in the ledger, by name; what a worker that was killed held is given back by whoever finds it dead. One that was only cut
off for a while is taken for dead, too: what it goes on with then, it no longer holds. One of several threads keeps to the quick lane, so
that a night's work never holds up a fetch. Told to stop, work of minutes is finished, and work of hours is put back to where it was.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from imgproxy.errors import BadAddress, Busy, CallFailed, Error, NotTheWriter, RendererLost, StoreRefused, StoreTrouble
from imgproxy.jobs import callbacks, orders, task
from imgproxy.jobs.fetching import sweep
from imgproxy.jobs.orders import Cull
from imgproxy.jobs.queue import Queue
from imgproxy.jobs.shop import Shop
from imgproxy.jobs.task import LANES, Edit, Holder, Lane, Ledger, Outcome, Task
from imgproxy.jobs.trades import TRADES

_IDLE = 0.1
_ROUND = 1.0
_THOROUGH = 60.0
_TOLD_EVERY = 1.0
_LONGEST_PAUSE = 900.0
_CULL_EVERY = 3_600.0
_MANY = 1_000
_OURS_TO_MEND = 4
"""So many times as often is tried what our own stores keep from being done."""
_PASSING = (Busy, NotTheWriter, RendererLost, StoreTrouble)


class Life(Protocol):
    """Whether workers live."""

    def begin(self) -> str:
        """Begin to live; the name by which others ask."""

    def lives(self, name: str) -> bool:
        """Whether that worker lives."""

    def sweep(self) -> None:
        """Remove what dead workers have left."""

    def beat(self) -> None:
        """Live on."""

    def end(self) -> None:
        """Die, in an orderly way."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How many threads work; how often work and callbacks are tried, and after how many seconds for the second time; who signs.

    `pulse` is a file that is touched every second.
    """

    threads: int = 4
    attempts: int = 5
    pause: float = 1.0
    deliveries: int = 8
    key: bytes = b""
    pulse: Path | None = None


Told = Callable[[str, Mapping[str, object]], object]
"""Hears what is worth a line in the log."""
Surprised = Callable[[Exception], object]
"""Hears of mistakes of ours."""


class _Enough(BaseException):
    """The worker has to stop, or the task is no longer its own."""


class Worker:
    """Works at the tasks of a ledger."""

    def __init__(self, ledger: Ledger, queue: Queue, life: Life, shop: Shop, terms: Terms, told: Told, surprised: Surprised) -> None:
        self._ledger = ledger
        self._queue = queue
        self._life = life
        self._shop = shop
        self._terms = terms
        self._told = told
        self._surprised = surprised
        self._stopping = threading.Event()
        self._asking = {lane: threading.Lock() for lane in (LANES, LANES[:1])}
        self._at: set[str] = set()  # the tokens of what our threads are at
        self._unheard: deque[str] = deque(maxlen=_MANY)  # those that a ledger in trouble may have given us without saying so
        self._name = ""

    def run(self, grace: float) -> bool:
        """Work until told to stop, and then at most so many seconds; whether all that was begun is finished or put back."""
        self._name = self._life.begin()
        self._told("a worker begins", {"worker": self._name, "threads": self._terms.threads})
        lanes = [LANES if place or self._terms.threads == 1 else LANES[:1] for place in range(self._terms.threads)]
        threads = [threading.Thread(target=self._work_on, args=(lane,), name=f"work-{n}", daemon=True) for n, lane in enumerate(lanes)]
        for thread in threads:
            thread.start()
        self._look_after()
        until = time.monotonic() + grace
        while any(thread.is_alive() for thread in threads) and time.monotonic() < until:
            self._safely(self._life.beat)
            next(thread for thread in threads if thread.is_alive() or thread is threads[-1]).join(_ROUND)
        finished = not any(thread.is_alive() for thread in threads)
        if finished:
            self._safely(self._life.end)
        self._told("a worker ends", {"worker": self._name, "finished": finished})
        return finished

    def stop(self) -> None:
        """Take no more tasks."""
        self._stopping.set()

    # ---- the threads

    def _work_on(self, lanes: tuple[Lane, ...]) -> None:
        while not self._stopping.is_set():
            try:
                id = self._next(lanes)
                if id is not None:
                    self._serve(id)
            except Exception as error:
                self._trouble(error)
                self._stopping.wait(_ROUND)

    def _next(self, lanes: tuple[Lane, ...]) -> str | None:
        """The next id; of all threads of the same lanes that have nothing to do, one asks."""
        with self._asking[lanes]:
            while not self._stopping.is_set():
                id = self._queue.pull(lanes)
                if id is not None:
                    return id
                self._stopping.wait(_IDLE)
        return None

    def _serve(self, id: str) -> None:
        """Do whatever is to be done about a task, if somebody else does not do it already."""
        token = token_hex(4)
        self._at.add(token)
        try:
            found = self._taken(id, Holder(self._name, token))
            if found is None:
                return
            if found.finished:
                self._deliver(found)
            else:
                self._work(found)
        finally:
            self._at.discard(token)

    def _taken(self, id: str, holder: Holder) -> Task | None:
        try:
            return self._ledger.change(id, task.taken(holder, self._queue.nodes, time.time()))
        except BaseException:
            self._unheard.append(holder.token)  # it may be ours all the same
            raise

    def _work(self, one: Task) -> None:
        try:
            order = orders.read(one.order)
            outcome = self._cull() if isinstance(order, Cull) else TRADES[type(order)](order, one.id, self._shop, self._teller(one))
        except _Enough:
            self._settle(one, task.put_back(one.held, "", time.time(), counted=False))
            return
        except Exception as error:
            self._failed(one, error)
            return
        self._settle(one, task.finished(one.held, outcome, time.time()))

    def _failed(self, one: Task, error: Exception) -> None:
        why = self._why(error)
        if _may_pass(error) and one.attempts < self._terms.attempts * (_OURS_TO_MEND if isinstance(error, _PASSING) else 1):
            self._settle(one, task.put_back(one.held, why, time.time() + self._pause(one.attempts, 2.0)))
        else:
            self._settle(one, task.finished(one.held, Outcome("failed", error=why), time.time()))

    def _why(self, error: Exception) -> str:
        if isinstance(error, Error):
            return str(error)
        self._surprised(error)
        return "a mistake of ours; it has been logged"

    def _deliver(self, one: Task) -> None:
        said = callbacks.body(one)
        try:
            self._shop.window.post(one.callback, said, callbacks.headers(one, said, self._terms.key, time.time()))
        except Exception as error:
            why = self._why(error)
            again = not isinstance(error, BadAddress) and one.delivery.attempts < self._terms.deliveries
            due = time.time() + self._pause(one.delivery.attempts, 3.0) if again else None
            self._settle(one, task.undelivered(one.held, why, due))
            if due is None:
                self._told("a callback is a dead letter", {"task": one.id, "why": why})
        else:
            self._settle(one, task.delivered(one.held, time.time()))

    def _settle(self, one: Task, edit: Edit) -> None:
        """Write down what became of a task, and have whatever is to be done next be done when it is due."""
        while True:
            try:
                changed = self._ledger.change(one.id, edit)
                break
            except (Busy, StoreTrouble) as error:
                self._trouble(error)
                if self._stopping.wait(_ROUND):
                    return  # it is done again by whoever finds us dead
        if changed is None:
            return
        if changed.finished and not one.finished:
            told = {"task": one.id, "kind": one.kind, "state": changed.state, "attempts": changed.attempts, "why": changed.error}
            self._told("a task is done", told)
        if changed.open:
            (self._queue.push_later if changed.due > time.time() else self._queue.push)(changed)

    def _pause(self, attempts: int, factor: float) -> float:
        pause = self._terms.pause * factor ** (attempts - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - to be spread, not secret
        return min(pause, _LONGEST_PAUSE)

    def _teller(self, one: Task) -> Callable[[Mapping[str, Any]], None]:
        """What work tells how far it is; the ledger hears of it once a second."""
        told = time.monotonic()

        def tell(progress: Mapping[str, Any]) -> None:
            nonlocal told
            if self._stopping.is_set() and one.kind not in orders.QUICK:
                raise _Enough
            if time.monotonic() - told < _TOLD_EVERY:
                return
            told = time.monotonic()
            if self._ledger.change(one.id, task.told(one.held, progress)) is None:
                raise _Enough

        return tell

    # ---- everything else

    def _look_after(self) -> None:
        """Once a second until told to stop: live on, wake what is due, give back what the dead held."""
        culled = sought = time.monotonic()
        while True:
            self._safely(self._life.beat)
            self._safely(self._pulse)
            self._safely(lambda: self._queue.wake(time.time()))
            self._safely(self._give_back)
            self._safely(self._find_lost)
            if time.monotonic() - sought > _THOROUGH:
                sought = time.monotonic()
                self._safely(self._find_overtaken)
            if time.monotonic() - culled > _CULL_EVERY:
                culled = time.monotonic()
                self._safely(self._cull)
            if self._stopping.wait(_ROUND):
                return

    def _pulse(self) -> None:
        with suppress(OSError):
            if self._terms.pulse is not None:
                self._terms.pulse.touch()

    def _give_back(self) -> None:
        """What the dead hold; and what we hold and do not know of, since we never heard that we were given it."""
        lives: dict[str, bool] = {}
        for one in self._ledger.held():
            if one.holder == self._name:
                if one.token in self._at:
                    continue
            elif one.holder not in lives:
                lives[one.holder] = self._life.lives(one.holder)
            if lives.get(one.holder):
                continue
            unheard = one.holder == self._name and one.token in self._unheard
            edit = task.refused(one.held) if unheard else task.abandoned(one.held, self._terms.attempts, time.time())
            changed = self._ledger.change(one.id, edit)
            if changed is None:
                continue
            if not unheard:
                self._told("a worker was lost", {"worker": one.holder, "task": one.id, "state": changed.state})
            if changed.open:
                self._queue.push(changed)
        self._life.sweep()

    def _find_lost(self) -> None:
        """Put into the queue again what it should carry and does not: the ledger knows, and the queue may forget."""
        for lane, node in self._places():
            if self._queue.is_empty(lane, node):
                for one in self._ledger.due(lane, node, time.time() - _ROUND, _MANY):
                    self._queue.push(one)

    def _find_overtaken(self) -> None:
        """The same where others are next: what was lost is among those that wait longest, and not among these."""
        for lane, node in self._places():
            carried = self._queue.carried(lane, node)
            for one in self._ledger.due(lane, node, time.time() - _THOROUGH, _MANY):
                if one.id not in carried:
                    self._queue.push(one)

    def _places(self) -> Iterator[tuple[Lane, str]]:
        return ((lane, node) for lane in LANES for node in self._queue.nodes)

    def _cull(self) -> Outcome:
        """Forget old tasks, and what is left of fetches that nobody goes on with."""
        tasks = self._ledger.forget(time.time() - self._shop.kept)
        return Outcome("succeeded", {"tasks": tasks, "files": sweep(self._shop.spool)})

    def _safely(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            self._trouble(error)

    def _trouble(self, error: Exception) -> None:
        if isinstance(error, Error):
            self._told("a worker is held up", {"why": str(error)})
        else:
            self._surprised(error)


def _may_pass(error: Exception) -> bool:
    """Whether the same work may succeed another time."""
    if isinstance(error, CallFailed):
        return error.again
    return isinstance(error, _PASSING) and not isinstance(error, StoreRefused)
