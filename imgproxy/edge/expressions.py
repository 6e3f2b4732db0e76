"""Request lines judged by expressions, for nginx: which picture, which door, which trick.

nginx decides by the path it has decoded and put in order, gunicorn by the target as it stands in the request line. So that they never
differ, everything here is asked of the request line itself, and a target that could be read in two ways goes nowhere at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email.utils import formatdate

from imgproxy.config import Settings
from imgproxy.grammar import SYNTAX
from imgproxy.picture import EDITION_TIME
from imgproxy.web.lookups import RESERVED

_SPELLED = SYNTAX.removeprefix("^").removesuffix(r"$(?!\n)")
_HASH = "(?:[0-9a-f]{64})"
_CAUGHT = "(?<hash>(?<aa>[0-9a-f]{2})(?<bb>[0-9a-f]{2})[0-9a-f]{60})"
_MARK = "(?:-mark_(?:[a-z0-9]{1,16}))?"
_VERSION = " HTTP/[12][.0-9]*"
_PART = "bytes=(?:0-[0-9]{0,18}|-[1-9][0-9]{0,17})"
_SAFE = r"(?=/)(?![^? ]*(?://|/[.]{1,2}(?:[/? ]|$)|%(?:2[EeFf]|5[Cc]|[01]|7[Ff])|[\x5c#]))"
_WORDS = {
    "signature": "[A-Za-z0-9_-]{43}",
    "expires": "[1-9][0-9]{9,10}",
    "domain": f"(?!(?:{'|'.join(sorted(RESERVED))}|[.]{{1,2}})/)[A-Za-z0-9._-]{{1,100}}",
    "dkey": "[^?# ]+",
}
_KNOWN = f"(?:(?:{formatdate(EDITION_TIME, usegmt=True)})?[|].*|[^|]*[|])"
_LONGEST = 3000
"""nginx takes no word of more than 4096 characters."""

PLAIN_TARGET = f"^[A-Z]+ {_SAFE}[!-~]+{_VERSION}$"
"""A request line whose target is a path, and the same path however it is read."""


def pictures(settings: Settings) -> list[str]:
    """What nginx answers itself, of `range|request line|preconditions|date|tags` put together: plain names that everybody may have.

    A range is a beginning or an end, which every picture has, and for GET alone: what nginx says of one outside the file is not what
    we say. Other ranges, and preconditions, are gunicorn's matter; and so is who knows both tags and a date, unless the date is that of
    all pictures: nginx would want both to be right, and only the tags count.
    """
    return [f"^(?:(?:{_PART})?[|]GET|[|]HEAD) /(?<name>{name}){_VERSION}[|][|]{_KNOWN}$" for name in _open_names(settings)]


def _open_names(settings: Settings) -> Iterator[str]:
    if settings.policy == "any":
        ours = "|".join(sorted(settings.marks))
        yield _SPELLED.replace(_HASH, _CAUGHT, 1).replace(_MARK, f"(?:-mark_(?:{ours}))?" if ours else "", 1)
    elif settings.policy == "listed":
        for suffixes in _portions(sorted({*settings.listed, *settings.presets.values()})):
            yield f"{_CAUGHT}(?:{suffixes})"


def _portions(suffixes: Iterable[str]) -> Iterator[str]:
    """The suffixes as alternatives of expressions, none of them too long."""
    portion = ""
    for suffix in suffixes:
        spelled = suffix.replace(".", "[.]")
        if portion and len(portion) + len(spelled) > _LONGEST:
            yield portion
            portion = ""
        portion += f"|{spelled}" if portion else spelled
    if portion:
        yield portion


def door(path: str) -> str:
    """The request lines that a route answers to, as one expression.

    An alias may hold slashes and anything escaped. That is safe, because its first step says by itself that it is no other door.
    """
    steps = "".join(_WORDS[word[1:-1]] if word[1:-1] in _WORDS else re.escape(word) for word in re.split("(<[a-z]+>)", path))
    if path.endswith("<dkey>"):
        return f"^[A-Z]+ {steps}{_VERSION}$"
    if path.endswith("<name>"):
        return f"^[A-Z]+ {steps.removesuffix('<name>')}{_SPELLED}{_VERSION}$"
    return f"^[A-Z]+ {_SAFE}{steps}(?:[?][!-~]*)?{_VERSION}$"
