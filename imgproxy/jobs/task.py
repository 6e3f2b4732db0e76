"""A task and its life, as values: what is kept of it, and what may become of it next.

    created -> succeeded | warning | failed       -> created again, if somebody wants that
    and then, for one with a callback:  waiting -> sending -> delivered | waiting | dead

Whoever works at a task holds it by name, and by a token of this attempt. What a holder that died leaves behind is found by the name:
work is done again, a callback is not, for it may have arrived. Who was taken for dead and is not, has a token that is worth nothing. A
ledger (`near.py`, `far.py`) keeps tasks and makes each of these steps happen once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
from msgspec.structs import replace

from imgproxy.jobs.orders import QUICK

State = Literal["created", "succeeded", "failed", "warning"]
DeliveryState = Literal["", "waiting", "sending", "delivered", "dead"]
Lane = Literal["quick", "long"]
LANES: tuple[Lane, ...] = ("quick", "long")

LONGEST_PAUSE = 3_600.0
"""No task is ever due later than this many seconds from now: one that seems to be, was written before the clock was set back."""
_SOON = 0.5


class Holder(NamedTuple):
    """A worker at one attempt; nobody has no name."""

    worker: str
    token: str


NOBODY = Holder("", "")


class Delivery(msgspec.Struct, frozen=True):
    """How a callback stands: its state, how often it was tried, what went wrong last, and when it arrived."""

    state: DeliveryState = ""
    attempts: int = 0
    error: str = ""
    delivered_at: str = ""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a task.

    `holder` works at it just now, by `token`; `due` is when it may be looked at; `node` alone may work at it.
    """

    id: str
    kind: str
    order: dict[str, Any]
    key: str
    number: int = 0
    state: State = "created"
    attempts: int = 0
    error: str = ""
    created_at: str = ""
    started_at: str = ""
    finished_at: str = ""
    progress: dict[str, Any] = {}
    result: dict[str, Any] = {}
    callback: str = ""
    author: str = ""
    delivery: Delivery = Delivery()
    node: str = ""
    holder: str = ""
    token: str = ""
    due: float = 0.0
    ended: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether it is done, well or badly."""
        return self.state != "created"

    @property
    def running(self) -> bool:
        """Whether somebody is at it just now."""
        return self.state == "created" and self.holder != ""

    @property
    def open(self) -> bool:
        """Whether anything is still to be done about it."""
        return not self.finished or self.delivery.state in ("waiting", "sending")

    @property
    def held(self) -> Holder:
        """Who is at it just now."""
        return Holder(self.holder, self.token)

    @property
    def lane(self) -> Lane:
        """In which lane stands what is to be done about it next."""
        return "quick" if self.finished or self.kind in QUICK else "long"


class Outcome(NamedTuple):
    """What became of the work: a state, what was made, and what was wrong with it."""

    state: Literal["succeeded", "failed", "warning"]
    result: Mapping[str, Any] = {}
    error: str = ""


class Wanted(NamedTuple):
    """Which tasks: of that state and kind (empty: any); `dead`: those whose callback could not be delivered."""

    state: str = ""
    kind: str = ""
    dead: bool = False

    def fits(self, task: Task) -> bool:
        """Whether a task is one of them."""
        dead = not self.dead or task.delivery.state == "dead"
        return dead and self.state in ("", task.state) and self.kind in ("", task.kind)


class Tasks(NamedTuple):
    """Some tasks, the newest first, and where to go on; an empty cursor is the end."""

    tasks: tuple[Task, ...]
    cursor: str


Edit: TypeAlias = Callable[[Task], Task | None]
"""What a task becomes; None leaves it as it is."""


class Ledger(Protocol):
    """Keeps tasks; used by many threads and processes at once."""

    def add(self, task: Task) -> Task:
        """Keep a new task, for good; or return the unfinished one of the same key."""

    def change(self, id: str, edit: Edit) -> Task | None:
        """Give a task another state, if `edit` has one, while nobody else changes it; None if nothing was changed."""

    def find(self, id: str) -> Task | None:
        """The task of that id."""

    def same(self, key: str) -> Task | None:
        """The unfinished task of that key."""

    def page(self, wanted: Wanted, most: int, cursor: str) -> Tasks:
        """Some of those that are wanted, the newest first."""

    def due(self, lane: Lane, node: str, now: float, most: int) -> list[Task]:
        """Open tasks of a lane and a node that nobody holds, and that may be looked at; those first that wait longest."""

    def held(self) -> list[Task]:
        """Open tasks that somebody holds."""

    def forget(self, before: float) -> int:
        """Forget what ended before that moment and is not open; how many that were."""

    def close(self) -> None:
        """Let go of what is held open."""


def stamp(moment: float) -> str:
    """A moment as text."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def is_due(task: Task, now: float) -> bool:
    """Whether a task may be looked at by now."""
    return task.due <= now + _SOON or task.due > now + LONGEST_PAUSE


def taken(holder: Holder, nodes: tuple[str, ...], now: float) -> Edit:
    """Take a task that nobody holds, to work at it or to deliver its callback."""

    def edit(task: Task) -> Task | None:
        if task.holder or task.node not in nodes or not is_due(task, now):
            return None
        if not task.finished:
            return _held(task, holder, attempts=task.attempts + 1, started_at=task.started_at or stamp(now), error="")
        if task.delivery.state != "waiting":
            return None
        return _held(task, holder, delivery=replace(task.delivery, state="sending", attempts=task.delivery.attempts + 1))

    return edit


def told(holder: Holder, progress: Mapping[str, Any]) -> Edit:
    """Note how far the work is."""
    return lambda task: replace(task, progress=dict(progress)) if task.held == holder and not task.finished else None


def finished(holder: Holder, outcome: Outcome, now: float) -> Edit:
    """The work is done, by its holder."""

    def edit(task: Task) -> Task | None:
        return _ended(task, outcome, now) if task.held == holder and not task.finished else None

    return edit


def put_back(holder: Holder, error: str, due: float, *, counted: bool = True) -> Edit:
    """The work is to be done again, later; an attempt that does not count was not the task's fault."""

    def edit(task: Task) -> Task | None:
        if task.held != holder or task.finished:
            return None
        return _held(task, NOBODY, error=error, due=due, attempts=task.attempts - (not counted))

    return edit


def delivered(holder: Holder, now: float) -> Edit:
    """The callback arrived."""

    def edit(task: Task) -> Task | None:
        if task.held != holder or task.delivery.state != "sending":
            return None
        return _held(task, NOBODY, delivery=replace(task.delivery, state="delivered", error="", delivered_at=stamp(now)))

    return edit


def undelivered(holder: Holder, error: str, due: float | None) -> Edit:
    """The callback did not arrive; it is tried again at a moment, or never by itself."""

    def edit(task: Task) -> Task | None:
        if task.held != holder or task.delivery.state != "sending":
            return None
        state: DeliveryState = "dead" if due is None else "waiting"
        return _held(task, NOBODY, due=due or 0.0, delivery=replace(task.delivery, state=state, error=error))

    return edit


def refused(holder: Holder) -> Edit:
    """It was taken by somebody who never heard of it: nobody was at it."""

    def edit(task: Task) -> Task | None:
        if task.held != holder:
            return None
        if not task.finished:
            return _held(task, NOBODY, attempts=task.attempts - 1)
        waiting = replace(task.delivery, state="waiting", attempts=task.delivery.attempts - 1)
        return _held(task, NOBODY, delivery=waiting)

    return edit


def abandoned(holder: Holder, most: int, now: float) -> Edit:
    """The holder is dead: work is done again, unless it was lost too often; a callback that may have arrived is not sent again."""

    def edit(task: Task) -> Task | None:
        if task.held != holder:
            return None
        if task.finished:
            lost = replace(task.delivery, state="dead", error="the worker was lost while it sent this: it may have arrived")
            return _held(task, NOBODY, delivery=lost)
        if task.attempts >= most:
            return _ended(task, Outcome("failed", error=f"the worker was lost at attempt {task.attempts}"), now)
        return _held(task, NOBODY, due=now, error="the worker was lost")

    return edit


def renewed(task: Task, now: float) -> Task | None:
    """A task that failed, or was done with a warning, from the beginning."""
    if task.state not in ("failed", "warning") or task.holder:
        return None
    return replace(
        task,
        state="created",
        attempts=0,
        error="",
        started_at="",
        finished_at="",
        progress={},
        result={},
        delivery=Delivery(),
        due=now,
        ended=0.0,
    )


def resent(task: Task, now: float) -> Task | None:
    """A dead letter once more."""
    return replace(task, delivery=Delivery("waiting"), due=now) if task.delivery.state == "dead" else None


def _ended(task: Task, outcome: Outcome, now: float) -> Task:
    return _held(
        task,
        NOBODY,
        state=outcome.state,
        result=dict(outcome.result),
        error=outcome.error,
        finished_at=stamp(now),
        ended=now,
        due=now,
        delivery=Delivery("waiting") if task.callback else Delivery(),
    )


def _held(task: Task, holder: Holder, **changes: Any) -> Task:
    return replace(task, holder=holder.worker, token=holder.token, **changes)
