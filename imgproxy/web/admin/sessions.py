"""Sessions: opened, looked at, compared, discarded."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import msgspec

from imgproxy.errors import Missing
from imgproxy.web.admin import models
from imgproxy.web.admin.finding import find
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.operation import PROBLEM, Answer, Asked, Operation, Problem, Reply

SESSION = "[^/]{1,100}"
HASH = "[0-9a-f]{64}"
NO_SESSION = Answer("No such session is open.", Problem, PROBLEM)
CLOSED = Answer("The session was committed, or is just being committed.", Problem, PROBLEM)


class Open(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a session is called, if it is; and who is behind it, if not the bearer of the token."""

    name: str = ""
    author: str = ""


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many, and behind which hash."""

    most: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100
    after: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    return (
        Operation(
            name="open_session",
            method="POST",
            path="/admin/sessions",
            scope="write",
            what="Open a session, or the one of that name.",
            call=lambda asked: _open(opening.get(), asked),
            body=Open,
            answers={201: Answer("It is open now.", models.Session), 200: Answer("It was open already.", models.Session)},
        ),
        Operation(
            name="sessions",
            method="GET",
            path="/admin/sessions",
            scope="write",
            what="All sessions that are open.",
            call=lambda _: _all(opening.get()),
            answers={200: Answer("All of them.", models.Sessions)},
            writes=False,
        ),
        Operation(
            name="show_session",
            method="GET",
            path="/admin/sessions/{session}",
            scope="write",
            what="A session, by its id or name.",
            call=lambda asked: _show(opening.get(), asked.path["session"]),
            parts={"session": SESSION},
            answers={200: Answer("The session.", models.Session), 404: NO_SESSION, 409: CLOSED},
            writes=False,
        ),
        Operation(
            name="compare_session",
            method="GET",
            path="/admin/sessions/{session}/diff",
            scope="write",
            what="What a session changes, record by record.",
            call=lambda asked: _compare(opening.get(), asked),
            parts={"session": SESSION},
            query=Page,
            answers={200: Answer("Some of it.", models.Differences), 404: NO_SESSION, 409: CLOSED},
            writes=False,
        ),
        Operation(
            name="undo_change",
            method="DELETE",
            path="/admin/sessions/{session}/changes/{hash}",
            scope="write",
            what="Take back what a session makes of one record, so that it shows what is live: the way out of a conflict.",
            call=lambda asked: _undo(opening.get(), asked),
            parts={"session": SESSION, "hash": HASH},
            answers={
                204: Answer("It is taken back."),
                404: Answer("No such session is open, or it does not change that record.", Problem, PROBLEM),
                409: CLOSED,
            },
        ),
        Operation(
            name="discard_session",
            method="DELETE",
            path="/admin/sessions/{session}",
            scope="write",
            what="Close a session and forget what it changes.",
            call=lambda asked: _discard(opening.get(), asked.path["session"]),
            parts={"session": SESSION},
            answers={204: Answer("It is closed, and forgotten."), 404: NO_SESSION, 409: CLOSED},
        ),
    )


def _open(office: Office, asked: Asked[Open]) -> Reply:
    sessions = office.words.sessions
    before = {one.id for one in sessions.all()}
    session = sessions.open(asked.body.name, asked.body.author or asked.author)
    shown = models.session(session, sessions.size(session))
    return Reply(shown, 200 if session.id in before else 201, audit={"session": session.id})


def _all(office: Office) -> Reply:
    sessions = office.words.sessions
    return Reply(models.Sessions(sessions=[models.session(one, sessions.size(one)) for one in sessions.all()]))


def _show(office: Office, which: str) -> Reply:
    session = find(office.words, which)
    return Reply(models.session(session, office.words.sessions.size(session)))


def _compare(office: Office, asked: Asked[Any]) -> Reply:
    session = find(office.words, asked.path["session"])
    page = list(islice(office.words.sessions.diff(session, asked.query.after), asked.query.most + 1))
    some = page[: asked.query.most]
    after = some[-1].hash if len(page) > len(some) else ""
    return Reply(models.Differences(differences=[models.difference(one, office.urls) for one in some], after=after))


def _undo(office: Office, asked: Asked[Any]) -> Reply:
    session = find(office.words, asked.path["session"])
    if not office.words.sessions.forget(session, asked.path["hash"]):
        raise Missing("the session does not change that record")
    return Reply(status=204, audit={"session": session.id, "hash": asked.path["hash"]})


def _discard(office: Office, which: str) -> Reply:
    session = find(office.words, which)
    office.words.sessions.discard(session)
    return Reply(status=204, audit={"session": session.id})
