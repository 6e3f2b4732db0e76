"""Work that nobody waits for: pictures fetched, renditions made ahead; and how it goes with tasks and their callbacks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any, Literal

import msgspec

from imgproxy.errors import NoTask
from imgproxy.jobs import PAGE, Task, shown
from imgproxy.jobs.orders import Derive, DeriveWords, Fetch, FetchWords, Order
from imgproxy.web.admin.images import Filters
from imgproxy.web.admin.office import Opening
from imgproxy.web.operation import PROBLEM, Answer, Asked, Operation, Problem, Reply

ID = "[0-9a-f]{16}"
_PATH = "/admin/tasks"
_LOCATION = {"Location": "Where the task is."}
_NO_TASK = Answer("No such task.")
_WRONG = Answer("A field is wrong, `field` says which; or too long: of more than some 3,800 hashes order in parts.", Problem, PROBLEM)
_READ = 2**23
"""So many bytes of an order are read, that whoever orders far too much at once is told what to do."""
Most = Annotated[int, msgspec.Meta(ge=1, le=PAGE)]


class Delivery(msgspec.Struct, frozen=True):
    """How the callback of a task stands; an empty state: there is none, or not yet."""

    state: Literal["", "waiting", "sending", "delivered", "dead"]
    attempts: int
    error: str
    delivered_at: str


class TaskShown(msgspec.Struct, frozen=True):
    """A task: what was ordered, how far it is, and how it ended."""

    id: str
    running: bool
    kind: str
    order: dict[str, Any]
    state: Literal["created", "succeeded", "failed", "warning"]
    attempts: int
    error: str
    created_at: str
    started_at: str
    finished_at: str
    progress: dict[str, Any]
    result: dict[str, Any]
    callback: str
    author: str
    delivery: Delivery


class TasksShown(msgspec.Struct, frozen=True):
    """Some tasks, the newest first, and where to go on; an empty cursor is the end."""

    tasks: list[TaskShown]
    cursor: str


class Names(msgspec.Struct, frozen=True):
    """Names of renditions, in order; there are more after the last one if `more` says so."""

    names: list[str]
    more: bool


class FetchWanted(FetchWords, frozen=True):
    """A picture to be fetched, and the URL that hears of the end."""

    callback: str = ""


class DeriveWanted(DeriveWords, frozen=True):
    """Renditions to be made, of some images or (without `hashes`) of others, and the URL that hears of the end."""

    hashes: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    callback: str = ""


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which tasks."""

    state: Literal["", "created", "succeeded", "failed", "warning"] = ""
    kind: Literal["", "fetch", "derive", "sync", "verify", "snapshot", "commit", "cull"] = ""
    most: Most = 50
    cursor: str = ""


class Dead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters."""

    most: Most = 50
    cursor: str = ""


ORDERED = Answer("It is ordered, or was already.", TaskShown, headers=_LOCATION)


class Wanting(Filters, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which renditions, of which images (of all, if nothing is looked for), and after which name."""

    suffix: tuple[str, ...] = ()
    preset: tuple[str, ...] = ()
    most: Most = 100
    after: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64}.*)?$")] = ""


def shown_task(task: Task) -> TaskShown:
    """A task as it is answered."""
    return msgspec.convert(shown(task), TaskShown)


def accepted(task: Task) -> Reply:
    """The answer to an order."""
    return Reply(shown_task(task), status=202, headers={"Location": f"{_PATH}/{task.id}"}, audit={"task": task.id})


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    return (*_ordering(opening), *_missing(opening), *_looking(opening), *_again(opening))


def _ordering(opening: Opening) -> tuple[Operation, ...]:
    ordered = {202: ORDERED}

    def fetch(asked: Asked[FetchWanted]) -> Reply:
        return _ordered(opening, asked, Fetch(**_without(asked.body, "callback"), edits=asked.may("write")), asked.body.callback)

    def derive(asked: Asked[DeriveWanted]) -> Reply:
        return _ordered(opening, asked, _derive(asked.body), asked.body.callback)

    return (
        Operation(
            name="fetch",
            method="POST",
            path="/admin/fetch",
            scope="upload",
            what="Have the picture at a URL fetched into a session, with what is said of it, and renditions made of it.",
            call=fetch,
            body=FetchWanted,
            answers={**ordered, 404: Answer("No such session.")},
        ),
        Operation(
            name="derive",
            method="POST",
            path="/admin/derive",
            scope="write",
            what="Have renditions made: these names, and these suffixes and presets of some images, of what a search finds, or of all.",
            call=derive,
            body=DeriveWanted,
            most=_READ,
            answers={**ordered, 422: _WRONG},
        ),
    )


def _missing(opening: Opening) -> tuple[Operation, ...]:
    def names(asked: Asked[Any]) -> Reply:
        said = asked.query
        found = opening.get().jobs.missing(said.suffix, said.preset, said.asked(), said.after)
        some = list(islice(found, said.most + 1))
        return Reply(Names(some[: said.most], len(some) > said.most))

    def make(asked: Asked[DeriveWanted]) -> Reply:
        return _ordered(opening, asked, _derive(asked.body, missing=True), asked.body.callback)

    return (
        Operation(
            name="missing",
            method="GET",
            path="/admin/derive/missing",
            scope="write",
            what="Which renditions are not there, in order: of all committed images, or of those that a search finds.",
            call=names,
            query=Wanting,
            answers={200: Answer("Their names.", Names)},
            writes=False,
        ),
        Operation(
            name="derive_missing",
            method="POST",
            path="/admin/derive/missing",
            scope="write",
            what="Have those renditions made that are not there.",
            call=make,
            body=DeriveWanted,
            most=_READ,
            answers={202: ORDERED, 422: _WRONG},
        ),
    )


def _looking(opening: Opening) -> tuple[Operation, ...]:
    def tasks(asked: Asked[Any]) -> Reply:
        said = asked.query
        page = opening.get().jobs.all(state=said.state, kind=said.kind, most=said.most, cursor=said.cursor)
        return Reply(TasksShown([shown_task(task) for task in page.tasks], page.cursor))

    def letters(asked: Asked[Any]) -> Reply:
        page = opening.get().jobs.dead_letters(most=asked.query.most, cursor=asked.query.cursor)
        return Reply(TasksShown([shown_task(task) for task in page.tasks], page.cursor))

    def task(asked: Asked[Any]) -> Reply:
        found = opening.get().jobs.find(asked.path["id"])
        if found is None:
            raise NoTask("no such task is known")
        return Reply(shown_task(found))

    return (
        _row("tasks", "GET", _PATH, "write", "The tasks, the newest first.", tasks, TasksShown, query=Which),
        _row("task", "GET", f"{_PATH}/{{id}}", "any", "A task: how far it is, and how it ended.", task, TaskShown),
        _row(
            "letters",
            "GET",
            "/admin/letters",
            "write",
            "The tasks whose callback could not be delivered, the newest first.",
            letters,
            TasksShown,
            query=Dead,
        ),
    )


def _again(opening: Opening) -> tuple[Operation, ...]:
    def retry(asked: Asked[Any]) -> Reply:
        return accepted(opening.get().jobs.retry(asked.path["id"]))

    def redeliver(asked: Asked[Any]) -> Reply:
        return accepted(opening.get().jobs.redeliver(asked.path["id"]))

    again, send = "Do a task again that failed, or was done with a warning.", "Send a callback again that could not be delivered."
    return (
        _row("retry_task", "POST", f"{_PATH}/{{id}}/retry", "write", again, retry, TaskShown),
        _row("retry_letter", "POST", "/admin/letters/{id}/retry", "write", send, redeliver, TaskShown),
    )


def _row(
    name: str, method: str, path: str, scope: str, what: str, call: Callable[[Asked[Any]], Reply], answer: Any, **more: Any
) -> Operation:
    """A row of this page: about one task if its path has an id, and an order if it writes."""
    writes = method == "POST"
    answers = {
        202 if writes else 200: Answer("The task." if answer is TaskShown else "The tasks.", answer, headers=_LOCATION if writes else {})
    }
    if "{id}" in path:
        answers[404] = _NO_TASK
        more["parts"] = {"id": ID}
    if writes:
        answers[409] = Answer("There is nothing to be done again.")
    return Operation(name=name, method=method, path=path, scope=scope, what=what, call=call, answers=answers, writes=writes, **more)


def _ordered(opening: Opening, asked: Asked[Any], order: Order, callback: str) -> Reply:
    return accepted(opening.get().jobs.submit(order, callback=callback, author=asked.author))


def _derive(body: DeriveWanted, *, missing: bool = False) -> Derive:
    return Derive(**{**_without(body, "callback"), "hashes": body.hashes or ()}, missing=missing)


def _without(body: msgspec.Struct, name: str) -> dict[str, Any]:
    return {field: value for field, value in msgspec.structs.asdict(body).items() if field != name}
