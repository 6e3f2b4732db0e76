"""What the doors for writing answer, as types: they make the JSON, and the document that describes it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from imgproxy.grammar import Base
from imgproxy.meta import record
from imgproxy.meta.commits import Commit as MetaCommit
from imgproxy.meta.sessions import Difference as MetaDifference
from imgproxy.meta.sessions import Session as MetaSession
from imgproxy.urls import Urls
from imgproxy.web.operation import Problem


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A record: what is said of one image, by the program and by people."""

    hash: str
    name: str
    url: str
    type: str
    width: int
    height: int
    bytes: int
    md5: str
    phash: str
    added_at: str
    taken_at: str
    title: str
    description: str
    tags: list[str]
    domain: str
    dkey: str
    user: dict[str, Any]
    image: dict[str, Any]
    version: int


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file: it is an original now, with a record in a session; `new` if it was not kept here before.

    `said` unless the record says something else than was to be said, and the token is not for changing that. `image` is the record as its
    session shows it, unless the token is not for reading what others say of a picture that had one.
    """

    hash: str
    name: str
    url: str
    new: bool
    said: bool = True
    image: Image | None = None
    hints: list[str] = []
    """Where the renditions that were asked for are, or will be in a moment."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one of several files: the status that it would have been answered with alone, and what it became or why not."""

    file: str
    status: int
    hash: str = ""
    name: str = ""
    url: str = ""
    new: bool = False
    said: bool = True
    image: Image | None = None
    hints: list[str] = []
    problem: Problem | None = None


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a search: where to go on (empty: nowhere), and how many there are in all: exactly, or at least."""

    images: list[Image]
    cursor: str = ""
    total: int = 0
    exact: bool = True
    commit: int = 0


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """An open session: changes that nobody else sees until they are committed."""

    id: str
    name: str
    author: str
    opened: str
    changes: int
    """How many records it changes."""
    committing: bool


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """All that are open, the oldest first."""

    sessions: list[Session]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What a session makes of one record: new, changed or deleted; `stale` if the live one changed meanwhile."""

    hash: str
    what: Literal["new", "changed", "deleted"]
    stale: bool
    before: Image | None
    after: Image | None


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """Some of them, in the order of hashes; `after` is the one to go on behind (empty: there are no more)."""

    differences: list[Difference]
    after: str = ""


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit; `n` is null if there was nothing to commit."""

    n: int | None
    hash: str = ""
    session: str = ""
    author: str = ""
    message: str = ""
    time: str = ""
    changes: int = 0


class Commits(msgspec.Struct, frozen=True, kw_only=True):
    """The newest commits, the newest first; `before` is where to go on (0: nowhere)."""

    commits: list[Commit]
    before: int = 0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A record without its original (lost), an original without a record (stray), no hash (odd), a rendition without original (orphan)."""

    kind: Literal["lost", "stray", "odd", "orphan"]
    key: str


class Synced(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of records and originals found, the first thousand of it, and how many there were and were mended of each kind."""

    found: list[Found]
    numbers: dict[str, int]
    agree: bool


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run came; `quarantined` did not match their names and were put away; `whole` if it reached the end."""

    originals: int
    bytes: int
    quarantined: list[str]
    whole: bool


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The commit that a snapshot stands at."""

    n: int


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore from the store came to, compared with the live database: no differences is what is hoped for."""

    n: int
    records: int
    broken: list[int]
    """Snapshots that could not be read."""
    differences: list[str]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the repository is, seen from this node."""

    commit: int
    """The number of the newest commit here."""
    records: int
    sessions: int
    """How many are open."""
    writer: str
    """Who holds the lease; empty for nobody."""
    farewell: int
    """How many deleted originals are still to be removed from the store."""
    lag: float
    """For how many seconds this node may have been behind the store."""


def image(one: record.Record, urls: Urls) -> Image:
    """A record as it is answered, with where the picture was taken."""
    name = Base(one.hash, one.type)
    return Image(**record.shown(one, private=True), name=str(name), url=urls.url(name))


def session(one: MetaSession, changes: int) -> Session:
    """A session as it is answered."""
    return Session(id=one.id, name=one.name, author=one.author, opened=one.opened, changes=changes, committing=one.committing is not None)


def difference(one: MetaDifference, urls: Urls) -> Difference:
    """What a session makes of a record, as it is answered."""
    before, after = (None if record is None else image(record, urls) for record in (one.before, one.after))
    what: Literal["new", "changed", "deleted"] = "new" if before is None else "deleted" if after is None else "changed"
    return Difference(hash=one.hash, what=what, stale=one.stale, before=before, after=after)


def commit(one: MetaCommit | None) -> Commit:
    """A commit as it is answered, or that there was nothing to commit."""
    if one is None:
        return Commit(n=None)
    return Commit(n=one.n, hash=one.hash, session=one.session, author=one.author, message=one.message, time=one.time, changes=one.changes)
