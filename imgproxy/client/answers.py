"""What a repository answers, as values: the same whether it is asked over HTTP or on its own machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from imgproxy.errors import CallFailed
from imgproxy.meta.record import Record

__all__ = ["Commit", "Difference", "Found", "Kept", "Record", "Session", "Status", "Synced", "Task", "Verified", "record_of", "value_of"]

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Kept:
    """An original that is there now; `new` if it was not before.

    `said` unless it has a record that says something else than was to be said, which only a token for `write` may change.
    """

    hash: str
    name: str
    url: str
    new: bool
    said: bool = True


@dataclass(frozen=True, slots=True)
class Session:
    """An open session; how many records it changes."""

    id: str
    name: str = ""
    author: str = ""
    opened: str = ""
    changes: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """What a session makes of one record; None for no record; `stale` if the live one changed meanwhile."""

    hash: str
    before: Record | None
    after: Record | None
    stale: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """An entry of the log."""

    n: int
    hash: str
    session: str
    author: str
    message: str
    time: str
    changes: int


@dataclass(frozen=True, slots=True)
class Found:
    """A record without its original (`lost`), an original without a record (`stray`), no hash (`odd`), a rendition alone (`orphan`)."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class Synced:
    """How many there were and were mended of each kind; whether records and originals agree."""

    numbers: Mapping[str, int]
    agree: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """How far a look at the originals came, and which were put away."""

    originals: int = 0
    bytes: int = 0
    quarantined: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """Something that is done in its own time: `state` is created, succeeded, failed or warning."""

    id: str
    kind: str
    state: str
    running: bool = False
    attempts: int = 0
    error: str = ""
    created_at: str = ""
    started_at: str = ""
    finished_at: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    order: Mapping[str, Any] = field(default_factory=dict)
    callback: str = ""
    author: str = ""
    delivery: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state != "created"


@dataclass(frozen=True, slots=True)
class Status:
    """How a repository is, seen from one node."""

    commit: int
    records: int
    sessions: int
    writer: str
    farewell: int
    lag: float


def value_of(kind: type[Value], told: object) -> Value:
    """The value that a JSON object spells; what it says beyond that is left for newer clients."""
    if not isinstance(told, Mapping):
        raise CallFailed("the server answered with something else than it should", again=False)
    known = fields(kind)  # type: ignore[arg-type]
    missing = [one.name for one in known if one.name not in told and one.default is MISSING and one.default_factory is MISSING]
    if missing:
        raise CallFailed(f"the server answered without {missing[0]}", again=False)
    said = {one.name: told[one.name] for one in known if one.name in told}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in said.items()})


def record_of(told: object) -> Record:
    """The record that a JSON object spells."""
    return value_of(Record, told)
