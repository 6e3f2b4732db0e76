"""How each kind of work is done, and what is asked of an order before it is taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from imgproxy.errors import BadName, BadTask, NoSession
from imgproxy.grammar import Derived, parse
from imgproxy.jobs import deriving, fetching, orders, suffixes_of, upkeep
from imgproxy.jobs.orders import Derive, Fetch, Order
from imgproxy.jobs.shop import Shop, Tell
from imgproxy.jobs.task import Outcome
from imgproxy.meta import query

Trade = Callable[[Any, str, Shop, Tell], Outcome]

TRADES: Mapping[type, Trade] = {
    orders.Fetch: fetching.fetch,
    orders.Derive: deriving.derive,
    orders.Sync: upkeep.sync,
    orders.Verify: upkeep.verify,
    orders.Snapshot: upkeep.snapshot,
    orders.Commit: upkeep.commit,
}
"""Who does what; the worker itself culls."""

_SLOWEST = 1_000
_HASH = re.compile("[0-9a-f]{64}")


def check(order: Order, callback: str, shop: Shop) -> Order:
    """An order as it is to be kept, if it makes sense; else `BadTask`, `BadAddress`, `BadRecord` or `NoSession`."""
    if callback:
        shop.window.check(callback)
    orders.bounded(order)
    if isinstance(order, Fetch):
        shop.window.check(order.url)
        if order.page_url and len(order.page_url) > 4096:
            raise BadTask("page_url", "is longer than 4096 characters")
        shop.uploads.check(order.session, fetching.said(order))
    if isinstance(order, orders.Commit):
        return replace(order, session=_to_commit(order.session, shop))
    if isinstance(order, orders.Verify) and 0 < order.pace < _SLOWEST:
        raise BadTask("pace", f"is neither 0 nor at least {_SLOWEST}")
    return _spelled(order, shop.presets) if isinstance(order, Fetch | Derive) else order


def _to_commit(session: str, shop: Shop) -> str:
    """The id of a session that is open, or of one that was committed: asked again by that, the answer is the same commit."""
    try:
        return shop.words.sessions.find(session).id
    except NoSession:
        if shop.words.commits.of_session(session) is None:
            raise
        return session


def _spelled(order: Fetch | Derive, presets: Mapping[str, str]) -> Order:
    """With the suffixes in place of presets, in their one order: equal orders are the same order."""
    suffixes = suffixes_of(order.suffixes, order.presets, presets)
    if isinstance(order, Fetch):
        return replace(order, suffixes=suffixes, presets=())
    if not suffixes and not order.names:
        raise BadTask("suffixes", "nothing is to be made: expected suffixes, presets or names")
    if order.query:
        query.read(order.query)
    for name in order.names:
        _is_rendition(name)
    for hash in order.hashes:
        if not _HASH.fullmatch(hash):
            raise BadTask("hashes", "expected 64 hex digits each")
    return replace(order, suffixes=suffixes, presets=(), hashes=tuple(sorted(set(order.hashes))))


def _is_rendition(name: str) -> None:
    try:
        if isinstance(parse(name), Derived):
            return
    except BadName as error:
        raise BadTask("names", error.why) from error
    raise BadTask("names", "expected names of renditions")
