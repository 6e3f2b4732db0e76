"""Jobs: work that nobody waits for, or not for long. Doors and commands order it here; a worker (`worker.py`) does it.

orders.py     what can be ordered
task.py       a task and its life, as values
near.py       tasks in a database of this machine
far.py        tasks in Redis
queue.py      which is next; huey lives there
trades.py     how each kind of work is done: fetching.py, deriving.py (and missing.py), upkeep.py; with what: shop.py
callbacks.py  the word that goes out when a task is done
worker.py     takes tasks from the queue, one after the other, until it is told to stop
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from secrets import token_hex
from typing import Any

import msgspec

from imgproxy import spelling
from imgproxy.errors import BadTask, NoTask, TaskUnfinished
from imgproxy.jobs import orders
from imgproxy.jobs.orders import KINDS, Order
from imgproxy.jobs.queue import Queue
from imgproxy.jobs.task import Edit, Ledger, Task, Tasks, Wanted, renewed, resent, stamp

__all__ = ["Jobs", "Task", "Tasks", "shown"]

PAGE = 1_000
"""The most tasks on one page."""

STATES = ("created", "succeeded", "failed", "warning")
_ID = re.compile("[0-9a-f]{16}")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_PRIVATE = ("key", "number", "node", "holder", "token", "due", "ended")

Check = Callable[[Order, str], Order]
"""The order as it is to be kept, if it and the URL of its callback make sense; raises if not."""
Missing = Callable[[tuple[str, ...], tuple[str, ...], Mapping[str, Any], str], Iterator[str]]


class Jobs:
    """The tasks of one repository, for whoever orders them and asks after them."""

    def __init__(self, ledger: Ledger, queue: Queue, check: Check, missing: Missing) -> None:
        self.ledger = ledger
        self.queue = queue
        self._check = check
        self._missing = missing

    def submit(self, order: Order, *, callback: str = "", author: str = "") -> Task:
        """Order work; the same that is waiting or under way is not ordered twice. An answered order is never lost."""
        order = self._check(order, callback)
        text = orders.written(order)
        now = time.time()
        node = "" if isinstance(order, orders.Derive) else self.queue.nodes[0]  # sessions are of one node, renditions of all
        task = Task(
            id=token_hex(8),
            kind=str(msgspec.to_builtins(order)["kind"]),
            order=msgspec.json.decode(text),
            key=sha256(b"%b %b %b" % (node.encode(), callback.encode(), text)).hexdigest(),
            created_at=stamp(now),
            callback=callback,
            author=author,
            node=node,
            due=now,
        )
        kept = self.ledger.add(task)
        if kept.id == task.id:
            self.queue.push(kept)
        return kept

    def find(self, id: str) -> Task | None:
        """The task of that id."""
        return self.ledger.find(id) if _ID.fullmatch(id) else None

    def wait(self, id: str, seconds: float) -> Task:
        """The task of that id, when it is done, or after so many seconds."""
        until, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while True:
            task = self.find(id)
            if task is None:
                raise NoTask("no such task is known")
            left = until - time.monotonic()
            if task.finished or left <= 0:
                return task
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def all(self, *, state: str = "", kind: str = "", most: int = 50, cursor: str = "") -> Tasks:
        """Tasks of that state and kind, the newest first."""
        _one_of("state", state, STATES)
        _one_of("kind", kind, KINDS)
        return self._page(Wanted(state, kind), most, cursor)

    def dead_letters(self, *, most: int = 50, cursor: str = "") -> Tasks:
        """Tasks whose callback could not be delivered, the newest first."""
        return self._page(Wanted(dead=True), most, cursor)

    def retry(self, id: str) -> Task:
        """Do a task again that failed, or was done with a warning."""
        return self._changed(id, lambda task: renewed(task, time.time()), "the task has not failed")

    def redeliver(self, id: str) -> Task:
        """Send a callback again that could not be delivered."""
        return self._changed(id, lambda task: resent(task, time.time()), "the callback of this task is no dead letter")

    def missing(
        self, suffixes: Sequence[str], presets: Sequence[str] = (), query: Mapping[str, Any] | None = None, after: str = ""
    ) -> Iterator[str]:
        """Names of renditions with these suffixes and presets that are not there: of all committed images, or of those a query finds.

        They come in order; `after` leaves out those up to a name.
        """
        return self._missing(tuple(suffixes), tuple(presets), query or {}, after)

    def close(self) -> None:
        """Let go of what is held open."""
        self.queue.close()
        self.ledger.close()

    def _changed(self, id: str, edit: Edit, why_not: str) -> Task:
        if self.find(id) is None:
            raise NoTask("no such task is known")
        task = self.ledger.change(id, edit)
        if task is None:
            raise TaskUnfinished(why_not)
        self.queue.push(task)
        return task

    def _page(self, wanted: Wanted, most: int, cursor: str) -> Tasks:
        if not 1 <= most <= PAGE:
            raise BadTask("most", f"is not between 1 and {PAGE}")
        return self.ledger.page(wanted, most, cursor)


def shown(task: Task) -> dict[str, Any]:
    """A task as a JSON value for other people."""
    said: dict[str, Any] = msgspec.to_builtins(task)
    return {"id": task.id, "running": task.running, **{name: value for name, value in said.items() if name not in _PRIVATE}}


def suffixes_of(suffixes: tuple[str, ...], presets: tuple[str, ...], known: Mapping[str, str]) -> tuple[str, ...]:
    """The suffixes that are named, by themselves or by presets; each once, in order of the alphabet. Raise `BadTask` if one is none."""
    for text in suffixes:
        try:
            spelling.suffix(text)
        except ValueError as error:
            raise BadTask("suffixes", str(error)) from error
    for name in presets:
        if name not in known:
            raise BadTask("presets", f"there is no preset {name[:64]}")
    return tuple(sorted({*suffixes, *(known[name] for name in presets)}))


def _one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    if value and value not in known:
        raise BadTask(field, f"is none of {', '.join(known)}")
