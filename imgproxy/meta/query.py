"""What may be asked of a search, and the place in a long answer.

A cursor is the place after the last result of a page, with the moment that the search began at: the next page is of that same moment,
whatever was committed since. It means the same on every copy that has reached that moment.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any

from imgproxy.errors import BadRecord
from imgproxy.meta import fields as check
from imgproxy.meta.staging import second
from imgproxy.meta.tokens import domain_mark, orientation_mark, size_marks, tag_mark, tokens, type_mark

ORDERS = ("taken", "added")
ORIENTATIONS = ("landscape", "portrait", "square")
_MOST = 2**53
UNBOUNDED = (0, _MOST)
_END = 2**63 - 1
_TERM = re.compile(r'"([^"]*)"?|(\S+)')
_DAY = 10


@dataclass(frozen=True, slots=True)
class Query:
    """What is wanted, all of it at once; what is left as it is asks for nothing.

    `words` are found in titles, descriptions and tags, each of them; `sun*` begins a word (two letters or more), `"red sun"` is a
    phrase. `taken_from` and `taken_to` are times or whole days, both included; a picture without a date taken counts by the date it
    was added. `order` is by the date (`taken`) or by arrival (`added`), newest first unless `oldest`.
    """

    words: str = ""
    tags: tuple[str, ...] = ()
    taken_from: str = ""
    taken_to: str = ""
    type: str = ""
    orientation: str = ""
    min_width: int = 0
    max_width: int = _MOST
    min_height: int = 0
    max_height: int = _MOST
    min_bytes: int = 0
    max_bytes: int = _MOST
    domain: str = ""
    dkey: str = ""
    md5: str = ""
    order: str = "taken"
    oldest: bool = False


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a long answer: of which query, at which moment, after which result; and how many there are in all."""

    query: str
    moment: int
    after: tuple[int, int]
    total: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Needle:
    """A text to be found among tokens; one of several if there are several. `open` at the end: the last word may go on."""

    texts: tuple[str, ...]
    open: bool = False


_NOTHING = Needle(("_none",))
_SIDE = check.whole(0, _MOST)
_CHECKS: dict[str, check.Check] = {
    "words": check.text(1_000),
    "tags": check.tags,
    "taken_from": check.time,
    "taken_to": check.time,
    "type": check.type,
    "domain": check.domain,
    "dkey": check.text(250),
    "md5": check.hex_digits(32),
    **{f"{bound}_{side}": _SIDE for bound in ("min", "max") for side in ("width", "height", "bytes")},
}


def read(value: Mapping[str, object]) -> Query:
    """The query that texts and numbers from outside spell, or `BadRecord` naming the first field that is wrong."""
    known = {field.name for field in fields(Query)}
    good: dict[str, Any] = {}
    for name, given in value.items():
        if name not in known:
            raise BadRecord("".join(c if " " <= c <= "~" else "?" for c in str(name)[:60]), "is nothing that a search knows")
        good[name] = _checked(name, given)
    if len(str(value.get("taken_to"))) == _DAY:
        good["taken_to"] = f"{good['taken_to'][:_DAY]}T23:59:59"
    return Query(**good)


def needles(query: Query) -> list[Needle]:
    """All that must be among a record's tokens. Punctuation between words says nothing; alone, it finds nothing."""
    found = []
    for phrase, word in _TERM.findall(query.words):
        told = tokens(phrase or word)
        if told:
            found.append(Needle((" ".join(told),), open=word.endswith("*") and len(told[-1]) > 1))
    if query.words.strip() and not found:
        found.append(_NOTHING)
    found += [Needle((tag_mark(tag),)) for tag in query.tags]
    if query.type:
        found.append(Needle((type_mark(query.type),)))
    if query.orientation:
        found.append(Needle((orientation_mark(query.orientation),)))
    if query.domain:
        found.append(Needle((domain_mark(query.domain),)))
    for side, (_, least, most) in zip("whb", sizes(query), strict=True):
        if (least, most) != UNBOUNDED:
            found.append(Needle(tuple(size_marks(side, least, most)) or _NOTHING.texts))
    return found


def sizes(query: Query) -> tuple[tuple[str, int, int], ...]:
    """The bounds of width, height and bytes."""
    return (
        ("width", query.min_width, query.max_width),
        ("height", query.min_height, query.max_height),
        ("bytes", query.min_bytes, query.max_bytes),
    )


def seconds(query: Query) -> tuple[int, int]:
    """The first and the last second that a picture's date may be."""
    return second(query.taken_from), second(query.taken_to) if query.taken_to else (_END >> 24)


def mark(query: Query, session: str) -> str:
    """What tells this query from all others, so that no cursor is used with another one."""
    return sha256(json.dumps([asdict(query), session]).encode()).hexdigest()[:12]


def spelled(cursor: Cursor) -> str:
    """A cursor as a text for strangers to keep and bring back."""
    said = [cursor.query, cursor.moment, *cursor.after, cursor.total, int(cursor.exact)]
    return base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode().rstrip("=")


def understood(text: str) -> Cursor:
    """The cursor that a text spells, or `BadRecord`."""
    try:
        said = json.loads(base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)))
        query, *numbers = said
        moment, first, second, total, exact = numbers
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRecord("cursor", "is none of ours") from error
    sane = all(isinstance(number, int) and 0 <= number < _END for number in numbers)
    if not sane or not isinstance(query, str) or len(text) > 200:
        raise BadRecord("cursor", "is none of ours")
    return Cursor(query, moment, (first, second), total, bool(exact))


def _checked(name: str, given: object) -> Any:
    try:
        if name in _CHECKS:
            return _CHECKS[name](given)
        if name == "oldest":
            return _one_of(given, (True, False))
        return _one_of(given, ORDERS if name == "order" else ("", *ORIENTATIONS))
    except ValueError as error:
        raise BadRecord(name, str(error)) from error


def _one_of(given: object, known: tuple[object, ...]) -> object:
    if not isinstance(given, str | bool) or given not in known:
        raise ValueError(f"is none of {', '.join(str(one) or 'nothing' for one in known)}")
    return given
