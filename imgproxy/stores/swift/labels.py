"""What is written on an object: `Item` to and from the headers of Swift."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from imgproxy.stores import Item

_UNTYPED = "application/octet-stream"
_META = "x-object-meta-"
_NAME = re.compile("[a-z0-9]+(?:-[a-z0-9]+)*")
_VALUE = re.compile("[!-~](?:[ -~]{0,198}[!-~])?")
_MOST = 2_000


def written(type: str, note: Mapping[str, str]) -> dict[str, str]:
    """The headers of an object that is put; `ValueError` for a note that would not come back as it went.

    Header names lose their case and their underscores on the way, values their outer spaces, and of much metadata a file system loses all.
    """
    if not _VALUE.fullmatch(type or _UNTYPED):
        raise ValueError(f"not a media type: {type!r}")
    for name, value in note.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"not a note that Swift keeps: {name!r}: {value!r}")
    if sum(len(name) + len(value) for name, value in note.items()) > _MOST:
        raise ValueError(f"notes of more than {_MOST} characters")
    return {"Content-Type": type or _UNTYPED} | {_META + name: value for name, value in note.items()}


def item(key: str, headers: Mapping[str, str]) -> Item:
    """What the headers of an object say; `KeyError` or `ValueError` if they do not."""
    return Item(
        key,
        _size(headers["content-length"]),
        _type(headers.get("content-type", "")),
        {name.lower()[len(_META) :]: value for name, value in headers.items() if name.lower().startswith(_META)},
        float(headers["x-timestamp"]),
    )


def listed(row: Mapping[str, Any]) -> Item:
    """What a row of a listing says."""
    modified = datetime.fromisoformat(row["last_modified"]).replace(tzinfo=UTC).timestamp()
    return Item(row["name"], int(row["bytes"]), _type(row["content_type"]), modified=modified)


def _size(text: str) -> int:
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError(f"not a size: {text!r}")
    return int(text)


def _type(text: str) -> str:
    """Swift has a type for everything; the one that says nothing is ours for none."""
    return "" if text == _UNTYPED else text
