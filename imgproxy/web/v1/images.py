"""Pictures by their id, which is their hash: put, found, shown, and taken away."""

from __future__ import annotations

from typing import Any

import msgspec

from imgproxy.errors import Missing
from imgproxy.grammar import Base, Name, rendition
from imgproxy.meta.record import Record, shown
from imgproxy.meta.sessions import Session
from imgproxy.web.admin import models, receiving
from imgproxy.web.admin.finding import find
from imgproxy.web.admin.images import Filters, InSession, Most
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.admin.sessions import CLOSED, HASH
from imgproxy.web.operation import PROBLEM, Answer, Asked, Operation, Problem, Reply

THUMBNAIL, FULL_SIZE = "thumbnail", "full-size"
LIFE = 60
"""For so many seconds it may be kept where a picture is."""

_THERE = Answer("Where it is.", headers={"Location": "The path of the picture."})
_NO_IMAGE = Answer("No such image is committed.", Problem, PROBLEM)
_NOT_FOR_ALL = Answer("It is not for everybody here, without a signature.", Problem, PROBLEM)


class Wanted(Filters, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is looked for, all of it at once; and how much of it: `most`, from `cursor` on."""

    most: Most = 50
    cursor: str = ""


class Ids(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of some images, where to go on (empty: nowhere), and how many there are in all: exactly, or at least."""

    ids: list[str]
    cursor: str = ""
    total: int
    exact: bool


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """In which session an image was deleted; it is gone when that is committed."""

    session: str


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    shape: dict[str, Any] = {"parts": {"id": HASH}, "answers": {302: _THERE, 403: _NOT_FOR_ALL, 404: _NO_IMAGE}}
    return (
        receiving.uploading(opening, "v1_upload", "/v1/upload/"),
        Operation(
            name="v1_images",
            method="GET",
            path="/v1/images",
            scope=None,
            what="The ids of the images that a search finds, newest first, page by page.",
            call=lambda asked: _search(opening.get(), asked.query),
            query=Wanted,
            answers={200: Answer("A page of them.", Ids), 410: Answer("The search began too long ago: begin again.", Problem, PROBLEM)},
            writes=False,
        ),
        Operation(
            name="v1_metadata",
            method="GET",
            path="/v1/images/{id}/metadata",
            scope=None,
            what="What is said of an image.",
            call=lambda asked: _metadata(opening.get(), asked.path["id"]),
            parts={"id": HASH},
            answers={200: Answer("The record.", models.Image), 404: _NO_IMAGE},
            writes=False,
        ),
        Operation(
            name="v1_original",
            method="GET",
            path="/v1/images/{id}/original",
            scope=None,
            what="Where the original is.",
            call=lambda asked: _shown(opening.get(), asked.path["id"], ""),
            writes=False,
            **shape,
        ),
        Operation(
            name="v1_delete_original",
            method="DELETE",
            path="/v1/images/{id}/original",
            scope="write",
            what="Delete an image in a session: its record goes with the commit, its original and all that was made of it after that.",
            call=lambda asked: _deleted(opening.get(), asked),
            parts={"id": HASH},
            query=InSession,
            answers={
                202: Answer("It is deleted in the session.", Deleted),
                404: Answer("No such image, or no such session.", Problem, PROBLEM),
                409: CLOSED,
            },
        ),
        *(row for preset in (FULL_SIZE, THUMBNAIL) for row in _of_preset(opening, preset, shape)),
    )


def _of_preset(opening: Opening, preset: str, shape: dict[str, Any]) -> tuple[Operation, Operation]:
    word = preset.replace("-", "_")
    return (
        Operation(
            name=f"v1_{word}",
            method="GET",
            path=f"/v1/images/{{id}}/{preset}",
            scope=None,
            what=f"Where the rendition by the preset {preset} is; it is made when it is asked for.",
            call=lambda asked: _shown(opening.get(), asked.path["id"], preset),
            writes=False,
            **shape,
        ),
        Operation(
            name=f"v1_delete_{word}",
            method="DELETE",
            path=f"/v1/images/{{id}}/{preset}",
            scope="write",
            what=f"Forget the rendition by the preset {preset}, wherever it is kept; it is made again when it is asked for.",
            call=lambda asked: _forgotten(opening.get(), asked.path["id"], preset),
            parts={"id": HASH},
            answers={204: Answer("It is kept nowhere any more.")},
        ),
    )


def _search(office: Office, wanted: Wanted) -> Reply:
    page = office.words.search.page(wanted.query(), most=wanted.most, cursor=wanted.cursor)
    return Reply(Ids(ids=[record.hash for record in page.records], cursor=page.cursor, total=page.total, exact=page.exact))


def _live(office: Office, id: str) -> Record:
    record = office.words.sessions.read(id)
    if record is None:
        raise Missing("no such image is committed")
    return record


def _metadata(office: Office, id: str) -> Reply:
    record = _live(office, id)
    name = str(Base(record.hash, record.type))
    return Reply(models.Image(**shown(record), name=name, url=f"/{name}"))


def _shown(office: Office, id: str, preset: str) -> Reply:
    record = _live(office, id)
    name: Name = rendition(id, office.presets[preset]) if preset else Base(id, record.type)
    office.policy.allows(name, signed=False)
    return Reply(status=302, headers={"Location": f"/{name}", "Cache-Control": f"public, max-age={LIFE}"})


def _forgotten(office: Office, id: str, preset: str) -> Reply:
    name = rendition(id, office.presets[preset])
    office.images.unmake(name)
    return Reply(status=204, audit={"name": str(name)})


def _deleted(office: Office, asked: Asked[Any]) -> Reply:
    sessions = office.words.sessions

    def delete(session: Session) -> str:
        sessions.delete(session, asked.path["id"])
        return session.id

    where = sessions.say(find(office.words, asked.query.session), delete)
    return Reply(Deleted(session=where), status=202, audit={"session": where})
