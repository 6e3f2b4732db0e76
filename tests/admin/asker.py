"""Somebody who asks a server whose processes die: once, or again until an answer says what happened."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.serving import Response, Server

Told = Callable[[str], object]

_PATIENCE = 100.0


@dataclass
class Result:
    """What was seen; `wrong` must be empty, and `lost` of it are records that were answered and are not there as they were."""

    kills: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    fetches: int = 0
    asked_again: int = 0
    worked_again: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)


class Cut(Exception):
    """The answer did not come, or not yet."""


class Asker:
    """Asks a server; `told` hears what is about to be asked, and a liar does not ask again."""

    def __init__(self, result: Result, told: Told, *, liar: bool = False) -> None:
        self.server: Server
        self._result = result
        self._told = told
        self._liar = liar

    def once(self, method: str, path: str, body: Any = None) -> Response:
        """Ask once; `Cut` if there is no answer, or none that says what happened."""
        what = f"{method} {'/'.join(path.partition('?')[0].split('/')[:3])}"
        self._told(what)
        try:
            answer = self.server.ask(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            self._result.cut[what] += 1
            raise Cut from error
        if answer.status == 503:
            self._result.cut[f"{what}: 503"] += 1
            raise Cut
        return answer

    def insistent(self, method: str, path: str, body: Any = None) -> Response | None:
        """What is answered in the end; None for a liar whose question was cut off."""
        try:
            return self.once(method, path, body)
        except Cut:
            if self._liar:
                return None
            self._result.asked_again += 1
            return self.until(lambda: self.once(method, path, body))

    def level(self, path: str, is_so: Callable[[Any], bool]) -> Response:
        """An answer that says what is waited for, or refuses; else `Cut`."""
        answer = self.once("GET", path)
        if answer.status == 200 and not is_so(answer.json):
            raise Cut
        return answer

    def until(self, ask: Callable[[], Response]) -> Response:
        """The answer to what is asked, as often as it takes."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return ask()
            except Cut:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
