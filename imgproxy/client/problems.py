"""From problem to error: what a server refuses becomes the error of this house that it was there, with what it said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from imgproxy import errors
from imgproxy.errors import CallFailed, Error

Told = Mapping[str, Any]


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> Error:
    """The error that an answer means which is no success."""
    told = _told(headers, body)
    detail = str(told.get("detail") or told.get("title") or f"the server answered {status}")
    kind = _KINDS.get(str(told.get("type")))
    if kind is None:
        return CallFailed(f"{detail} (status {status})", again=status >= 500)
    making = _MAKING.get(kind)
    return kind(detail) if making is None else making({**told, "retry_after": retry_after(headers) or 1}, detail)


def retry_after(headers: Mapping[str, str]) -> int | None:
    """After how many seconds a server wants to be asked again, if it says so."""
    text = headers.get("retry-after", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _told(headers: Mapping[str, str], body: bytes) -> Told:
    if headers.get("content-type", "").partition(";")[0] != "application/problem+json":
        return {}
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _below(kind: type[Error]) -> Iterator[type[Error]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


_KINDS = {errors.urn(kind): kind for kind in _below(Error) if kind.__module__ == errors.__name__}


def _bad_name(told: Told, detail: str) -> Error:
    why, text, *_ = [*detail.split("\n"), ""]
    return errors.BadName(text, int(told.get("at") or 0), why)


def _with_field(kind: Callable[[str, str], Error]) -> Callable[[Told, str], Error]:
    def made(told: Told, detail: str) -> Error:
        field = str(told.get("field") or "")
        return kind(field, detail.removeprefix(f"{field}: ") if field else detail)

    return made


def _with_records(kind: Callable[[list[str], str], Error]) -> Callable[[Told, str], Error]:
    return lambda told, detail: kind([str(one) for one in told.get("records") or ()], detail.split("\n")[0])


_MAKING: Mapping[type[Error], Callable[[Told, str], Error]] = {
    errors.BadName: _bad_name,
    errors.BadRecord: _with_field(errors.BadRecord),
    errors.BadTask: _with_field(errors.BadTask),
    errors.Busy: lambda told, detail: errors.Busy(detail, told["retry_after"]),
    errors.Conflict: _with_records(errors.Conflict),
    errors.NotTheWriter: lambda _told, detail: errors.NotTheWriter(detail.rpartition(" by ")[2]),
    errors.TooManyTries: lambda told, _detail: errors.TooManyTries(told["retry_after"]),
    errors.Unstored: _with_records(errors.Unstored),
}
