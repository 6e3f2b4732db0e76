"""Originals hashed again, one after the other, at a bounded pace; what does not match its name is put away.

A copy that went wrong is asked for once more, freshly: a store with several copies has set the bad one aside by then. What is wrong
twice is copied to `quarantine/<hash>` and removed from its place: so nobody is shown it, sync finds its record lost, and an upload of the
same picture heals it. What somebody puts there just now is left alone. The place is noted as it goes on; a run that was stopped is
continued, one that reached the end begins anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imgproxy.errors import StoreLied
from imgproxy.meta.alone import Alone, undisturbed
from imgproxy.meta.chain import Chain
from imgproxy.meta.database import note, noted
from imgproxy.stores import Blob, Item, Store

QUARANTINE = "quarantine/"
_NOTE = "verified"
_CHUNK = 2**18
_NOTED_EVERY = 50


@dataclass(frozen=True, slots=True)
class Verified:
    """How far a run came: so many originals and bytes, and the hashes of those that were put away; `whole` if it reached the end."""

    originals: int = 0
    bytes: int = 0
    quarantined: tuple[str, ...] = ()
    whole: bool = False


class Verify:
    """The originals of one store, looked at again. `pace` is in bytes a second; 0 does not hold back."""

    def __init__(
        self,
        chain: Chain,
        base: Store,
        first: Callable[[], object],
        alone: Alone,
        *,
        pace: float = 20e6,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._chain = chain
        self._base = base
        self._first = first
        self._alone = alone
        self._pace = pace
        self._sleep = sleep

    def run(
        self,
        told: Callable[[Verified], object] = lambda _: None,
        *,
        most: int | None = None,
        passing: Callable[[str], object] = lambda _: None,
    ) -> Verified:
        """Go on where the last run stopped, over at most so many originals; `told` how far it is after each, `passing` which is next."""
        done = Verified()
        begun = time.monotonic()
        for hash in self._hashes():
            if most is not None and done.originals == most:
                return done
            passing(hash)
            size, right = self._look(hash)
            put_away = (hash,) if not right and self._put_away(hash) else ()
            done = Verified(done.originals + 1, done.bytes + size, done.quarantined + put_away)
            if done.originals % _NOTED_EVERY == 0 or done.originals == most:
                self._note(hash)
            told(done)
            self._hold_back(done.bytes, begun)
        self._note("")
        return Verified(done.originals, done.bytes, done.quarantined, whole=True)

    def _hashes(self) -> Iterator[str]:
        with self._chain.database.reading() as db:
            after = str(noted(db, _NOTE, ""))
        for item in self._base.list(after=after):
            if len(item.key) == 64 and not item.key.strip("0123456789abcdef"):
                yield item.key

    def _look(self, hash: str) -> tuple[int, bool]:
        """How many bytes an original has, and whether they are right, at the first or the second look; what is gone is not wrong."""
        size = 0
        for fresh in (False, True):
            blob = self._base.get(hash, fresh=fresh)
            if blob is None:
                return size, True
            read, right = _matches(blob, hash)
            size += read
            if right:
                return size, True
        return size, False

    def _put_away(self, hash: str) -> bool:
        """Copy what is wrong and remove it, while no commit can happen; False if it turned out to be right, or somebody puts it anew."""
        with self._chain.alone(), undisturbed(self._alone, hash) as alone:
            if not alone:
                return False
            self._first()
            blob = self._base.get(hash, fresh=True)
            if blob is None or _matches(blob, hash)[1]:
                return False
            self._copy(hash)
            now = self._base.head(hash, fresh=True)  # another node may have put it since
            return now is not None and _same(now, blob.item) and self._base.delete(hash)

    def _copy(self, hash: str) -> None:
        blob = self._base.get(hash, fresh=True)
        if blob is None:
            return
        with blob:
            try:
                self._chain.store.put(QUARANTINE + hash, blob.file, type=blob.item.type)
            except StoreLied:
                return  # not even its bytes can be had; there is nothing to keep

    def _note(self, hash: str) -> None:
        with self._chain.database.writing() as db:
            note(db, _NOTE, hash)

    def _hold_back(self, read: int, begun: float) -> None:
        if self._pace:
            early = read / self._pace - (time.monotonic() - begun)
            if early > 0:
                self._sleep(early)


def _same(one: Item, other: Item) -> bool:
    return (one.size, one.modified) == (other.size, other.modified)


def _matches(blob: Blob, hash: str) -> tuple[int, bool]:
    """How many bytes an object has, and whether they are those that its name says."""
    sum = hashlib.sha256()
    size = 0
    with blob:
        try:
            while chunk := blob.file.read(_CHUNK):
                sum.update(chunk)
                size += len(chunk)
        except StoreLied:
            return size, False
    return size, sum.hexdigest() == hash
