"""What the doors for writing answer, as types: they make the JSON, and the document that describes it."""

from __future__ import annotations

from typing import Any

import msgspec

from imgproxy.grammar import Base
from imgproxy.meta import record
from imgproxy.urls import Urls


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


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An original that is here now."""

    hash: str
    name: str
    url: str
    new: bool
    """Whether it was not here before."""


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
