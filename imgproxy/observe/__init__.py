"""What can be seen from outside: one line of log for every event, and figures for Prometheus. Nothing here decides anything.

begin, record    a request begins and gets its id; what became of it is written down once
surprised, event anything else that is worth a line
log.py           the lines; structlog lives there
figures.py       the figures, those of all processes of a node together; prometheus_client lives there
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from imgproxy.observe import figures, log
from imgproxy.observe.figures import exposition, sweep, worker_gone
from imgproxy.observe.log import ServerLog, adopt_logging, configure, event, surprised

__all__ = [
    "Answer",
    "ServerLog",
    "adopt_logging",
    "begin",
    "configure",
    "event",
    "exposition",
    "record",
    "surprised",
    "sweep",
    "worker_gone",
]

_SANE_ID = re.compile("[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request; `origin` is the word of the tier that answered, `error` the kind of error that did."""

    method: str
    target: str
    status: int
    origin: str = "none"
    seconds: float = 0.0
    size: int = 0
    error: str = ""
    troubles: tuple[str, ...] = ()


def begin(incoming: str | None = None) -> str:
    """Begin a request: its id is the incoming one, if that is sane, else a new one; every line until the next `begin` carries it."""
    request = incoming if incoming is not None and _SANE_ID.fullmatch(incoming) else os.urandom(8).hex()
    log.request.set(request)
    return request


def record(answer: Answer) -> None:
    """Write down once what became of a request: a line in the log, and the figures."""
    words = {
        "method": answer.method,
        "target": answer.target,
        "status": answer.status,
        "origin": answer.origin,
        "ms": round(answer.seconds * 1000, 2),
        "bytes": answer.size,
    }
    if answer.error:
        words["error"] = answer.error
    if answer.troubles:
        words["troubles"] = answer.troubles
    event("answered", words, level="error" if answer.status == 500 else "info")
    figures.of_this_process().count(answer.status, answer.origin, answer.seconds, answer.size)
    if answer.error or answer.troubles:
        figures.of_this_process().count_trouble(answer.error, answer.troubles)
