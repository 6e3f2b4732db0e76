"""One server asked over HTTP: who asks, what may be asked again, and what a refusal means.

Asked again is only what does no harm twice: what changes nothing, what says so itself (`again`), what never reached the server, and what
it put off (503 with `Retry-After`). The token is in no text that this file makes.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from imgproxy.calls import Answer, Body, Line, Request
from imgproxy.client.problems import error_of, retry_after
from imgproxy.errors import BadSettings, CallFailed, Error, NoConnection

JSON_BYTES = 64 * 2**20
"""No answer in JSON is longer."""

Taken = TypeVar("Taken")

_PASSING = frozenset((502, 503, 504))
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_LONGEST_PAUSE = 30.0
_SLOW = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds each step of a call may take, how often it is tried, and how many seconds all tries may take together."""

    seconds: float = 60.0
    tries: int = 5
    total: float = 300.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: `again` if it does no harm twice; `slow` if the answer may take its time; `body` makes a new body for every try."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Body] | None = None
    again: bool = False
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        """The JSON of it."""
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError) as error:
            raise CallFailed("the server answered with something else than JSON", again=False) from error


class Asking:
    """Questions to one server, by the bearer of a token."""

    def __init__(self, url: str, token: str, patience: Patience) -> None:
        self.url = _server(url)
        self.patience = patience
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._line = Line(self.url, headers, seconds=patience.seconds)
        self._slow = Line(self.url, headers, seconds=max(patience.seconds, _SLOW))

    def __repr__(self) -> str:
        return f"Asking({self.url!r})"

    def ask(self, question: Question) -> Heard:
        """The answer, if it is a success; else the error that it means, when no further try makes sense."""
        with ExitStack() as held:
            return self._heard(question, held, lambda answer: Heard(answer.status, answer.headers, answer.read(JSON_BYTES)))

    @contextmanager
    def open(self, question: Question) -> Iterator[Answer]:
        """The same, with a body that is still to be read: if that breaks off, nobody asks again."""
        with ExitStack() as held:
            yield self._heard(question, held, lambda answer: answer)

    def _heard(self, question: Question, held: ExitStack, taken: Callable[[Answer], Taken]) -> Taken:
        until = time.monotonic() + self.patience.total
        for number in itertools.count(1):
            wait = _pause(number)
            try:
                line = self._slow if question.slow else self._line
                answer = held.enter_context(line.call(self._request(question)))
                if 200 <= answer.status < 300:
                    return taken(answer)
                failed: Error = error_of(answer.status, answer.headers, answer.read(JSON_BYTES))
            except CallFailed as error:
                failed, again = error, isinstance(error, NoConnection) or (error.again and _harmless(question))
            else:
                put_off = retry_after(answer.headers) if answer.status == 503 else None
                again = put_off is not None or (answer.status in _PASSING and _harmless(question))
                wait = max(wait, put_off or 0)
            held.close()
            if not again or number >= self.patience.tries or time.monotonic() + wait > until:
                raise failed
            time.sleep(wait)
        raise AssertionError

    def pause(self, failures: int) -> None:
        """Wait before one tries again after so many failures."""
        time.sleep(_pause(failures))

    def close(self) -> None:
        """Hang up."""
        self._line.close()
        self._slow.close()

    def _request(self, question: Question) -> Request:
        target = question.path + (f"?{urlencode(question.query, doseq=True)}" if question.query else "")
        return Request(question.method, target, question.headers, question.body() if question.body is not None else None)


def _pause(failures: int) -> float:
    """Longer and longer, and no two clients alike."""
    return min(_LONGEST_PAUSE, 0.1 * 2.0**failures) * random.uniform(0.5, 1.0)  # noqa: S311


def _harmless(question: Question) -> bool:
    return question.again or question.method in _SAFE


def _server(url: str) -> str:
    """The address of a server, without what does not belong to one."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
        raise BadSettings(["server: expected a URL such as https://images.example.org"])
    return url.rstrip("/")
