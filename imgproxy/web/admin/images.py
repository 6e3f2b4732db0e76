"""Images by their hash: what is said of one."""

from __future__ import annotations

from typing import Any

import msgspec

from imgproxy.errors import Missing
from imgproxy.web.admin import models
from imgproxy.web.admin.office import Opening
from imgproxy.web.operation import Answer, Asked, Operation, Reply

HASH = "[0-9a-f]{64}"
ETAG = {"ETag": "The version of the record, for If-Match."}


class InSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In which session."""

    session: str = ""


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""

    def show(asked: Asked[Any]) -> Reply:
        office = opening.get()
        sessions = office.words.sessions
        inside = sessions.find(asked.query.session) if asked.query.session else None
        record = sessions.read(asked.path["hash"], inside)
        if record is None:
            raise Missing("no record of that hash")
        return Reply(models.image(record, office.urls), headers={"ETag": f'"{record.version}"'})

    return (
        Operation(
            name="show_image",
            method="GET",
            path="/admin/images/{hash}",
            scope="write",
            what="What is said of an image, as it is live, or as a session shows it.",
            call=show,
            parts={"hash": HASH},
            query=InSession,
            answers={200: Answer("The record.", models.Image, headers=ETAG), 404: Answer("No such record, or no such session.")},
            writes=False,
        ),
    )
