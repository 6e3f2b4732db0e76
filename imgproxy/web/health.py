"""How the house is: alive, ready, its figures, and the diary of what became of every request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import falcon

from imgproxy import errors, observe
from imgproxy.web.target import raw_target


class Check(NamedTuple):
    """A call that returns if something is well and raises one of our errors if not; and whether nothing goes without it."""

    call: Callable[[], None]
    needed: bool = True


Checks = Mapping[str, Check]
"""What readiness depends on, by the words in which it is told."""


class Health:
    """`/healthz`: this process answers."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say so."""
        resp.content_type = falcon.MEDIA_TEXT
        resp.set_header("Cache-Control", "no-store")
        resp.text = "ok\n"

    on_head = on_get


class Ready:
    """`/readyz`: all that it depends on is there, or which is not."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Ask every dependency."""
        answers = {word: _asked(check.call) for word, check in self._checks.items()}
        ready = all(answers[word] == "ok" for word, check in self._checks.items() if check.needed)
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.set_header("Cache-Control", "no-store")
        resp.content_type = falcon.MEDIA_JSON
        resp.data = json.dumps({"ready": ready, "dependencies": answers}).encode()

    on_head = on_get


def _asked(call: Callable[[], None]) -> str:
    try:
        call()
    except errors.Error as error:
        return str(error)
    return "ok"


class Figures:
    """`/metrics`: the figures of all workers of this node, for Prometheus."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show them."""
        resp.data, resp.content_type = observe.exposition()
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get


class Told:
    """What a responder tells the diary."""

    began = 0.0
    target = ""
    origin = "none"
    size = 0
    error = ""
    troubles: tuple[str, ...] = ()


class Response(falcon.Response):
    """An answer that can be told of."""

    context_type = Told
    context: Told  # type: ignore[assignment]


class Diary:
    """Falcon middleware that gives a request its id, and writes down once what became of it."""

    def process_request(self, req: falcon.Request, resp: Response) -> None:
        """Note the start."""
        resp.context.began = time.perf_counter()
        resp.context.target = raw_target(req.env)
        resp.set_header("X-Request-Id", observe.begin(req.env.get("HTTP_X_REQUEST_ID")))

    def process_response(self, req: falcon.Request, resp: Response, resource: object, succeeded: bool) -> None:
        """Note the end."""
        told = resp.context
        seconds = time.perf_counter() - told.began
        observe.record(
            observe.Answer(req.method, told.target, resp.status_code, told.origin, seconds, told.size, told.error, told.troubles)
        )
