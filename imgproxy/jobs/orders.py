"""What can be ordered: one kind of work each, with all that it needs to know; the JSON of an order names its kind."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from imgproxy.errors import BadTask

GRACE = 86_400.0
Bounded = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
LONGEST = 2**18
"""So many bytes of renditions to be made are kept as one order: a task is written anew as it goes on, and read with a page of others."""


class _Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Anything that can be ordered."""


class FetchWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What there is to say of a fetch: where from, what is said of the picture, in which session, and what is made of it."""

    url: str
    domain: str = ""
    dkey: str = ""
    page_url: str = ""
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    user: dict[str, Any] = {}
    session: str = ""
    suffixes: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()


class Fetch(FetchWords, _Order, frozen=True):
    """Bring the picture at a URL, give it a record in a session, and make renditions of it, by suffixes and presets.

    Unless it `edits`, what is said of a picture that has a record stays.
    """

    edits: bool = True


class DeriveWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What there is to say of renditions: these names, and these suffixes and presets of some images, of what a search finds, or of all."""

    suffixes: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    query: dict[str, Any] = {}


class Derive(DeriveWords, _Order, frozen=True):
    """Make renditions, of all images if there are no `hashes` and no query; `missing` makes only what no listing has."""

    hashes: tuple[str, ...] = ()
    missing: bool = False


class Sync(_Order, frozen=True):
    """Compare records with originals, and repair if that is asked for: delete lost records, and adopt strays (or delete them)."""

    repair: bool = False
    delete_strays: bool = False
    grace: Bounded = GRACE


class Verify(_Order, frozen=True):
    """Hash originals again, at so many bytes a second (0: as fast as may be), at most so many of them (0: all)."""

    pace: Bounded = 20e6
    most: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0


class Snapshot(_Order, frozen=True):
    """Write the whole database into the store."""


class Commit(_Order, frozen=True):
    """Make all of a session live."""

    session: str = ""
    author: str = ""
    message: str = ""


class Cull(_Order, frozen=True):
    """Forget old tasks, and what is left of fetches that nobody goes on with."""


Order: TypeAlias = Fetch | Derive | Sync | Verify | Snapshot | Commit | Cull
KINDS = tuple(kind.__name__.lower() for kind in (Fetch, Derive, Sync, Verify, Snapshot, Commit, Cull))
QUICK = ("fetch", "commit")
"""Kinds that somebody waits for; the others may take hours."""


def written(order: Order) -> bytes:
    """An order as JSON; equal orders have equal texts."""
    return msgspec.json.encode(order, order="sorted")


def read(value: object) -> Order:
    """The order that a JSON value spells, or `BadTask`."""
    try:
        order: Order = msgspec.convert(value, Order)
    except msgspec.ValidationError as error:
        raise BadTask("order", str(error)) from error
    return order


def bounded(order: Order) -> None:
    """Refuse an order that is too long to be kept."""
    if isinstance(order, Derive) and len(written(order)) > LONGEST:
        raise BadTask("hashes" if order.hashes else "names", f"an order of more than {LONGEST} bytes: order by a query, or in parts")
