"""A commit as an object: compressed lines of JSON, a header and then one for each record.

    {"form":1,"n":7,"previous":"<SHA-256 of commit 6>","writer":..,"session":..,"revision":..,"author":..,"message":..,
     "time":..,"changes":2}
    {"hash":"<hash>","based_on":4,"was":{...},"state":{...}}
    {"hash":"<hash>","based_on":0,"was":null,"state":{...}}

Lines are in the order in which the session first changed each record. `was` is the state that was replaced and `state` the new one,
null for none: so a commit can be read, and gone back on, by itself. An object's hash is the SHA-256 of its bytes as they lie in the
store; each header has the one of the commit before, the first has zeros.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from imgproxy.errors import StoreLied
from imgproxy.meta.jsontext import read_entry
from imgproxy.meta.packed import packing, unpacking

FORM = 1
FIRST = "0" * 64
"""What stands for the commit before the first."""

_LINE = 2**22
_COPY = 2**20
_ROWS = 500


@dataclass(frozen=True, slots=True)
class Header:
    """What a commit says of itself; numbers decide, the time informs."""

    n: int
    previous: str
    writer: str
    session: str
    revision: int
    author: str
    message: str
    time: str
    changes: int


class Line(NamedTuple):
    """What a commit made of one record: states are JSON texts, None for no record."""

    hash: str
    based_on: int
    was: str | None
    state: str | None


def key(n: int) -> str:
    """Where commit `n` lies in the store.

    >>> key(42)
    'commits/000000000042'
    """
    return f"commits/{n:012}"


def compose(db: sqlite3.Connection, session: int, header: Header, path: Path) -> str:
    """Write what is staged in a session to a file, as the commit that it will be; its hash."""
    rows = db.execute(
        "SELECT s.hash, s.based_on, r.state, s.state FROM staged s LEFT JOIN records r ON r.hash = s.hash"
        " WHERE s.session = ? ORDER BY s.number",
        (session,),
    )
    with path.open("wb") as file, packing(file) as packed:
        packed.write(json.dumps({"form": FORM, **asdict(header)}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        while some := rows.fetchmany(_ROWS):
            packed.write("".join(_written(*row) for row in some).encode())
    with path.open("rb") as made:
        return sha256(made)


def sha256(file: BinaryIO) -> str:
    """The hash of all that a file still yields."""
    sum = hashlib.sha256()
    while chunk := file.read(_COPY):
        sum.update(chunk)
    return sum.hexdigest()


def save(source: BinaryIO, path: Path) -> str:
    """Copy all that `source` yields to a file; its hash."""
    sum = hashlib.sha256()
    with path.open("wb") as file:
        while chunk := source.read(_COPY):
            sum.update(chunk)
            file.write(chunk)
    return sum.hexdigest()


def header(path: Path) -> Header:
    """What a commit that was saved to a file says of itself."""
    with path.open("rb") as file, unpacking(file) as plain:
        return _header(plain)


def lines(path: Path) -> Iterator[Line]:
    """What a commit that was saved to a file made of each record; `StoreLied` unless it is whole."""
    with path.open("rb") as file, unpacking(file) as plain:
        expected = _header(plain).changes
        count = 0
        while text := plain.readline(_LINE):
            yield _line(text)
            count += 1
        if count != expected:
            raise StoreLied(f"a commit has {count} changes, and says {expected}")


def _written(hash: bytes, based_on: int, was: str | None, state: str | None) -> str:
    return f'{{"hash":"{hash.hex()}","based_on":{based_on},"was":{was or "null"},"state":{state or "null"}}}\n'


def _header(plain: BinaryIO) -> Header:
    said = _parsed(plain.readline(_LINE))
    if said.pop("form", None) != FORM:
        raise StoreLied("a commit was written by another version of this program")
    try:
        return Header(**said)
    except TypeError as error:
        raise StoreLied("a commit begins with what is no header") from error


def _line(text: bytes) -> Line:
    try:
        return Line(*read_entry(text))
    except ValueError as error:
        raise StoreLied("a commit has a line that is none") from error


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise StoreLied("a commit has a line that is no JSON") from error
    if not isinstance(said, dict):
        raise StoreLied("a commit has a line that is no JSON object")
    return said
