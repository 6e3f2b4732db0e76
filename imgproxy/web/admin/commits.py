"""Commits: made, listed, gone back on."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from imgproxy.errors import Missing, NoSession
from imgproxy.jobs import orders
from imgproxy.meta.commits import Commit
from imgproxy.meta.repository import Words
from imgproxy.web.admin import models
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.admin.tasks import ORDERED, accepted
from imgproxy.web.operation import PROBLEM, Answer, Asked, Operation, Problem, Reply

_AT_ONCE = 200
"""So many deleted originals are removed before a commit is answered; more are the clerk's."""

NUMBER = "[1-9][0-9]{0,15}"
_CONFLICT = Answer("Others changed these records meanwhile: nothing happened, and the session stays open.", Problem, PROBLEM)


class Committing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which session (none: the default session), what it is about, and who is behind it, if not the bearer of the token.

    Without `wait` it is a task.
    """

    session: str = ""
    message: str = ""
    author: str = ""
    wait: bool = True


class Reverting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is behind it, if not the bearer of the token."""

    author: str = ""


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many, before which; perhaps only those that made the record of one image what it is."""

    most: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100
    before: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    of: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    return (
        Operation(
            name="commit",
            method="POST",
            path="/admin/commit",
            scope="commit",
            what="Make all of a session live, at one moment and for good.",
            call=lambda asked: _commit(opening.get(), asked),
            query=Committing,
            answers={
                201: Answer(
                    "It is committed; asked again by the id of the session, the answer is the same commit. Its name is free again.",
                    models.Commit,
                ),
                200: Answer("There was nothing to commit.", models.Commit),
                202: ORDERED,
                404: Answer("No such session is open.", Problem, PROBLEM),
                409: _CONFLICT,
            },
        ),
        Operation(
            name="commits",
            method="GET",
            path="/admin/commits",
            scope="any",
            what="The newest commits.",
            call=lambda asked: _log(opening.get().words, asked.query),
            query=Page,
            answers={200: Answer("Some of them.", models.Commits), 404: Answer("No record of that hash.", Problem, PROBLEM)},
            writes=False,
        ),
        Operation(
            name="show_commit",
            method="GET",
            path="/admin/commits/{n}",
            scope="any",
            what="A commit by its number.",
            call=lambda asked: Reply(models.commit(opening.get().words.commits.find(int(asked.path["n"])))),
            parts={"n": NUMBER},
            answers={200: Answer("The commit.", models.Commit), 404: Answer("No such commit.", Problem, PROBLEM)},
            writes=False,
        ),
        Operation(
            name="revert",
            method="POST",
            path="/admin/commits/{n}/revert",
            scope="commit",
            what="Go back on a commit, by a new one.",
            call=lambda asked: _revert(opening.get(), asked),
            query=Reverting,
            parts={"n": NUMBER},
            answers={
                201: Answer("The new commit.", models.Commit),
                200: Answer("There was nothing to go back on.", models.Commit),
                404: Answer("No such commit.", Problem, PROBLEM),
                409: Answer("Others changed these records since, or their originals are gone: nothing happened.", Problem, PROBLEM),
            },
        ),
    )


def _commit(office: Office, asked: Asked[Any]) -> Reply:
    words = office.words
    try:
        session = words.sessions.find(asked.query.session).id
    except NoSession:
        if words.commits.of_session(asked.query.session) is None:
            raise
        session = asked.query.session
    author = asked.query.author or asked.author
    if not asked.query.wait:
        order = orders.Commit(session=session, author=author, message=asked.query.message)
        return accepted(office.jobs.submit(order, author=asked.author))
    return _made(office, words.commits.commit(session, author, asked.query.message), session)


def _revert(office: Office, asked: Asked[Any]) -> Reply:
    n = int(asked.path["n"])
    words, author = office.words, asked.query.author or asked.author
    return _made(office, words.commits.undo(n, words.sessions, author), "")


def _made(office: Office, made: Commit | None, session: str) -> Reply:
    if made is None:
        return Reply(models.commit(None), audit={"session": session})
    office.let_go(_AT_ONCE)
    return Reply(models.commit(made), 201, audit={"session": made.session, "commit": made.n, "changes": made.changes})


def _log(words: Words, page: Page) -> Reply:
    if page.of:
        if words.sessions.read(page.of) is None:
            raise Missing("no record of that hash")
        history = list(words.commits.history(page.of, page.most, page.before))
        older = history[-1][1].based_on if len(history) == page.most else 0
        return Reply(models.Commits(commits=[models.commit(one) for one, _ in history], before=older + 1 if older else 0))
    found = words.commits.log(page.before or None, page.most)
    before = found[-1].n if len(found) == page.most and found[-1].n > 1 else 0
    return Reply(models.Commits(commits=[models.commit(one) for one in found], before=before))
