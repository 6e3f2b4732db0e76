"""The checks of each field of a record: a stranger's value becomes ours, or `ValueError` says why not.

Texts are kept as they were written, tags are trimmed. Nowhere is there a NUL, a lone surrogate, a number that JSON does not know, or
anything without a bound.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from imgproxy.grammar import TYPES

Check: TypeAlias = Callable[[object], Any]

TAGS = 200
TAG_LENGTH = 100
JSON_BYTES = 65_536
JSON_DEPTH = 16

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_HEX = re.compile("[0-9a-f]*")
_DOMAIN = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}")
_SPACE = re.compile(r"\s+")


def text(length: int) -> Check:
    """A check: a text of at most so many characters."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("is not a text")
        if len(value) > length:
            raise ValueError(f"is longer than {length} characters")
        return _clean(value)

    return check


def sayable(value: str) -> bool:
    """Whether a text has neither control characters nor halves of characters; what has is nobody's name."""
    try:
        _clean(value)
    except ValueError:
        return False
    return True


def whole(least: int, most: int) -> Check:
    """A check: a whole number in these bounds."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("is not a whole number")
        if not least <= value <= most:
            raise ValueError(f"is not between {least} and {most}")
        return value

    return check


def hex_digits(length: int, *, optional: bool = True) -> Check:
    """A check: so many lowercase hexadecimal digits, or none."""

    def check(value: object) -> str:
        if value == "" and optional:
            return ""
        if not isinstance(value, str) or len(value) != length or not _HEX.fullmatch(value):
            raise ValueError(f"is not {length} lowercase hex digits")
        return value

    return check


def type(value: object) -> str:
    """A type that an original may have."""
    if value not in TYPES:
        raise ValueError(f"is none of {', '.join(TYPES)}")
    return str(value)


def domain(value: object) -> str:
    """The first part of an alias: letters, digits, `.`, `_` and `-`."""
    if not isinstance(value, str) or not (value == "" or _DOMAIN.fullmatch(value)):
        raise ValueError("is not 1 to 100 of the letters a to z and A to Z, digits, dots, underscores and hyphens")
    return value


def time(value: object) -> str:
    """A date, or a date and a time of day with or without its distance from UTC; to the second.

    >>> time("2024-05-17 13:45"), time("2024-05-17"), time("2024-05-17T13:45:12.5+02:00")
    ('2024-05-17T13:45:00', '2024-05-17T00:00:00', '2024-05-17T13:45:12+02:00')
    """
    if value == "":
        return ""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is not a time like 2024-05-17T13:45:00, or a date like 2024-05-17")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    zone = match[7] or ""
    try:
        when = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - the clock on the wall where the picture was taken
    except ValueError as error:
        raise ValueError("is a time that does not exist") from error
    if zone not in ("", "Z") and not (int(zone[1:3]) <= 14 and int(zone[4:6]) < 60):
        raise ValueError("is a time whose distance from UTC does not exist")
    return when.isoformat() + zone


def tags(value: object) -> tuple[str, ...]:
    """Tags, each once; two that a search would not tell apart are one."""
    if not isinstance(value, list | tuple):
        raise ValueError("is not a list of texts")
    if len(value) > TAGS:
        raise ValueError(f"has more than {TAGS} tags")
    kept: dict[str, str] = {}
    for tag in value:
        plain = _tag(tag)
        kept.setdefault(plain.casefold(), plain)
    return tuple(kept.values())


def _tag(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("has a tag that is not a text")
    if len(value) > TAG_LENGTH:
        raise ValueError(f"has a tag longer than {TAG_LENGTH} characters")
    plain = _SPACE.sub(" ", _clean(value)).strip()
    if not plain:
        raise ValueError("has an empty tag")
    return plain


def json_object(value: object) -> Mapping[str, Any]:
    """A JSON object of bounded size and depth."""
    if not isinstance(value, Mapping):
        raise ValueError("is not a JSON object")
    _sound(value, JSON_DEPTH)
    if len(json.dumps(value, ensure_ascii=False).encode()) > JSON_BYTES:
        raise ValueError(f"is larger than {JSON_BYTES} bytes of JSON")
    return dict(value)


def _sound(value: object, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"is nested deeper than {JSON_DEPTH} levels")
    if isinstance(value, Mapping):
        for name, part in value.items():
            if not isinstance(name, str):
                raise ValueError("has a name that is not a text")
            _clean(name)
            _sound(part, depth - 1)
    elif isinstance(value, list | tuple):
        for part in value:
            _sound(part, depth - 1)
    else:
        _plain(value)


def _plain(value: object) -> None:
    if isinstance(value, str):
        _clean(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("has a number that JSON does not know")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("has a number of more than 64 bits")
    elif value is not None:
        raise ValueError("has a value that JSON does not know")


def _clean(value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    if _CONTROL.search(value):
        raise ValueError("has a control character")
    if _SURROGATE.search(value):
        raise ValueError("has half of a character")
    return value
