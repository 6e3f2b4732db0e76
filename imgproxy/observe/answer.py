"""What becomes of a request."""

from __future__ import annotations

from typing import NamedTuple


class Answer(NamedTuple):
    """What became of one request; `origin` is the word of the tier that answered, `error` the kind of error that did."""

    method: str
    target: str
    status: int
    origin: str = "none"
    seconds: float = 0.0
    size: int = 0
    error: str = ""
    troubles: tuple[str, ...] = ()
