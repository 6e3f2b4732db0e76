"""How the repository is."""

from __future__ import annotations

from typing import Any

from imgproxy.errors import StoreTrouble
from imgproxy.meta.database import moment
from imgproxy.web.admin.models import Status
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.operation import Answer, Asked, Operation, Reply


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""

    def status(asked: Asked[Any]) -> Reply:
        return Reply(_status(opening.get()))

    return (
        Operation(
            name="status",
            method="GET",
            path="/admin/status",
            scope="any",
            what="How the repository is, seen from this node.",
            call=status,
            answers={200: Answer("How it is.", Status)},
            writes=False,
        ),
    )


def _status(office: Office) -> Status:
    words = office.words
    with words.database.reading() as db:
        commit = moment(db)
        (records,) = db.execute("SELECT count(*) FROM records").fetchone()
        (sessions,) = db.execute("SELECT count(*) FROM sessions").fetchone()
    try:
        held = words.lease.read()
    except StoreTrouble:
        held = None
    return Status(
        commit=commit,
        records=records,
        sessions=sessions,
        writer=held.holder if held is not None else "",
        farewell=words.farewell.waiting(),
        lag=round(words.follower.lag(), 3),
    )
