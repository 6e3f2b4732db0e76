"""What a server refuses arrives as the error that it was."""

from __future__ import annotations

import json
from typing import Any

import falcon
import falcon.testing
import pytest

from imgproxy import errors
from imgproxy.client.problems import error_of
from imgproxy.web.problems import PROBLEMS, on_error

HASH = "ab" * 32

RAISED: list[errors.Error] = [
    errors.BadName("0-1x1.jpeg", 6, "expected a format"),
    errors.BadRecord("taken_at", "is no date"),
    errors.BadRecord("", "is not a JSON object"),
    errors.BadTask("url", "is none"),
    errors.Busy("too many", 30),
    errors.Conflict([HASH, "cd" * 32], "changed by others meanwhile"),
    errors.Unstored([HASH], "the store does not have these originals"),
    errors.NotTheWriter("host:/var"),
    errors.TooManyTries(7),
    *(
        kind("some words")
        for kind in (errors.Missing, errors.NoSession, errors.NotAnImage, errors.OutOfStep, errors.StoreDown, errors.StoreFull)
    ),
]


def answered(error: errors.Error) -> errors.Error:
    """An error, over the wire and back."""

    class Resource:
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
            raise error

    app: Any = falcon.App()
    app.add_error_handler(errors.Error, on_error)
    app.add_route("/", Resource())
    answer = falcon.testing.TestClient(app).simulate_get("/")
    return error_of(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content)


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_on_both_sides_of_the_wire(error: errors.Error) -> None:
    heard = answered(error)
    assert type(heard) is type(error)
    assert str(heard) == str(error)
    for name in ("field", "why", "records", "retry_after", "holder", "at", "text"):
        assert getattr(heard, name, None) == getattr(error, name, None)


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.__name__)
def test_every_kind_of_refusal_is_known(kind: type[errors.Error]) -> None:
    body = json.dumps({"type": errors.urn(kind), "title": "T", "status": 400, "detail": "some words"}).encode()
    heard = error_of(400, {"content-type": "application/problem+json"}, body)
    assert type(heard) is kind
    assert "some words" in str(heard) or kind is errors.TooManyTries


@pytest.mark.parametrize(
    ("status", "type", "body"),
    [
        (500, "text/html", b"<h1>Oh</h1>"),
        (400, "application/problem+json", b"["),
        (400, "application/problem+json", b"[" * 100_000),
        (400, "application/problem+json", b"[]"),
        (403, "application/problem+json", b'{"type": "urn:elsewhere:x", "detail": 7}'),
        (403, "application/problem+json", b'{"type": ["urn:imgproxy:busy"]}'),
    ],
)
def test_what_is_no_problem_of_ours_is_told_with_its_status(status: int, type: str, body: bytes) -> None:
    heard = error_of(status, {"content-type": type}, body)
    assert isinstance(heard, errors.CallFailed)
    assert str(status) in str(heard)
    assert heard.again == (status == 500)
