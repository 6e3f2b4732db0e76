"""A record: what is said of one image. Some of it the program found out, some of it people say.

A record travels as JSON without its hash and its version, and without what says nothing (`state`). The version is the number of the
commit that made this state live, 0 for none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

from imgproxy.errors import BadRecord
from imgproxy.meta import fields as check
from imgproxy.meta import jsontext

TEXT_BYTES = 262_144
"""The longest JSON text of a record or an edit that is looked at."""

CHECKS: dict[str, check.Check] = {
    "hash": check.hex_digits(64, optional=False),
    "type": check.type,
    "width": check.whole(0, 2**31),
    "height": check.whole(0, 2**31),
    "bytes": check.whole(0, 2**53),
    "md5": check.hex_digits(32),
    "phash": check.hex_digits(16),
    "added_at": check.time,
    "taken_at": check.time,
    "title": check.text(1_000),
    "description": check.text(20_000),
    "tags": check.tags,
    "domain": check.domain,
    "dkey": check.text(250),
    "user": check.json_object,
    "image": check.json_object,
}
"""Every field that a record has, beside its version."""

EDITABLE = ("title", "description", "tags", "taken_at", "domain", "dkey", "user")
"""What people say; all else the program finds out."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is said of one image.

    `taken_at` is by the clock on the wall where the picture was taken, `added_at` is UTC. `phash` is a perceptual hash of 64 bits
    as 16 hex digits, or empty. `domain` and `dkey` together are an alias that no other record has. `user` is free. `image` is what
    the file said of itself: `camera`, `lens`, `exposure`, `artist`, `copyright`, and `gps`, which is shown to nobody who may not
    see it (`shown`).
    """

    hash: str
    type: str
    width: int
    height: int
    bytes: int
    md5: str = ""
    phash: str = ""
    added_at: str = ""
    taken_at: str = ""
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    domain: str = ""
    dkey: str = ""
    user: Mapping[str, Any] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0


_ORDER = tuple(entry.name for entry in fields(Record))
_NOTHING: dict[str, Any] = {name: {} if name in ("user", "image") else () if name == "tags" else "" for name in _ORDER[5:-1]}
_REQUIRED = _ORDER[:5]
_State = jsontext.shape("State", _REQUIRED[1:], _NOTHING)
_facts = attrgetter(*_ORDER[1:-1])


def read(value: object) -> Record:
    """The record that a JSON value spells, or `BadRecord` naming the first field that is wrong."""
    if not isinstance(value, Mapping):
        raise BadRecord("", "is not a JSON object")
    for name in _REQUIRED:
        if name not in value:
            raise BadRecord(name, "is missing")
    return _whole(Record(**_checked(value, tuple(CHECKS))))


def edited(record: Record, changes: object) -> Record:
    """The record with changes that people may make; null takes away what was said."""
    if not isinstance(changes, Mapping):
        raise BadRecord("", "is not a JSON object")
    return _whole(replace(record, **_checked(changes, EDITABLE)))


def loads(data: bytes) -> object:
    """The JSON value of a text from outside, or `BadRecord`."""
    if len(data) > TEXT_BYTES:
        raise BadRecord("", f"is longer than {TEXT_BYTES} bytes")
    try:
        return json.loads(data, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise BadRecord("", "is not JSON, or nested too deeply") from error


def remark(field: str, value: str, length: int = 2_000) -> str:
    """What somebody says about a change, or `BadRecord`."""
    try:
        return str(check.text(length)(value))
    except ValueError as error:
        raise BadRecord(field, str(error)) from error


def adds_nothing(record: Record, to: Record) -> bool:
    """Whether people say nothing in one record that the other does not say as well."""
    return all(getattr(record, name) in (_NOTHING[name], getattr(to, name)) for name in EDITABLE)


def state(record: Record) -> str:
    """The record as JSON text, without its hash and version; equal records have equal texts."""
    return jsontext.written(_State(*_facts(record)))


def from_state(hash: str, version: int, text: str) -> Record:
    """The record that `state` made a text of; only for texts of our own."""
    said = jsontext.read(text)
    if "tags" in said:
        said["tags"] = tuple(said["tags"])
    return Record(hash=hash, version=version, **said)


def shown(record: Record, *, private: bool = False) -> dict[str, Any]:
    """The record as a JSON value for other people; where a picture was taken is private unless said otherwise."""
    said = asdict(record)
    said["tags"] = list(record.tags)
    if not private:
        said["image"] = {name: value for name, value in said["image"].items() if name != "gps"}
    return said


def _checked(value: Mapping[str, object], allowed: tuple[str, ...]) -> dict[str, Any]:
    good = {}
    for name, given in value.items():
        if name not in allowed:
            known = name in CHECKS or name == "version"
            raise BadRecord(_spelled(name), "is not for you to say" if known else "is no field of a record")
        try:
            good[name] = _NOTHING[name] if given is None and name in _NOTHING else CHECKS[name](given)
        except ValueError as error:
            raise BadRecord(name, str(error)) from error
    return good


def _whole(record: Record) -> Record:
    if bool(record.domain) != bool(record.dkey):
        raise BadRecord("dkey" if record.domain else "domain", "an alias needs both domain and dkey")
    return record


def _spelled(name: object) -> str:
    """A stranger's field name, short and printable."""
    return "".join(c if " " <= c <= "~" else "?" for c in str(name)[:60])


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value
