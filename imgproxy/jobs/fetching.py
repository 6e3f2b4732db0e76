"""Fetch a picture: through the window into a file, from there like any upload, and then the renditions that were asked for.

An attempt whose worker was taken for dead may still be at it: the next one leaves the file alone until it has ended.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from imgproxy.errors import CannotRead, CannotWrite, Damaged, Impossible, Missing, TooMuch
from imgproxy.grammar import parse
from imgproxy.jobs import suffixes_of
from imgproxy.jobs.orders import Fetch
from imgproxy.jobs.shop import Shop, Tell
from imgproxy.jobs.task import Outcome
from imgproxy.picture import MEDIA_TYPES

CANNOT_BE = (CannotRead, CannotWrite, Damaged, Impossible, Missing, TooMuch)
"""What keeps a rendition from ever being made; anything else may pass."""

_ANY_BYTES = ("", "application/octet-stream", "binary/octet-stream", "image/jpg", "image/pjpeg", "image/x-png")
_LEFT_ALONE = 86_400.0


def fetch(order: Fetch, task: str, shop: Shop, tell: Tell) -> Outcome:
    """Bring a picture into a session, with its words and its renditions."""
    file = shop.spool / task
    with shop.flights.alone(task, time.monotonic()):
        return _fetched(order, file, shop, tell)


def _fetched(order: Fetch, file: Path, shop: Shop, tell: Tell) -> Outcome:
    try:
        fetched = shop.window.fetch(order.url, file)
        tell({"bytes": fetched.size})
        session = shop.words.sessions.find(order.session)
        with file.open("rb") as picture:
            done = shop.uploads.keep(picture, session, said(order), edits=order.edits)
    except CANNOT_BE:
        drop(file)  # nobody will go on with it
        raise
    name = done.added.name
    warnings: list[str] = []
    made: list[str] = []
    if fetched.type not in (*_ANY_BYTES, MEDIA_TYPES[name.type]):
        warnings.append(f"the server calls it {fetched.type}, and it is {MEDIA_TYPES[name.type]}")
    if not done.said:
        warnings.append("it has a record, and who ordered this may not change what that says")
    for suffix in suffixes_of(order.suffixes, order.presets, shop.presets):
        text = f"{name.hash}{suffix}"
        tell({"bytes": fetched.size, "renditions": len(made)})
        try:
            shop.images.open(parse(text)).file.close()
            made.append(text)
        except CANNOT_BE as error:
            warnings.append(f"{suffix}: {error}")
    drop(file)
    result = {"hash": name.hash, "name": str(name), "new": done.added.new, "url": fetched.url, "renditions": made, "warnings": warnings}
    return Outcome("warning" if warnings else "succeeded", result, "; ".join(warnings))


def said(order: Fetch) -> dict[str, object]:
    """What the record of a fetched picture says beside what the program finds out."""
    words = {name: getattr(order, name) for name in ("title", "description", "domain", "dkey") if getattr(order, name)}
    user = {**({"page_url": order.page_url} if order.page_url else {}), **order.user}
    return {**words, **({"tags": list(order.tags)} if order.tags else {}), **({"user": user} if user else {})}


def drop(file: Path) -> None:
    """Forget what was fetched into a file."""
    for path in (file, file.with_name(f"{file.name}.note")):
        path.unlink(missing_ok=True)


def sweep(spool: Path) -> int:
    """Forget fetches that nobody has gone on with for a day; how many files that were."""
    count = 0
    for entry in os.scandir(spool):
        with suppress(FileNotFoundError):
            if time.time() - entry.stat().st_mtime > _LEFT_ALONE:
                Path(entry.path).unlink()
                count += 1
    return count
