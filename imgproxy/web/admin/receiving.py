"""Uploads: one image as the body, or several as the files of a form; each becomes an original, with a record in a session."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from imgproxy import observe
from imgproxy.errors import BadRecord, Error
from imgproxy.grammar import rendition
from imgproxy.images import Sums
from imgproxy.jobs.orders import Derive
from imgproxy.meta import record
from imgproxy.meta.sessions import Session
from imgproxy.picture import MEDIA_TYPES
from imgproxy.spelling import suffix
from imgproxy.web.admin import models
from imgproxy.web.admin.finding import find
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.admin.sessions import CLOSED, NO_SESSION
from imgproxy.web.body import Body
from imgproxy.web.operation import PROBLEM, Answer, Asked, Operation, Problem, Reply, Upload
from imgproxy.web.problems import problem_of, told
from imgproxy.web.spool import MULTIPART, PARTS, Arrived, Refused

FORM_BYTES = 2**34
"""So many bytes may come in one form; each file is bounded by `limits.file_bytes`."""

_RAW = ("application/octet-stream", "application/x-www-form-urlencoded", "")
"""What senders say who say nothing."""


class Saying(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of what comes, and in which session it is said; `tags` may have commas, `user` is a JSON object as text.

    `hints` are presets, or suffixes such as `-256x256-fill.webp`, of renditions to make ahead.
    """

    session: str = ""
    title: str = ""
    description: str = ""
    tags: list[str] = []
    taken_at: str = ""
    domain: str = ""
    dkey: str = ""
    user: str = ""
    hints: list[str] = []


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to become of what comes: in which session, what is said of it, which suffixes are made ahead.

    And whose wish it is, and whether they may say something of a picture that has a record.
    """

    session: Session
    said: dict[str, Any]
    hints: list[str]
    author: str
    edits: bool


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    return (uploading(opening, "upload", "/admin/images"),)


def uploading(opening: Opening, name: str, path: str) -> Operation:
    """The row for uploads at a path."""
    return Operation(
        name=name,
        method="POST",
        path=path,
        scope="upload",
        what="Keep images: one as the body, or several as the files of a form; each gets a record in a session."
        " What is said of one that has a record stays, unless the token is for `write`, too.",
        call=lambda asked: _upload(opening.get(), asked),
        query=Saying,
        body=Upload((MULTIPART, *_RAW, *MEDIA_TYPES.values()), FORM_BYTES),
        headers={
            "Repr-Digest": "The SHA-256 of the image that is the body, as `sha-256=:base64:`; what does not match is refused.",
            "Content-Digest": "The same.",
            "Content-Disposition": "Its file name, as `attachment; filename=a.jpg`.",
        },
        answers={
            201: Answer("It is kept; or of several, all are, and at least one was not before.", models.Uploaded | list[models.Outcome]),
            200: Answer("It was kept already; or all of several.", models.Uploaded | list[models.Outcome]),
            207: Answer("Of several at least one is refused; each tells what became of it.", list[models.Outcome]),
            404: NO_SESSION,
            409: CLOSED,
            507: Answer("There is no room for it.", Problem, PROBLEM),
        },
    )


def _upload(office: Office, asked: Asked[Body]) -> Reply:
    wish = wished(office, asked.query, asked.author, edits=asked.may("write"))
    with ExitStack() as held:
        if asked.media.partition(";")[0].strip().lower() != MULTIPART:
            return _one(office, office.inbox.whole(asked.body, asked.headers, held), wish)
        files = office.inbox.form(asked.body, asked.media, asked.headers, held)
        if not files:
            raise BadRecord("", "the form has no file")
        if len(files) == 1 and isinstance(files[0], Arrived):
            return _one(office, files[0], wish)
        if len(files) == 1 and isinstance(files[0], Refused):
            raise files[0].error
        if "domain" in wish.said:
            raise BadRecord("domain", "is for one image alone")
        return _several([_outcome(office, one, wish) for one in files], wish)


def wished(office: Office, saying: Saying, author: str, *, edits: bool) -> Wish:
    """What somebody wishes, if it makes sense."""
    return Wish(find(office.words, saying.session), _said(saying), _suffixes(office, saying.hints), author, edits)


def _one(office: Office, arrived: Arrived, wish: Wish) -> Reply:
    value = kept(office, arrived.file, arrived.sums, wish)
    return Reply(value, 201 if value.new else 200, audit={"session": wish.session.id, "hash": value.hash})


def _several(all: list[models.Outcome], wish: Wish) -> Reply:
    status = 207 if any(one.problem for one in all) else 201 if any(one.new for one in all) else 200
    hashes = [one.hash for one in all if one.hash]
    return Reply(all, status, audit={"session": wish.session.id, "files": len(all), "hashes": hashes[:PARTS]})


def _outcome(office: Office, one: Arrived | Refused, wish: Wish) -> models.Outcome:
    try:
        if isinstance(one, Refused):
            raise one.error
        done = kept(office, one.file, one.sums, wish)
    except Error as error:
        problem = problem_of(error)
        return models.Outcome(file=one.name, status=int(problem.status[:3]), problem=Problem(**told(problem, error)))
    return models.Outcome(
        file=one.name,
        status=201 if done.new else 200,
        hash=done.hash,
        name=done.name,
        url=done.url,
        new=done.new,
        said=done.said,
        image=done.image,
        hints=done.hints,
    )


def kept(office: Office, file: BinaryIO, sums: Sums, wish: Wish) -> models.Uploaded:
    """Keep a file as it is wished."""
    done = office.uploads.keep(file, wish.session, wish.said, sums, edits=wish.edits)
    name = done.added.name
    image = models.image(done.record, office.urls) if wish.edits or done.first else None
    names = [rendition(name.hash, hint) for hint in wish.hints]
    if names:
        _order(office, Derive(names=tuple(map(str, names))), wish.author)
    urls = [office.urls.url(name) for name in names]
    url = office.urls.url(name)
    return models.Uploaded(hash=name.hash, name=str(name), url=url, new=done.added.new, said=done.said, image=image, hints=urls)


def _order(office: Office, order: Derive, author: str) -> None:
    """Have renditions made ahead; without, they are made when somebody asks, so an upload does not fail for it."""
    try:
        office.jobs.submit(order, author=author)
    except Error as error:
        observe.event("renditions are not made ahead", {"why": str(error)}, level="warning")


def _said(query: Saying) -> dict[str, Any]:
    """What people say in a query, as an edit; checked when the first record is made of it."""
    said: dict[str, Any] = {}
    for name in ("title", "description", "taken_at", "domain", "dkey"):
        if value := getattr(query, name):
            said[name] = value
    tags = [tag.strip() for text in query.tags for tag in text.split(",")]
    if any(tags):
        said["tags"] = [tag for tag in tags if tag]
    if query.user:
        try:
            said["user"] = record.loads(query.user.encode("utf-8", "surrogateescape"))
        except BadRecord as error:
            raise BadRecord("user", error.why) from error
    record.edited(_ANY, said)
    return said


_ANY = record.Record(hash="0" * 64, type="png", width=1, height=1, bytes=1)


def _suffixes(office: Office, hints: list[str]) -> list[str]:
    """What hints stand for: presets by their names, suffixes as they are."""
    found = []
    for hint in hints:
        try:
            found.append(office.presets[hint] if hint in office.presets else suffix(hint))
        except ValueError as error:
            raise BadRecord("hints", f"has what is neither a preset nor a suffix: {error}") from error
    return found
