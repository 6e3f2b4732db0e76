"""Images by their hash, and by what is said of them: found, shown, described, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal

import msgspec

from imgproxy.errors import BadRecord, Changed, Missing
from imgproxy.meta import query as meta_query
from imgproxy.meta.near import near
from imgproxy.meta.record import Record, edited, state
from imgproxy.web.admin import models
from imgproxy.web.admin.finding import find, inside
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.admin.sessions import CLOSED, HASH
from imgproxy.web.operation import JSON, PROBLEM, Answer, Asked, Operation, Problem, Reply

ETAG = {"ETag": "The version of the record, for If-Match."}
IF_MATCH = {"If-Match": "The ETag, or the version in quotes, of the record that this is meant for."}
NO_RECORD = Answer("No such record, or no such session.", Problem, PROBLEM)
_CHANGED = Answer("The record is no longer the one that If-Match means.", Problem, PROBLEM)
_MERGE = "application/merge-patch+json"

MOST = 2**53
Most = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
Side = Annotated[int, msgspec.Meta(ge=0, le=MOST)]


class InSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In which session: its id or name. Of reads, none means what is live; of writes, none is the default session."""

    session: str = ""


class Filters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is looked for, all of it at once; what is left as it is asks for nothing."""

    words: str = ""
    tags: list[str] = []
    taken_from: str = ""
    taken_to: str = ""
    type: str = ""
    orientation: Literal["", "landscape", "portrait", "square"] = ""
    min_width: Side = 0
    max_width: Side = MOST
    min_height: Side = 0
    max_height: Side = MOST
    min_bytes: Side = 0
    max_bytes: Side = MOST
    domain: str = ""
    dkey: str = ""
    md5: str = ""
    order: Literal["taken", "added"] = "taken"
    oldest: bool = False

    def asked(self) -> dict[str, Any]:
        """What is asked for, by name; further fields of a door's own form are not for the search."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if name in Filters.__struct_fields__}

    def query(self) -> meta_query.Query:
        """The same, checked, as a search wants it."""
        return meta_query.read(self.asked())


class Wanted(Filters, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is looked for, all of it at once; and how much of it: `most`, from `cursor` on, live or as a session shows it.

    `like` is a hash, and finds what looks like that image; only `most` and `session` go with it.
    """

    like: str = ""
    most: Most = 50
    cursor: str = ""
    session: str = ""


class Patch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said anew, as a JSON merge patch: null takes back what was said, and `user` is merged name by name."""

    title: str | msgspec.UnsetType | None = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    tags: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    taken_at: str | msgspec.UnsetType | None = msgspec.UNSET
    domain: str | msgspec.UnsetType | None = msgspec.UNSET
    dkey: str | msgspec.UnsetType | None = msgspec.UNSET
    user: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    return (
        Operation(
            name="search",
            method="GET",
            path="/admin/images",
            scope="write",
            what="The images that something is said of, newest first, page by page.",
            call=lambda asked: _search(opening.get(), asked.query),
            query=Wanted,
            answers={200: Answer("A page of them.", models.Images), 404: NO_RECORD, 409: CLOSED},
            writes=False,
        ),
        Operation(
            name="show_image",
            method="GET",
            path="/admin/images/{hash}",
            scope="write",
            what="What is said of an image, as it is live, or as a session shows it.",
            call=lambda asked: _show(opening.get(), asked),
            parts={"hash": HASH},
            query=InSession,
            answers={200: Answer("The record.", models.Image, headers=ETAG), 404: NO_RECORD, 409: CLOSED},
            writes=False,
        ),
        Operation(
            name="describe_image",
            method="PATCH",
            path="/admin/images/{hash}",
            scope="write",
            what="Say something of an image in a session; the public sees it when that is committed.",
            call=lambda asked: _describe(opening.get(), asked),
            parts={"hash": HASH},
            query=InSession,
            body=Patch,
            media=(_MERGE, JSON),
            headers=IF_MATCH,
            answers={
                200: Answer("The record as the session shows it.", models.Image, headers=ETAG),
                404: NO_RECORD,
                409: CLOSED,
                412: _CHANGED,
            },
        ),
        Operation(
            name="delete_image",
            method="DELETE",
            path="/admin/images/{hash}",
            scope="write",
            what="Delete an image in a session: its record goes with the commit, its original after it.",
            call=lambda asked: _delete(opening.get(), asked),
            parts={"hash": HASH},
            query=InSession,
            headers=IF_MATCH,
            answers={204: Answer("It is deleted in the session."), 404: NO_RECORD, 409: CLOSED, 412: _CHANGED},
        ),
    )


def _search(office: Office, wanted: Wanted) -> Reply:
    words = office.words
    session = inside(words, wanted.session)
    if wanted.like:
        return Reply(_like(office, wanted))
    page = words.search.page(wanted.query(), most=wanted.most, cursor=wanted.cursor, session=session)
    shown = [models.image(record, office.urls) for record in page.records]
    return Reply(models.Images(images=shown, cursor=page.cursor, total=page.total, exact=page.exact, commit=page.moment))


def _like(office: Office, wanted: Wanted) -> models.Images:
    record = office.words.sessions.read(wanted.like)
    if record is None:
        raise Missing("no record of that hash")
    if not record.phash:
        raise BadRecord("like", "names an image of which no perceptual hash is known")
    found = [one.record for one in near(office.words.database, record.phash, most=wanted.most) if one.record.hash != record.hash]
    return models.Images(images=[models.image(one, office.urls) for one in found], total=len(found))


def _show(office: Office, asked: Asked[Any]) -> Reply:
    record = _read(office, asked.path["hash"], asked.query.session)
    return Reply(models.image(record, office.urls), headers={"ETag": etag(record)})


def _read(office: Office, hash: str, session: str) -> Record:
    record = office.words.sessions.read(hash, inside(office.words, session))
    if record is None:
        raise Missing("no record of that hash")
    return record


def _describe(office: Office, asked: Asked[Patch]) -> Reply:
    session = find(office.words, asked.query.session)
    said = msgspec.to_builtins(asked.body)

    def change(record: Record) -> Record:
        _must_match(record, asked.headers)
        return edited(record, _merged(record, said))

    sessions = office.words.sessions
    record = sessions.say(session, lambda found: sessions.rework(found, asked.path["hash"], change))
    return Reply(models.image(record, office.urls), headers={"ETag": etag(record)}, audit={"session": session.id})


def _delete(office: Office, asked: Asked[Any]) -> Reply:
    session = find(office.words, asked.query.session)
    sessions = office.words.sessions
    sessions.say(session, lambda found: sessions.delete(found, asked.path["hash"], lambda record: _must_match(record, asked.headers)))
    return Reply(status=204, audit={"session": session.id})


def etag(record: Record) -> str:
    """What tells this state of a record from all others: its version, and a hash of it, for a session may have changed it since."""
    return f'"{record.version}-{sha256(state(record).encode()).hexdigest()[:16]}"'


def _must_match(record: Record, headers: Mapping[str, str]) -> None:
    """Return if the asker means this state of a record, or any; else raise `Changed`."""
    said = headers.get("if-match")
    if said is None or said.strip() == "*":
        return
    if not {etag(record), f'"{record.version}"'} & {one.strip() for one in said.split(",")}:
        raise Changed(f"the record is not what If-Match means; it is {etag(record)} now")


def _merged(record: Record, said: dict[str, Any]) -> dict[str, Any]:
    """A merge patch as an edit: what it says of `user` is merged into what is there."""
    if isinstance(said.get("user"), dict):
        return {**said, "user": _patched(dict(record.user), said["user"])}
    return said


def _patched(value: Any, patch: Any) -> Any:
    """The rule of RFC 7396; no deeper than what may be kept is."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, part in patch.items():
        if part is None:
            result.pop(name, None)
        else:
            result[name] = _patched(result.get(name), part)
    return result
