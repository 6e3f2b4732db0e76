"""From exception to status: the one table, and how a refusal looks on the wire.

Every refusal is `application/problem+json` with `title`, `status` and `detail`, and `at` where a place in the text helps. Errors carry
short cache lives: what is missing may come, what is down comes back; what one request alone has done wrong is not stored at all. A 500 is
always a bug, and is logged with its trace.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import falcon

from imgproxy import errors, observe
from imgproxy.web.health import Response


@dataclass(frozen=True, slots=True)
class Problem:
    """The status, title and cache life in seconds of one kind of error."""

    status: str
    title: str
    life: int


PROBLEMS: dict[type[errors.Error], Problem] = {
    errors.BadName: Problem(falcon.HTTP_404, "Not a name", 60),
    errors.Forbidden: Problem(falcon.HTTP_403, "Forbidden", 10),
    errors.Stranger: Problem(falcon.HTTP_401, "Who are you", 0),
    errors.TooManyTries: Problem(falcon.HTTP_429, "Too many attempts", 0),
    errors.Missing: Problem(falcon.HTTP_404, "Not here", 5),
    errors.OutOfStep: Problem(falcon.HTTP_409, "Out of step", 0),
    errors.Locked: Problem(falcon.HTTP_423, "Locked", 0),
    errors.Mismatch: Problem("460 Checksum Mismatch", "Wrong checksum", 0),
    errors.BadBody: Problem(falcon.HTTP_400, "Broken body", 0),
    errors.TooLarge: Problem(falcon.HTTP_413, "Too large", 0),
    errors.TooSlow: Problem(falcon.HTTP_408, "Too slow", 0),
    errors.WrongType: Problem(falcon.HTTP_415, "Type not taken here", 0),
    errors.WrongVersion: Problem(falcon.HTTP_412, "Version not spoken", 0),
    errors.Changed: Problem(falcon.HTTP_412, "Changed meanwhile", 0),
    errors.BadRecord: Problem(falcon.HTTP_422, "Bad field", 0),
    errors.Conflict: Problem(falcon.HTTP_409, "Conflict", 0),
    errors.Unstored: Problem(falcon.HTTP_409, "Originals are missing", 0),
    errors.NoSession: Problem(falcon.HTTP_404, "No such session", 0),
    errors.SessionClosed: Problem(falcon.HTTP_409, "Session closed", 0),
    errors.Outdated: Problem(falcon.HTTP_410, "Search outdated", 0),
    errors.NotTheWriter: Problem(falcon.HTTP_503, "Another node writes", 0),
    errors.Forked: Problem(falcon.HTTP_503, "Two writers have met", 0),
    errors.WordsLost: Problem(falcon.HTTP_503, "The database is lost", 0),
    errors.NotAnImage: Problem(falcon.HTTP_415, "Not an image", 60),
    errors.CannotRead: Problem(falcon.HTTP_415, "Type not accepted", 60),
    errors.CannotWrite: Problem(falcon.HTTP_501, "Format not built in", 60),
    errors.Damaged: Problem(falcon.HTTP_422, "Damaged original", 60),
    errors.TooMuch: Problem(falcon.HTTP_422, "Beyond a limit", 60),
    errors.Impossible: Problem(falcon.HTTP_422, "Not in this original", 60),
    errors.Busy: Problem(falcon.HTTP_503, "Busy", 1),
    errors.RendererLost: Problem(falcon.HTTP_503, "Renderer lost", 1),
    errors.StoreLied: Problem(falcon.HTTP_502, "Store answered nonsense", 1),
    errors.Rotten: Problem(falcon.HTTP_502, "Rotten original", 10),
    errors.StoreFull: Problem(falcon.HTTP_507, "No room", 1),
    errors.StoreDown: Problem(falcon.HTTP_503, "Store cannot answer", 1),
    errors.BadAddress: Problem(falcon.HTTP_422, "Not an address to ask", 0),
    errors.BadTask: Problem(falcon.HTTP_422, "Not a task", 0),
    errors.NoTask: Problem(falcon.HTTP_404, "No such task", 0),
    errors.TaskUnfinished: Problem(falcon.HTTP_409, "Not done yet", 0),
    errors.CallFailed: Problem(falcon.HTTP_502, "Another server failed", 0),
}

_STALE = 60

UNEXPECTED = Problem(falcon.HTTP_500, "A mistake of ours", 0)


def problem_of(error: errors.Error) -> Problem:
    """The row of the table for an error: its own class, or the nearest above it."""
    return next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), UNEXPECTED)


def cache_control(status: int, life: int) -> str:
    """What caches are told of what is no picture: for how long; and that what is no trouble of ours may be given while it is asked anew."""
    if not life:
        return "no-store"
    return f"public, max-age={life}" + (f", stale-while-revalidate={_STALE}" if status < 500 or status == 501 else "")


def on_error(req: falcon.Request, resp: Response, error: errors.Error, params: dict[str, Any]) -> None:
    """Answer one of our own errors."""
    problem = problem_of(error)
    if problem.status in (falcon.HTTP_503, falcon.HTTP_429):
        resp.set_header("Retry-After", str(getattr(error, "retry_after", 1)))
    if problem.status == falcon.HTTP_401:
        resp.set_header("WWW-Authenticate", 'Bearer realm="imgproxy"')
    resp.context.error = type(error).__name__
    _answer(resp, problem, told(problem, error))


def told(problem: Problem, error: errors.Error) -> dict[str, Any]:
    """A refusal as JSON tells it."""
    return {
        "type": errors.urn(type(error)),
        "title": problem.title,
        "status": int(problem.status[:3]),
        "detail": str(error),
        **_details(error),
    }


def _details(error: errors.Error) -> dict[str, Any]:
    """What a program may want to know of an error, beside its text."""
    match error:
        case errors.BadName():
            return {"at": error.at}
        case errors.BadRecord() | errors.BadTask():
            return {"field": error.field}
        case errors.Conflict() | errors.Unstored():
            return {"records": error.records}
    return {}


def on_http_error(req: falcon.Request, resp: Response, error: falcon.HTTPError, params: dict[str, Any]) -> None:
    """Answer what falcon itself refuses, in the same form."""
    for name, value in dict(error.headers or {}).items():
        resp.set_header(name, value)
    # Not to be stored: it is about the method or the headers of one request, and a cache would tell it to all who ask for this target.
    problem = Problem(falcon.code_to_http_status(error.status), error.title or "Refused", 0)
    body = {"type": "about:blank", "title": problem.title, "status": int(problem.status[:3]), "detail": error.description or problem.title}
    resp.context.error = type(error).__name__
    _answer(resp, problem, body)


def on_surprise(req: falcon.Request, resp: Response, error: Exception, params: dict[str, Any]) -> None:
    """Answer what nobody expected: a bug, told to the log and not to the stranger."""
    observe.surprised(error, method=req.method, path=req.path)
    resp.context.error = type(error).__name__
    body = {"type": "about:blank", "title": UNEXPECTED.title, "status": 500, "detail": "this should not have happened; it has been logged"}
    _answer(resp, UNEXPECTED, body)


def _answer(resp: Response, problem: Problem, body: dict[str, Any]) -> None:
    resp.status = problem.status
    resp.content_type = "application/problem+json"
    if problem.life == 0 or resp.get_header("Cache-Control") != "no-store":
        resp.set_header("Cache-Control", cache_control(int(problem.status[:3]), problem.life))
    resp.set_header("X-Content-Type-Options", "nosniff")
    resp.data = json.dumps(body).encode()
