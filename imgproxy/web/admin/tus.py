"""Uploads that may be interrupted, by the tus protocol 1.0: creation (with the first bytes), offsets, checksums, termination, expiration.

What `Upload-Metadata` may say is what the query of `POST /admin/images` may (`tags` and `hints` with commas), and `sha256`, which the whole
is compared with. What clients say of a file beside that (`filename` and the like) is in no record. The answer that ends an upload says what
it has become: in headers, and in JSON for who asks for JSON.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from typing import Any, BinaryIO

import falcon
import msgspec

from imgproxy.errors import BadBody, BadRecord, Error, Locked, Mismatch, NoSession, SessionClosed, WrongVersion
from imgproxy.images import Sums
from imgproxy.resumable import ALGORITHMS, Digest, Told, Upload
from imgproxy.web import operation as form
from imgproxy.web.admin import models, receiving
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.admin.receiving import Saying, Wish
from imgproxy.web.admin.sessions import CLOSED, NO_SESSION
from imgproxy.web.operation import Answer, Asked, Operation, Reply

PATH = "/admin/uploads"
VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
MEDIA = "application/offset+octet-stream"

_ID = "[0-9a-f]{32}"
_NUMBER = re.compile("[0-9]{1,15}")
_METADATA = 2_048
"""Metadata up to this length is given back. With more the head of an answer may be larger than a proxy takes, and nobody would hear it."""
_IGNORED = frozenset("filename filetype name type relativePath lastModified".split())
_RESULT = {
    "Image-Hash": "The hash of the original, when the upload is complete.",
    "Image-Name": "Its name.",
    "Image-Url": "Where it is.",
    "Image-New": "Whether it was not here before.",
    "Image-Said": "Whether its record says what was to be said of it.",
}
_AS_SAID = {"Upload-Metadata": f"What was said at the beginning, if that had no more than {_METADATA} characters."}
_OFFSET = {"Upload-Offset": "How many bytes are here.", "Upload-Expires": "When they are forgotten if no more come."}


class Protocol:
    """Falcon middleware: another method may be meant than the one that comes, and every answer says which version is spoken."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take a POST for what its sender means by it, who cannot send other methods."""
        if _is_ours(req) and req.method == "POST":
            req.method = req.get_header("X-HTTP-Method-Override") or "POST"

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool) -> None:
        """Say so."""
        if not _is_ours(req):
            return
        resp.set_header("Tus-Resumable", VERSION)
        if resp.status_code == 412:
            resp.set_header("Tus-Version", VERSION)
        if req.method == "HEAD" and req.env["REQUEST_METHOD"] == "POST":
            resp.data = None  # its length would be told, and who has sent a POST would wait for it


def _is_ours(req: falcon.Request) -> bool:
    return req.path == PATH or req.path.startswith(f"{PATH}/")


def kept(office: Office, file: BinaryIO, said: Told) -> Told:
    """What becomes of a complete upload."""
    sums = office.images.sums(file)
    if said["sha256"] and sums.sha256 != said["sha256"]:
        raise Mismatch("the whole does not have the sha256 that was announced")
    done: Told = msgspec.to_builtins(_kept(office, file, sums, _wished(office, said)))
    return done


def _wished(office: Office, said: Told) -> Wish:
    """What was wished when it began; a session that was committed since takes it no more than one that was discarded."""
    try:
        return receiving.wished(office, msgspec.convert(said["saying"], Saying), said["author"], edits=bool(said.get("edits")))
    except SessionClosed as error:
        raise NoSession(str(error)) from error


def _kept(office: Office, file: BinaryIO, sums: Sums, wish: Wish) -> models.Uploaded:
    """Keep a file as it is wished; while its session is being committed, which may yet fail, nothing is decided."""
    try:
        return receiving.kept(office, file, sums, wish)
    except SessionClosed as error:
        raise Locked(str(error)) from error


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    return (*_beginning(opening), *_going_on(opening))


def _beginning(opening: Opening) -> tuple[Operation, ...]:
    def abilities(asked: Asked[Any]) -> Reply:
        headers = {
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(opening.get().inbox.most),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        }
        return Reply(status=204, headers=headers)

    def create(asked: Asked[Any]) -> Reply:
        _must_speak(asked)
        office = opening.get()
        metadata = asked.headers.get("upload-metadata", "")
        saying, sha256 = _said(metadata)
        edits = asked.may("write")
        receiving.wished(office, saying, asked.author, edits=edits)
        said = {"saying": msgspec.to_builtins(saying), "sha256": sha256, "author": asked.author, "edits": edits}
        if len(metadata) <= _METADATA:
            said["metadata"] = metadata
        upload = office.partial.create(_number(asked, "upload-length"), said)
        if asked.media == MEDIA:
            upload = _with_first_bytes(office, upload, asked)
        return _told(asked, upload, 201, {"Location": f"{PATH}/{upload.id}"})

    return (
        Operation(
            name="upload_abilities",
            method="OPTIONS",
            path=PATH,
            scope=None,
            what="Which version and parts of the tus protocol are spoken here.",
            call=abilities,
            answers={204: Answer("They stand in the headers.", headers={"Tus-Version": "Versions.", "Tus-Extension": "Parts."})},
            writes=False,
        ),
        Operation(
            name="create_upload",
            method="POST",
            path=PATH,
            scope="upload",
            what="Begin an upload that may be interrupted (tus 1.0).",
            call=create,
            body=form.Upload(("*/*",), 2**40),
            headers={
                "Upload-Length": "How many bytes it will have.",
                "Upload-Metadata": "Session, fields of the record, sha256: names and base64, with commas.",
            },
            answers={
                201: Answer("It has begun.", models.Uploaded, headers={"Location": "Where to send the bytes.", **_OFFSET, **_RESULT}),
                404: NO_SESSION,
                409: CLOSED,
                412: Answer("Another version of the protocol."),
                423: Answer("All of it came at once, and its session is just being committed; nothing is left of it."),
                460: Answer("The bytes do not have the checksum that came with them."),
            },
        ),
    )


def _going_on(opening: Opening) -> tuple[Operation, ...]:
    def look(asked: Asked[Any]) -> Reply:
        _must_speak(asked)
        upload = opening.get().partial.look(asked.path["id"])
        metadata = upload.said.get("metadata")
        return _told(asked, upload, 200, {"Upload-Length": str(upload.length)} | ({"Upload-Metadata": metadata} if metadata else {}))

    def append(asked: Asked[Any]) -> Reply:
        _must_speak(asked)
        upload = opening.get().partial.append(asked.path["id"], _number(asked, "upload-offset"), asked.body, _digest(asked))
        return _told(asked, upload, 204, {})

    def end(asked: Asked[Any]) -> Reply:
        _must_speak(asked)
        opening.get().partial.remove(asked.path["id"])
        return Reply(status=204)

    there = {
        404: Answer("No such upload, or none any more; or it is complete, and its session is no longer open."),
        412: Answer("Another version of the protocol."),
        423: Answer("It is just being finished, or its session is just being committed."),
    }
    return (
        Operation(
            name="look_at_upload",
            method="HEAD",
            path=f"{PATH}/{{id}}",
            scope="upload",
            what="How much of an upload is here.",
            call=look,
            parts={"id": _ID},
            answers={200: Answer("It stands in the headers.", headers={**_OFFSET, **_AS_SAID, **_RESULT}), **there},
            writes=False,
        ),
        Operation(
            name="append_to_upload",
            method="PATCH",
            path=f"{PATH}/{{id}}",
            scope="upload",
            what="Go on with an upload: the bytes that follow `Upload-Offset`."
            " Who cannot send PATCH, DELETE or HEAD sends POST with `X-HTTP-Method-Override`.",
            call=append,
            parts={"id": _ID},
            body=form.Upload((MEDIA,), 2**40),
            headers={"Upload-Offset": "Where the bytes belong.", "Upload-Checksum": "sha1, sha256 or md5, a space, and the sum in base64."},
            answers={
                200: Answer(
                    "They are here, and the upload is complete; for who accepts JSON.", models.Uploaded, headers={**_OFFSET, **_RESULT}
                ),
                204: Answer("They are here.", headers={**_OFFSET, **_RESULT}),
                409: Answer("The upload stands elsewhere."),
                460: Answer("The bytes do not have the checksum that came with them."),
                **there,
            },
        ),
        Operation(
            name="end_upload",
            method="DELETE",
            path=f"{PATH}/{{id}}",
            scope="upload",
            what="Forget an upload, and what has come of it.",
            call=end,
            parts={"id": _ID},
            answers={204: Answer("It is forgotten."), **there},
        ),
    )


def _with_first_bytes(office: Office, upload: Upload, asked: Asked[Any]) -> Upload:
    """Add what came with the creation; if that fails, nobody knows of the upload."""
    try:
        return office.partial.append(upload.id, 0, asked.body, _digest(asked))
    except BaseException:
        with suppress(Error):
            office.partial.remove(upload.id)
        raise


def _told(asked: Asked[Any], upload: Upload, status: int, headers: Mapping[str, str]) -> Reply:
    """How an upload stands, and what it has become."""
    told = {**headers, "Upload-Offset": str(upload.offset), "Upload-Expires": formatdate(upload.expires, usegmt=True)}
    audit: dict[str, object] = {"id": upload.id, "offset": upload.offset}
    if upload.result is None:
        return Reply(status=status, headers=told, audit=audit)
    done = msgspec.convert(upload.result, models.Uploaded)
    told |= {"Image-Hash": done.hash, "Image-Name": done.name, "Image-Url": done.url}
    told |= {"Image-New": str(done.new).lower(), "Image-Said": str(done.said).lower()}
    wants_json = form.JSON in asked.headers.get("accept", "")
    if status == 204 and wants_json:
        status = 200
    return Reply(done if wants_json else None, status, told, {**audit, "hash": done.hash})


# ---- what the headers say


def _must_speak(asked: Asked[Any]) -> None:
    if asked.headers.get("tus-resumable") != VERSION:
        raise WrongVersion(f"expected Tus-Resumable: {VERSION}")


def _number(asked: Asked[Any], header: str) -> int:
    text = asked.headers.get(header, "")
    if not _NUMBER.fullmatch(text):
        raise BadBody(f"expected a number of bytes as {header.title()}")
    return int(text)


def _digest(asked: Asked[Any]) -> Digest | None:
    text = asked.headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise BadBody(f"expected a checksum by {', '.join(ALGORITHMS)}")
    return Digest(algorithm, _decoded("Upload-Checksum", value.strip()))


def _said(text: str) -> tuple[Saying, str]:
    """What the metadata says, and the SHA-256 of the whole."""
    said: dict[str, Any] = {}
    for pair in filter(None, (part.strip(" \t") for part in text.split(","))):
        name, _, value = pair.partition(" ")
        if name in said:
            raise BadRecord(name, "is said twice")
        try:
            said[name] = _decoded("Upload-Metadata", value.strip(" \t")).decode()
        except UnicodeDecodeError as error:
            raise BadRecord(name, "is no text") from error
    known = {name: value for name, value in said.items() if name not in _IGNORED}
    sha256 = known.pop("sha256", "")
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BadRecord("sha256", "is not 64 lowercase hex digits")
    for name in known:
        if name not in Saying.__struct_fields__:
            raise BadRecord(name, "is nothing that an upload may say")
    for name in ("tags", "hints"):
        known[name] = [one.strip() for one in known.get(name, "").split(",") if one.strip()]
    return Saying(**known), sha256


def _decoded(what: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise BadBody(f"expected base64 in {what}") from error
