"""The public door: a request line becomes a name, a name becomes a picture.

    request line -> name -> may you? -> 304? -> the images room -> answer

- The raw request target is compared, so `%2D`, `//name`, a query string or a bare `?` are no names.
- A 304 is answered without any I/O: a name has one body per edition, so every tag of this edition's form is the picture's.
- The answer never varies, and lives for ever; only a signed address with an expiry ends with it.
"""

from __future__ import annotations

import io
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import falcon

from imgproxy import errors
from imgproxy.grammar import Base, Name, parse
from imgproxy.images import Image, Images
from imgproxy.picture import EDITION_TIME, MEDIA_TYPES, etag
from imgproxy.security import Keyring, Policy
from imgproxy.web.health import Checks, Diary, Figures, Health, Ready, Response
from imgproxy.web.problems import on_error, on_http_error, on_surprise
from imgproxy.web.ranges import Part, Unsatisfiable, Whole, asked_range

ROUTES = (
    ("/<name>", "an image: an original (`<hash>.<type>`) or a rendition (`<hash>-<size>...<format>`)"),
    ("/s/<signature>/<name>", "the same, opened by a signature"),
    ("/s/<signature>/<expires>/<name>", "the same, until a moment in Unix seconds"),
    ("/healthz", "200 while the process answers"),
    ("/readyz", "200 if all it depends on is there, else 503; says which is down"),
    ("/metrics", "figures for Prometheus"),
)

_YEAR = 31_536_000
FOR_EVER = f"public, max-age={_YEAR}, immutable"
"""What caches are told of a picture: its name never means anything else."""
_LAST_MODIFIED = formatdate(EDITION_TIME, usegmt=True)
_OUR_TAG = re.compile(rf'(?:W/)?("{EDITION_TIME:x}-[0-9a-f]{{1,16}}")')
_ALLOW = "GET, HEAD, OPTIONS"
ACCELERATED = "/~tier/"
"""Where the nginx in front has the published renditions; nobody can ask it for that."""
_PARTS_AND_CONDITIONS = ("HTTP_RANGE", "HTTP_IF_RANGE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE")
_named = lru_cache(maxsize=8192)(parse)
"""Hits are of few names, and reading one again costs a tenth of a hit."""
_NO_SCRIPTS = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


@dataclass(frozen=True, slots=True)
class Manner:
    """How this door behaves: who may read it across origins, under which path it is mounted, whether figures are shown.

    `tags` are headers that tell the original's hash; `published` is where the nginx in front finds renditions, if there is one.
    """

    cors: str = "*"
    mount: str = ""
    figures: bool = True
    tags: tuple[str, ...] = ()
    published: Path | None = None


@dataclass(frozen=True, slots=True)
class Guards:
    """Who may have what."""

    policy: Policy
    keyring: Keyring | None


def headers(cors: str) -> list[tuple[str, str]]:
    """What every answer about a picture says, whoever sends it."""
    always = [("X-Content-Type-Options", "nosniff"), ("Cross-Origin-Resource-Policy", "cross-origin")]
    return [*always, ("Access-Control-Allow-Origin", cors)] if cors else always


class Pictures:
    """The sink for every target that is no other route: names, plain and signed."""

    def __init__(self, images: Images, guards: Guards, manner: Manner) -> None:
        self._images = images
        self._guards = guards
        self._manner = manner
        self._mount = manner.mount
        self._headers = headers(manner.cors)

    def __call__(self, req: falcon.Request, resp: Response, **_params: str) -> None:
        """Answer one request for a picture."""
        if req.method == "OPTIONS":
            greet(resp, self._manner)
            return
        if req.method not in ("GET", "HEAD"):
            raise falcon.HTTPMethodNotAllowed(["GET", "HEAD", "OPTIONS"])
        name, expires = self._admitted(resp.context.target[len(self._mount) :])
        resp.set_headers([*self._headers, ("Cache-Control", _cache_control(expires)), *((tag, name.hash) for tag in self._manner.tags)])
        tag = None if _is_for_one_state(req) else _said(req, name)
        if tag is not None:
            _not_modified(resp, tag)
            return
        self._show(req, resp, self._images.open(name))

    def _admitted(self, target: str) -> tuple[Name, int | None]:
        """The name that a target spells, if its asker may have it, and until when."""
        if target.startswith("/s/"):
            if self._guards.keyring is None:
                raise errors.Forbidden("no keys are set here, so no signature opens anything")
            text, expires = self._guards.keyring.opened(target, int(time.time()))
            name = _named(text)
            self._guards.policy.allows(name, signed=True)
            return name, expires
        if not target.startswith("/"):
            raise errors.BadName(target, 0, 'expected "/" and a name')
        name = _named(target[1:])
        self._guards.policy.allows(name, signed=False)
        return name, None

    def _show(self, req: falcon.Request, resp: Response, image: Image) -> None:
        resp.context.origin = image.origin
        resp.context.troubles = image.troubles
        kind, tag = _kind(image.name), _tag(image)
        resp.set_header("Server-Timing", f'tier;desc="{image.origin}"')
        known = req.env.get("HTTP_IF_NONE_MATCH", "").strip() == "*"
        if _is_for_one_state(req):
            if not _is_that(req, tag):
                image.file.close()
                raise falcon.HTTPPreconditionFailed(
                    title="Meant for another", description="the picture is not what the request was meant for"
                )
            known = known or _said(req, image.name) is not None
        if known:
            _not_modified(resp, tag)
            image.file.close()
            return
        resp.set_headers(
            [
                ("Content-Type", MEDIA_TYPES[kind]),
                ("ETag", tag),
                ("Last-Modified", _LAST_MODIFIED),
                ("Accept-Ranges", "bytes"),
            ]
        )
        if kind in ("svg", "pdf"):
            resp.set_header("Content-Security-Policy", _NO_SCRIPTS)
        try:
            part = _part(req, image, tag)
        except Unsatisfiable:
            image.file.close()
            raise falcon.HTTPRangeNotSatisfiable(image.size) from None
        self._send(req, resp, image, part)

    def _send(self, req: falcon.Request, resp: Response, image: Image, part: tuple[int, int] | None) -> None:
        published = self._manner.published
        if published is not None and _may_be_sent_by_nginx(req) and _is_published(published, image):
            resp.set_header("X-Accel-Redirect", f"{ACCELERATED}{_place(image.name)}")
            resp.delete_header("Accept-Ranges")  # nginx says so itself
            resp.content_length = 0
            resp.context.size = image.size
            image.file.close()
            return
        start, count = part if part is not None else (0, image.size)
        if part is not None:
            resp.status = falcon.HTTP_206
            resp.delete_header("Accept-Ranges")  # that there are parts is plain now, and nginx says no more either
            resp.set_header("Content-Range", f"bytes {start}-{start + count - 1}/{image.size}")
        resp.content_length = count
        resp.context.size = count
        if req.method == "HEAD":
            image.file.close()
        elif isinstance(image.file, io.BytesIO):
            resp.data = image.file.getvalue()[start : start + count]
        else:
            if start:
                image.file.seek(start)
            resp.stream = Whole(image.file, count) if part is None else Part(image.file, count)  # type: ignore[assignment]


def greet(resp: Response, manner: Manner) -> None:
    """Answer a browser that asks before it asks (a CORS preflight)."""
    resp.status = falcon.HTTP_204
    resp.set_headers(headers(manner.cors))
    resp.set_headers(
        {
            "Allow": _ALLOW,
            "Access-Control-Allow-Methods": _ALLOW,
            "Access-Control-Allow-Headers": "Range, If-None-Match, If-Modified-Since",
            "Access-Control-Max-Age": "86400",
        }
    )


def _kind(name: Name) -> str:
    return name.type if isinstance(name, Base) else name.format


def _tag(image: Image) -> str:
    return f'"{image.name.hash}"' if isinstance(image.name, Base) else etag(image.size)


def _said(req: falcon.Request, name: Name) -> str | None:
    """The tag of what the client already has, if it has this very picture; known without looking."""
    tags = req.env.get("HTTP_IF_NONE_MATCH")
    if tags is None:
        if isinstance(name, Base) or req.env.get("HTTP_IF_MODIFIED_SINCE") != _LAST_MODIFIED:
            return None
        return ""
    if isinstance(name, Base):
        return f'"{name.hash}"' if f'"{name.hash}"' in tags else None
    match = _OUR_TAG.search(tags)
    return match.group(1) if match else None


def _is_for_one_state(req: falcon.Request) -> bool:
    return "HTTP_IF_MATCH" in req.env or "HTTP_IF_UNMODIFIED_SINCE" in req.env


def _is_that(req: falcon.Request, tag: str) -> bool:
    """Whether a picture is in the state that a request was meant for; a date that is none says nothing, but an empty one is no."""
    tags = req.env.get("HTTP_IF_MATCH")
    if tags is not None:
        return tags.strip() == "*" or tag in (one.strip() for one in tags.split(","))
    date = req.env["HTTP_IF_UNMODIFIED_SINCE"].strip()
    with suppress(ValueError, OverflowError):
        return parsedate_to_datetime(date).timestamp() >= EDITION_TIME
    return bool(date)


def _not_modified(resp: Response, tag: str) -> None:
    resp.status = falcon.HTTP_304
    resp.set_header("Last-Modified", _LAST_MODIFIED)
    if tag:
        resp.set_header("ETag", tag)


def _cache_control(expires: int | None) -> str:
    if expires is None:
        return FOR_EVER
    return f"public, max-age={max(0, min(_YEAR, expires - int(time.time())))}"


def _part(req: falcon.Request, image: Image, tag: str) -> tuple[int, int] | None:
    header = req.env.get("HTTP_RANGE")
    if header is None or req.method != "GET" or req.env.get("HTTP_IF_RANGE", tag) not in (tag, _LAST_MODIFIED):
        return None
    return asked_range(header, image.size)


def _may_be_sent_by_nginx(req: falcon.Request) -> bool:
    """Whether nginx would read the rest of the request as we do: what is asked for in parts or on conditions is for us."""
    return req.env.get("HTTP_X_EDGE") != "bytes" and not any(word in req.env for word in _PARTS_AND_CONDITIONS)


def _is_published(published: Path, image: Image) -> bool:
    """Whether nginx will find this very picture where the local tier shows it."""
    if isinstance(image.name, Base):
        return False
    try:
        facts = os.stat(published / _place(image.name))  # noqa: PTH116
    except OSError:
        return False
    return facts.st_size == image.size and facts.st_mtime == EDITION_TIME


def _place(name: Name) -> str:
    return f"{name.hash[:2]}/{name.hash[2:4]}/{name}"


def pictures(images: Images, guards: Guards, manner: Manner) -> falcon.App[falcon.Request, Response]:
    """An application that answers for pictures alone."""
    app: falcon.App[falcon.Request, Response] = falcon.App(response_type=Response, middleware=[Diary()])
    app.add_error_handler(Exception, on_surprise)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(errors.Error, on_error)
    app.add_sink(Pictures(images, guards, manner))
    return app


class Sink(Protocol):
    """Who answers for all targets of a form."""

    @property
    def prefix(self) -> re.Pattern[str]:
        """That form."""

    def __call__(self, req: falcon.Request, resp: Response, **_params: str) -> None:
        """Answer one request."""


def application(
    images: Images, guards: Guards, checks: Checks, manner: Manner, lookups: Sink | None = None
) -> falcon.App[falcon.Request, Response]:
    """The public application: pictures, look-ups, health and figures."""
    app = pictures(images, guards, manner)
    if lookups is not None:
        app.add_sink(lookups, lookups.prefix)
    app.add_route("/healthz", Health())
    app.add_route("/readyz", Ready(checks))
    if manner.figures:
        app.add_route("/metrics", Figures())
    return app
