"""What is said of a picture: with its upload, as far as it fits there, and else right after it, by an edit.

A line of a request has a bound, which is lower than that of what a record may hold; and where texts are a list by commas, a tag with a
comma would be several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imgproxy.meta.record import EDITABLE, Record, edited

LINE = 4_000
"""So many bytes of what is said fit into a line of a request, beside the rest of it."""

_ANY = Record("0" * 64, "png", 1, 1, 1)
_NOTHING: tuple[object, ...] = ("", None, [], ())
_SPELLED = ("tags", "user")
"""What may be spelled as a text, too, which only an upload understands."""


def shared_out(said: Mapping[str, Any], length: Callable[[Mapping[str, Any]], int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said with an upload and what after it, by the length that the first would have; raise `BadRecord` if that cannot be said."""
    later = {name: value for name, value in said.items() if _is_edit(name, value)}
    if length(said) <= LINE:
        later = {name: value for name, value in later.items() if name == "tags" and any("," in str(tag) for tag in value)}
    if "tags" in later:
        later["tags"] = [tag for tag in later["tags"] if tag]
    edited(_ANY, later)
    now = {name: value for name, value in said.items() if name not in later}
    if "user" in later:
        now["user"], later["user"] = _parted(later["user"])
    return now, later


def _is_edit(name: str, value: object) -> bool:
    return name in EDITABLE and value not in _NOTHING and not (name in _SPELLED and isinstance(value, str))


def _parted(value: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A JSON object in two: the first in place of what was there, the second merged into it. In a merge null takes away."""
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    for name, one in value.items():
        if one is None:
            first[name] = None
        elif isinstance(one, Mapping):
            nulls, second[name] = _parted(one)
            if nulls:
                first[name] = nulls
        else:
            second[name] = one
    return first, second
