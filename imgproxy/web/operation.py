"""The one form of an operation behind a door that asks for a token: the table that is served, documented and tested.

    request -> who are you -> may you -> path, query and body become values -> a plain function -> its answer, and a line in the log

A row says everything that a stranger has to know: method, path, scope, what it is for, the types of path, query and body, and what is
answered with which status. The same types validate, and describe. `Door` serves a table of rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, TypeVar, get_origin, get_type_hints
from urllib.parse import parse_qsl

import falcon
import msgspec

from imgproxy import errors, observe
from imgproxy.security import Grant
from imgproxy.web.body import SECONDS, Body
from imgproxy.web.entrance import Entrance
from imgproxy.web.health import Response

JSON = "application/json"
JSON_BYTES = 2**18
"""The longest JSON body that is looked at, where nothing else is said."""

_OF_ANY_SIZE = 2**62

Values = TypeVar("Values")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No field at all."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that is read by the operation itself, as it comes: of these media types, and at most so many bytes."""

    media: tuple[str, ...]
    most: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered with one status: a sentence, the type of the JSON, the media type if it is none, headers with a sentence each."""

    what: str
    type: Any = None
    media: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked(Generic[Values]):
    """A request that was admitted: who asks (None where anybody may), and what, in the types of its operation."""

    who: Grant | None
    path: Mapping[str, str]
    query: Any
    body: Values
    headers: Mapping[str, str]
    media: str

    @property
    def author(self) -> str:
        """The name that stands for who asks."""
        return self.who.name if self.who is not None else ""

    def may(self, scope: str) -> bool:
        """Whether who asks could do what needs that scope, too."""
        return self.who is not None and self.who.allows(scope)


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered: a value of the type that the row names for the status, or bytes; `audit` is what the log is told of a write."""

    value: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    audit: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A row of the table.

    `scope` is None where no token is needed, `any` where any token will do; `body` a type of JSON, an `Upload`, or None: then one is
    refused. Who has nothing to say may leave away one that is `optional`. One of JSON has at most `most` bytes.
    `answers` holds what is particular to it: what every operation may answer is in `COMMON` and `NEEDING_A_TOKEN`. `parts` gives
    a regular expression for each part of the path in braces; `headers` are those of a request that it reads, with a sentence each.
    """

    name: str
    method: str
    path: str
    scope: str | None
    what: str
    call: Callable[[Asked[Any]], Reply]
    answers: Mapping[int, Answer]
    parts: Mapping[str, str] = field(default_factory=dict)
    query: type[msgspec.Struct] = Nothing
    body: Any = None
    optional: bool = False
    media: tuple[str, ...] = (JSON,)
    most: int = JSON_BYTES
    headers: Mapping[str, str] = field(default_factory=dict)
    writes: bool = True


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A refusal, as RFC 9457 spells it: what is wrong, and where that helps which field, which records, which place."""

    type: str
    title: str
    status: int
    detail: str
    field: str = ""
    records: list[str] = []
    at: int = 0


PROBLEM = "application/problem+json"
COMMON: Mapping[int, Answer] = {
    400: Answer("The body is broken, or ended too early.", Problem, PROBLEM),
    405: Answer("Another method.", Problem, PROBLEM),
    408: Answer("The body came too slowly.", Problem, PROBLEM),
    413: Answer("The body is larger than is taken.", Problem, PROBLEM),
    415: Answer("The body is of a type that is not taken.", Problem, PROBLEM),
    422: Answer("A field is wrong; `field` says which.", Problem, PROBLEM),
    503: Answer("Not just now; come back after `Retry-After` seconds.", Problem, PROBLEM, {"Retry-After": "Seconds."}),
}
"""What any operation may answer."""

TAKING_NO_BODY: Mapping[int, Answer] = {
    422: Answer(
        "A field is wrong, or there is a body, which is not read here: what is said goes into the query. `field` says which.",
        Problem,
        PROBLEM,
    ),
}
"""And any that has no body."""

NEEDING_A_TOKEN: Mapping[int, Answer] = {
    401: Answer("No token, or none that is known.", Problem, PROBLEM, {"WWW-Authenticate": "How to say who you are."}),
    403: Answer("The token is not for this.", Problem, PROBLEM),
    429: Answer("Too many wrong tokens came from there.", Problem, PROBLEM, {"Retry-After": "Seconds."}),
}
"""And any that needs a token."""


class Door:
    """Serves a table of operations."""

    def __init__(self, operations: Sequence[Operation], entrance: Entrance, body_seconds: float = SECONDS) -> None:
        self.operations = tuple(operations)
        self._entrance = entrance
        self._seconds = body_seconds

    def furnish(self, app: falcon.App[Any, Any]) -> None:
        """Give an application the routes of the table."""
        paths: dict[str, dict[str, Operation]] = {}
        for one in self.operations:
            paths.setdefault(one.path, {})[one.method] = one
        for path, methods in paths.items():
            app.add_route(path, _Resource(methods, self._answer))

    def _answer(self, operation: Operation, req: falcon.Request, resp: Response, parts: Mapping[str, str]) -> None:
        resp.set_header("Cache-Control", "no-store")
        who = None if operation.scope is None else self._entrance.admitted(req.env, operation.scope)
        asked, body = _asked(operation, req, who, parts, self._seconds)
        try:
            reply = operation.call(asked)
        finally:
            if body is not None:
                body.close()
        if operation.writes:
            observe.event("written", _audit(operation, asked, reply))
        _told(operation, reply, resp)


class _Resource:
    """What falcon calls for one path: a responder for each method of the table."""

    def __init__(self, methods: Mapping[str, Operation], answer: Callable[..., None]) -> None:
        for method, operation in methods.items():
            setattr(self, f"on_{method.lower()}", _responder(operation, answer))
        if "GET" in methods and "HEAD" not in methods:
            self.on_head = _responder(methods["GET"], answer)  # the same, whose body is not sent


def _responder(operation: Operation, answer: Callable[..., None]) -> Callable[..., None]:
    def responder(req: falcon.Request, resp: Response, **parts: str) -> None:
        answer(operation, req, resp, parts)

    return responder


def _asked(
    operation: Operation, req: falcon.Request, who: Grant | None, parts: Mapping[str, str], seconds: float
) -> tuple[Asked[Any], Body | None]:
    for name, pattern in operation.parts.items():
        if not re.fullmatch(pattern, parts[name]):
            raise errors.Missing(f"no such {name} can be")
    query = read_query(operation.query, req.env.get("QUERY_STRING", ""))
    media = (req.content_type or "").partition(";")[0].strip().lower()
    headers = {name.lower(): value for name, value in req.headers.items()}
    if operation.body is None:
        _bodiless(req, seconds)
        return Asked(who, parts, query, None, headers, media), None
    upload = operation.body if isinstance(operation.body, Upload) else Upload(operation.media, operation.most)
    right = "*/*" in upload.media or media in upload.media
    if not right and not operation.optional:
        raise _wrong(upload)
    body = Body(req.env, upload.most, seconds)
    if upload is operation.body:
        return Asked(who, parts, query, body, headers, req.content_type or ""), body
    try:
        data = body.read()
    finally:
        body.close()
    if operation.optional and not data:
        return Asked(who, parts, query, operation.body(), headers, media), None
    if not right:
        raise _wrong(upload)
    return Asked(who, parts, query, read_json(operation.body, data), headers, media), None


def _bodiless(req: falcon.Request, seconds: float) -> None:
    """Refuse a body where none is read: whoever says something in it would be done something else for."""
    body = Body(req.env, _OF_ANY_SIZE, seconds)
    try:
        if body.size or body.read(1):
            raise errors.BadRecord("body", "is not read here; what is said goes into the query")
    finally:
        body.close()


def _wrong(upload: Upload) -> errors.WrongType:
    return errors.WrongType(f"expected {' or '.join(filter(None, upload.media))}")


def read_query(kind: type[msgspec.Struct], text: str) -> Any:
    """The value of that type which a query spells, or `BadRecord` naming the field that is wrong."""
    lists = {name for name, one in get_type_hints(kind, include_extras=False).items() if get_origin(one) in (list, tuple)}
    said: dict[str, Any] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=1_000, errors="strict")
    except ValueError as error:
        raise errors.BadRecord("", "the query is broken") from error
    for name, value in pairs:
        if name in lists:
            said.setdefault(name, []).append(value)
        elif name in said:
            raise errors.BadRecord(_spelled(name), "is said twice")
        else:
            said[name] = value
    return _converted(lambda: msgspec.convert(said, kind, strict=False))


def read_json(kind: Any, data: bytes) -> Any:
    """The value of that type which a JSON text spells, or `BadRecord` naming the field that is wrong."""
    return _converted(lambda: msgspec.json.decode(data, type=kind))


_PLACE = re.compile(r" - at `(?:key in )?\$?[.]?(.*?)`$")
_UNKNOWN = re.compile(r"unknown field `(.*)`")
_MISSING = re.compile(r"missing required field `(.*)`")


def _converted(convert: Callable[[], Any]) -> Any:
    try:
        return convert()
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        named = _UNKNOWN.search(text) or _MISSING.search(text)
        why = "is not known here" if _UNKNOWN.search(text) else "is missing" if named else _PLACE.sub("", text)
        raise errors.BadRecord(_spelled(named[1] if named else place[1] if place else ""), why[:1].lower() + why[1:]) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.BadBody("the body is no JSON") from error


def _spelled(name: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in name[:60])


def _told(operation: Operation, reply: Reply, resp: Response) -> None:
    resp.status = HTTPStatus(reply.status)
    resp.set_headers(dict(reply.headers))
    resp.set_header("X-Content-Type-Options", "nosniff")
    if reply.value is None:
        return
    answer = operation.answers.get(reply.status)
    resp.content_type = answer.media if answer is not None else JSON
    resp.data = reply.value if isinstance(reply.value, bytes) else msgspec.json.encode(reply.value)
    resp.context.size = len(resp.data)


def _audit(operation: Operation, asked: Asked[Any], reply: Reply) -> dict[str, object]:
    """Who did what, to what."""
    return {"who": asked.author, "what": operation.name, **asked.path, "status": reply.status, **reply.audit}
