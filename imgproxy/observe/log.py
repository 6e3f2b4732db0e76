"""The log: a line an event, to standard error, as JSON or as text.

A log that cannot be written loses lines, never requests. Text from strangers is always quoted: one event is one line. A line of JSON is
never longer than a pipe takes in one piece, so that several processes may write into one: a text that is too long loses its middle.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import structlog

request: ContextVar[str] = ContextVar("request", default="")
"""The id of the request that this thread is busy with."""

_WHOLE = 4096
"""So many bytes a pipe takes in one piece, whoever else writes into it."""
_LEVELS = {"info": logging.INFO, "error": logging.ERROR}
_PLAIN = re.compile(r"[!#-\[\]-~]+")
quoted = json.encoder.encode_basestring_ascii
"""A text as JSON spells it."""
_json = json.JSONEncoder(separators=(",", ":"), default=str).encode


def event(name: str, words: Mapping[str, object] | None = None, *, level: str = "info") -> None:
    """Write the line of an event."""
    getattr(_ours, level)(name, **(words or {}))


def is_json() -> bool:
    """Whether lines are JSON in this process."""
    return _line is _as_json


def lines(all_words: Iterable[dict[str, object] | str]) -> None:
    """Write the lines of many events together, in pieces that a pipe takes whole.

    Each has all its words, from `timestamp` on; or is finished JSON, which then is only information.
    """
    piece = bytearray()
    informs = _ours.is_enabled_for(logging.INFO)
    for words in all_words:
        if isinstance(words, str):
            line = words.encode() if informs else b""
        else:
            line = _line(words) if _ours.is_enabled_for(_LEVELS[str(words["level"])]) else b""
        if len(piece) + len(line) > _WHOLE:
            _put(bytes(piece))
            piece.clear()
        piece += line
    _put(bytes(piece))


def surprised(error: BaseException, **words: object) -> None:
    """Tell of an error that nobody expected, with its trace."""
    event("surprised", {"error": type(error).__name__, **words, "trace": "".join(traceback.format_exception(error))}, level="error")


def configure(level: str = "info", format: str = "auto") -> None:
    """Set up our lines in this process: from which level, and as `json`, `text`, or `auto` (text at a terminal)."""
    global _line, _ours
    _line = _LINES["text" if format == "auto" and sys.stderr.isatty() else format]
    _ours = _logger(level)


def adopt_logging(level: str = "info") -> None:
    """Bring the standard library's logging, and with it everybody else's, into our form; of others but gunicorn, no mere news."""
    root = logging.getLogger()
    root.handlers = [Foreign()]
    root.setLevel("WARNING" if level == "info" else level.upper())
    logging.getLogger("gunicorn").setLevel(level.upper())
    logging.captureWarnings(True)


class Foreign(logging.Handler):
    """Writes the lines of others as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of one record."""
        words: dict[str, object] = {"event": record.getMessage(), "logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            words["trace"] = "".join(traceback.format_exception(record.exc_info[1]))
        _put(_line(_stamped(record.levelname.lower(), words)))


class ServerLog:
    """What gunicorn writes to (its `logger_class`): the standard library's logging, whatever form that has; no access log."""

    access_log_enabled = False

    def __init__(self, cfg: object) -> None:
        self.cfg = cfg  # what gunicorn goes back to when new settings are wrong
        log = logging.getLogger("gunicorn.error")
        self.debug, self.info, self.warning, self.error = log.debug, log.info, log.warning, log.error
        self.critical, self.exception, self.log = log.critical, log.exception, log.log

    def setup(self, _cfg: object) -> None:
        """Gunicorn has read its settings again; ours stay."""

    def access(self, *_about: object) -> None:
        """The door writes its own line."""

    def reopen_files(self) -> None:
        """There are none."""

    def close_on_exec(self) -> None:
        """There are none."""


class _Stderr:
    """Where structlog's lines end up."""

    def info(self, line: bytes) -> None:
        """Write a line, or lose it."""
        _put(line)

    debug = warning = error = critical = info


def _put(piece: bytes) -> None:
    try:
        os.write(2, piece)
    except OSError:
        return


def _stamped(level: str, words: Mapping[str, object]) -> dict[str, object]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"timestamp": now, "level": level, "event": words["event"], "request": request.get(), **words}
    if not line["request"]:
        del line["request"]
    return line


def _as_json(line: dict[str, object]) -> bytes:
    text, keep = _json(line), _WHOLE // 2
    while len(text) >= _WHOLE and keep:
        text, keep = _json({word: _ends(value, keep) for word, value in line.items()}), keep // 2
    return text.encode() + b"\n"


def _ends(value: object, keep: int) -> object:
    """A text without its middle, if it is longer than `keep`: of a target the beginning tells most, of a trace the end."""
    if not isinstance(value, str) or len(value) <= keep:
        return value
    return f"{value[: keep // 4]} [...] {value[-keep // 2 :]}"


def _as_text(line: dict[str, object]) -> bytes:
    told = [str(line.pop("timestamp"))[11:23], str(line.pop("level")), _quoted(line.pop("event"), " ")]
    told += [f"{word}={_quoted(value)}" for word, value in line.items() if word != "trace"]
    return " ".join(told).encode() + b"\n" + str(line.get("trace", "")).encode("utf-8", "backslashreplace")


def _quoted(value: object, also: str = "") -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text.replace(also, "") if also else text) else _json(text)


_LINES: Mapping[str, Callable[[dict[str, object]], bytes]] = {"auto": _as_json, "json": _as_json, "text": _as_text}
_line = _as_json


def _logger(level: str) -> Any:
    threshold = structlog.make_filtering_bound_logger(level)
    return structlog.wrap_logger(_Stderr(), processors=[_finished], wrapper_class=threshold).bind()


def _finished(_logger: object, level: str, words: Mapping[str, object]) -> bytes:
    return _line(_stamped(level, words))


_ours = _logger("info")
