"""Tiers, near to far: ask near first, teach near from far, make once.

    found in a tier            -> the nearer tiers learn it
    found in none              -> one asker makes it (threads and processes of this host), the tiers learn it, the others get it too
    a tier in trouble          -> counts as if it had forgotten; the answer says so
    the making fails           -> those who waited get the same error, if it would be theirs too; nothing is kept
    it left meanwhile          -> the tiers that learned it forget it again, and it is looked for anew, should something else have left

Whoever has to wait takes a place in the waiting room first. It has fewer places than the server has threads, so that what is
already there is always answered at once.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from imgproxy.departures import Departures
from imgproxy.errors import Busy, Error, RendererLost, StoreTrouble
from imgproxy.flights import Flight, Flights
from imgproxy.stores import Blob, Item, Store, sweep

_NOT_SHARED = (Busy, RendererLost)
"""What befell the one who made, and need not befall the next."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A shelf of the cache, and the word by which answers name it."""

    word: str
    store: Store


class Found(NamedTuple):
    """Open bytes, the word of where they were, and the words of the tiers that were in trouble."""

    blob: Blob
    origin: str
    troubles: tuple[str, ...] = ()


class Recipe(NamedTuple):
    """How to make what is not there: its key, its media type, the work, and the moment after which nobody waits for it."""

    key: str
    type: str
    make: Callable[[], bytes]
    deadline: float


class Cache:
    """The tiers of one node, and its waiting room."""

    def __init__(self, tiers: Sequence[Tier], flights: Flights, departures: Departures, places: int) -> None:
        self._tiers = tuple(tiers)
        self._flights = flights
        self._departures = departures
        self._places = threading.BoundedSemaphore(places)

    def find(self, key: str) -> Found | None:
        """What the nearest tier has that has it; the nearer ones learn it."""
        return self._found(key, self._tiers)

    def fetch(self, recipe: Recipe) -> Found:
        """What a tier has, or else what is made by the recipe, once for all who ask at this time."""
        found = self.find(recipe.key)
        if found is not None:
            return found
        with self.waiting():
            return self._awaited(recipe)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A place in the waiting room while the block runs; raise `Busy` if there is none."""
        if not self._places.acquire(blocking=False):
            raise Busy("too many are waiting for pictures to be made")
        try:
            yield
        finally:
            self._places.release()

    def forget(self, prefix: str) -> None:
        """Remove from every tier what begins with `prefix`."""
        self._each(prefix, lambda store: sweep(store, prefix))

    def drop(self, key: str) -> bool:
        """Remove one key from every tier; whether any had it."""
        return any(self._each(key, lambda store: store.delete(key)))

    def _each(self, prefix: str, remove: Callable[[Store], int]) -> list[int]:
        """What every tier says that removes something, the farthest first, so that none learns it again from another.

        Whoever met it there before, to teach it to a nearer one, hears of the departure before that one is asked. Raise what the last
        tier in trouble could not do, when the others are done.
        """
        said, trouble = list[int](), None
        for tier in reversed(self._tiers):
            try:
                said.append(remove(tier.store))
            except StoreTrouble as error:
                trouble = error
            self._departures.note(prefix)
        if trouble is not None:
            raise trouble
        return said

    def _found(self, key: str, tiers: Sequence[Tier]) -> Found | None:
        troubles: list[str] = []
        seen = b""
        for place, tier in enumerate(tiers):
            if place == 1:
                seen = self._departures.seen(key)
            try:
                blob = tier.store.get(key)
            except StoreTrouble:
                troubles.append(tier.word)
                continue
            if blob is not None:
                if place == 0:
                    return Found(blob, tier.word)
                return self._learned(Found(blob, tier.word, tuple(troubles)), tiers[:place], seen)
        return None

    def _awaited(self, recipe: Recipe) -> Found:
        while True:
            flight, leading = self._flights.join(recipe.key)
            if leading:
                return self._led(recipe, flight)
            flight.wait(recipe.deadline)
            if flight.error is not None:
                raise flight.error
            found = self.find(recipe.key)
            if found is not None:
                return found
            if flight.data is not None:
                return Found(_blob(recipe, flight.data), "flight")
            if time.monotonic() > recipe.deadline:
                raise Busy("the picture was not made in time")

    def _led(self, recipe: Recipe, flight: Flight) -> Found:
        try:
            with self._flights.alone(recipe.key, recipe.deadline) as waited:
                # All tiers were asked a moment ago. What another process of this host has made since, the nearest one has.
                found = self._found(recipe.key, self._tiers if waited else self._tiers[:1])
                if found is not None:
                    return found
                while True:
                    seen = self._departures.seen(recipe.key)
                    data = recipe.make()
                    learned = self._learned(Found(_blob(recipe, data), "render"), self._tiers, seen)
                    if learned is not None:
                        flight.data = data
                        return learned
        except Error as error:
            if not isinstance(error, _NOT_SHARED):
                flight.error = error
            raise
        finally:
            self._flights.leave(recipe.key, flight)

    def _learned(self, found: Found, tiers: Sequence[Tier], seen: bytes) -> Found | None:
        """Teach `tiers`, the farthest first, so that nobody finds near what is lost further away a moment later.

        None if something of that name has left since it was `seen`: caches in front may have been told already to forget it.
        """
        item, troubles = found.blob.item, list(found.troubles)
        with found.blob as blob:
            data = blob.file.read()
        for tier in reversed(tiers):
            try:
                tier.store.put(item.key, io.BytesIO(data), type=item.type, note=item.note)
            except StoreTrouble:
                troubles.append(tier.word)
        if self._departures.seen(item.key) != seen:
            with suppress(StoreTrouble):
                self.drop(item.key)  # by its name: a listing may not have it yet
            return None
        return Found(Blob(item, io.BytesIO(data)), found.origin, tuple(troubles))


def _blob(recipe: Recipe, data: bytes) -> Blob:
    return Blob(Item(recipe.key, len(data), recipe.type), io.BytesIO(data))
