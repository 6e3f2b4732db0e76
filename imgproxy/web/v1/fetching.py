"""Pictures from elsewhere: fetched by a task, which somebody may wait for, ask after, or be told of."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from imgproxy.errors import NoTask
from imgproxy.jobs.orders import Fetch
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.admin.tasks import ID, TaskShown, shown_task
from imgproxy.web.operation import PROBLEM, Answer, Asked, Operation, Problem, Reply


class Waiting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds to wait until it is done; 0 does not wait."""

    wait: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0


class Fetching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a picture is, its alias, the page that it was found on, what is known of it, and where to say that it is here.

    `metadata` is a JSON object, and becomes `user` of the record.
    """

    url: str
    domain: str = ""
    dkey: str = ""
    page_url: str = ""
    metadata: dict[str, Any] = {}
    callback: str = ""


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    return (
        Operation(
            name="v1_fetch",
            method="POST",
            path="/v1/fetch",
            scope="upload",
            what="Fetch a picture by its URL, and give it a record; with `wait` the answer comes when that is done, well or badly.",
            call=lambda asked: _fetch(opening.get(), asked),
            query=Waiting,
            body=Fetching,
            answers={
                200: Answer("It is done: `state` and `error` say how.", TaskShown),
                202: Answer("It is being done.", TaskShown, headers={"Location": "Where the task is."}),
            },
        ),
        Operation(
            name="v1_task",
            method="GET",
            path="/v1/tasks/{id}",
            scope="any",
            what="What became of a task.",
            call=lambda asked: _task(opening.get(), asked),
            parts={"id": ID},
            query=Waiting,
            answers={200: Answer("The task.", TaskShown), 404: Answer("No such task is known.", Problem, PROBLEM)},
            writes=False,
        ),
    )


def _fetch(office: Office, asked: Asked[Fetching]) -> Reply:
    said = asked.body
    order = Fetch(url=said.url, domain=said.domain, dkey=said.dkey, page_url=said.page_url, user=said.metadata, edits=asked.may("write"))
    task = office.jobs.submit(order, callback=said.callback, author=asked.author)
    if asked.query.wait:
        task = office.jobs.wait(task.id, asked.query.wait)
    where = {} if task.finished else {"Location": f"/v1/tasks/{task.id}"}
    return Reply(shown_task(task), status=200 if task.finished else 202, headers=where, audit={"task": task.id})


def _task(office: Office, asked: Asked[Any]) -> Reply:
    task = office.jobs.wait(asked.path["id"], asked.query.wait) if asked.query.wait else office.jobs.find(asked.path["id"])
    if task is None:
        raise NoTask("no such task is known")
    return Reply(shown_task(task))
