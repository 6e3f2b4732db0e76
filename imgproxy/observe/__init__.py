"""What can be seen from outside: one line of log for every event, and figures for Prometheus. Nothing here decides anything.

begin, record    a request begins and gets its id; what became of it is written down once
surprised, event anything else that is worth a line
journal.py       the moment between a request and what is written down of it
log.py           the lines; structlog lives there
figures.py       the figures, those of all processes of a node together; prometheus_client lives there
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from typing import TypeAlias

from imgproxy.observe import figures, log
from imgproxy.observe.answer import Answer
from imgproxy.observe.figures import sweep, worker_gone
from imgproxy.observe.journal import MOMENT, Journal
from imgproxy.observe.log import ServerLog, adopt_logging, configure, event, surprised

__all__ = [
    "Answer",
    "ServerLog",
    "adopt_logging",
    "begin",
    "configure",
    "event",
    "exposition",
    "flush",
    "record",
    "surprised",
    "sweep",
    "worker_gone",
]

_USUAL = 300
"""No name is longer; a target that is may need to be shortened, or a line is torn."""

_numbers = count()
_life = ""
_SANE_ID = re.compile("[A-Za-z0-9._-]{1,64}")


def begin(incoming: str | None = None) -> str:
    """Begin a request: its id is the incoming one, if that is sane, else a new one; every line until its `record` carries it."""
    request = incoming if incoming is not None and _SANE_ID.fullmatch(incoming) else _new_id()
    log.request.set(request)
    return request


def _new_id() -> str:
    """An id that nobody else gives: of this process, with a number."""
    return f"{_life}{next(_numbers):x}"


def _begin_life() -> None:
    global _life
    _life = os.urandom(6).hex() + "-"


_begin_life()
os.register_at_fork(after_in_child=_begin_life)


def record(answer: Answer) -> None:
    """Write down once what became of a request, within a moment: a line in the log, and the figures. What comes after has no id."""
    _journal.add((time.time(), log.request.get(), answer))
    log.request.set("")


def flush() -> None:
    """Write down all that waits, now."""
    _journal.flush()


def _write(entries: list[_Entry]) -> None:
    log.lines(_line(*entry) for entry in entries)
    figures.of_this_process().count(answer for _, _, answer in entries)


def _line(at: float, request: str, answer: Answer) -> dict[str, object] | str:
    """The words of a line; or, of what there is most of, the finished JSON: to spell it here takes a third of the time."""
    if not log.is_json() or answer.error or answer.troubles or len(answer.target) > _USUAL:
        return _words(at, request, answer)
    return (
        f'{{"timestamp":"{_stamp(at)}","level":"info","event":"answered","request":"{request}","method":{log.quoted(answer.method)},'
        f'"target":{log.quoted(answer.target)},"status":{answer.status},"origin":"{answer.origin}","ms":{answer.seconds * 1000:.2f},'
        f'"bytes":{answer.size}}}\n'
    )


def _words(at: float, request: str, answer: Answer) -> dict[str, object]:
    words: dict[str, object] = {
        "timestamp": _stamp(at),
        "level": "error" if answer.status == 500 else "info",
        "event": "answered",
        "request": request,
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
    return words


def _stamp(at: float) -> str:
    return f"{_second(int(at))}.{int(at % 1 * 1000):03}+00:00"


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()[:19]


_Entry: TypeAlias = tuple[float, str, Answer]
_journal: Journal[_Entry] = Journal(_write)


def exposition() -> tuple[bytes, str]:
    """All figures of this node as Prometheus reads them, and the media type of that; what happened before the call is in them."""
    _journal.flush()
    time.sleep(2 * MOMENT)  # the other processes write theirs down within this time
    return figures.exposition()
