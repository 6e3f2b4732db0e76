"""JSON texts of our own making, written and read as fast as a million of them ask for. (Strangers' texts are read elsewhere.)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

_write = msgspec.json.Encoder(order="sorted").encode
_read = msgspec.json.Decoder().decode


class Entry(msgspec.Struct, frozen=True):
    """A line of a commit: the texts of the states are kept as they are written, character by character."""

    hash: str
    based_on: int
    was: msgspec.Raw
    state: msgspec.Raw


_read_entry = msgspec.json.Decoder(Entry).decode


def shape(name: str, required: Iterable[str], defaults: Mapping[str, Any]) -> Callable[..., object]:
    """A maker of objects with these fields, in this order; what is as by default is not written."""
    optional = [(field, Any, default) for field, default in defaults.items()]
    return msgspec.defstruct(name, [*required, *optional], omit_defaults=True)


def written(value: object) -> str:
    """A JSON object as text; equal objects have equal texts."""
    return _write(value).decode()


def read(text: str) -> dict[str, Any]:
    """The JSON object that `written` made a text of; `ValueError` if it is none."""
    try:
        value = _read(text)
    except msgspec.DecodeError as error:
        raise ValueError("not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def read_entry(text: bytes) -> tuple[str, int, str | None, str | None]:
    """The parts of a line of a commit; `ValueError` if it is none."""
    try:
        entry = _read_entry(text)
    except msgspec.DecodeError as error:
        raise ValueError("not a line of a commit") from error
    return entry.hash, entry.based_on, _said(entry.was), _said(entry.state)


def _said(state: msgspec.Raw) -> str | None:
    text = bytes(state).decode()
    return None if text == "null" else text
