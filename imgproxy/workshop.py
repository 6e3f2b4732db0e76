"""The jobs of a house, put together when somebody needs them: what most commands do never loads any of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from imgproxy import observe
from imgproxy.config import Settings, presets_of
from imgproxy.errors import BadAddress, BadSettings
from imgproxy.images import Images
from imgproxy.meta.repository import Words
from imgproxy.picture import EDITION
from imgproxy.stores import Store
from imgproxy.uploads import Uploads

if TYPE_CHECKING:
    from imgproxy.fetch import Window
    from imgproxy.jobs import Jobs
    from imgproxy.jobs.missing import Renditions
    from imgproxy.jobs.queue import Queue
    from imgproxy.jobs.shop import Shop
    from imgproxy.jobs.task import Ledger
    from imgproxy.jobs.worker import Life, Worker

_LOUD = ("a worker was lost", "a callback is a dead letter", "a worker is held up")


@dataclass(frozen=True, slots=True)
class Parts:
    """What jobs need of the house: its holder's name, its pictures and words, and where renditions are: by listing, and for other nodes."""

    holder: str
    images: Images
    words: Words
    uploads: Uploads
    base: Store
    renditions: Store
    far: Store | None


class Bench:
    """Jobs, and what it takes to do them."""

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._settings = settings
        self._parts = parts
        self._place = settings.data / "jobs"

    @cached_property
    def jobs(self) -> Jobs:
        """For whoever orders work and asks after it."""
        from imgproxy.jobs import Jobs
        from imgproxy.jobs.trades import check

        ledger, queue, _ = self._kept
        return Jobs(ledger, queue, lambda order, callback: check(order, callback, self.shop), self._missing)

    @cached_property
    def shop(self) -> Shop:
        """For whoever works."""
        from imgproxy.flights import Flights
        from imgproxy.jobs.shop import Shop

        settings, parts, spool = self._settings, self._parts, self._place / "spool"
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Shop(
            images=parts.images,
            words=parts.words,
            uploads=parts.uploads,
            base=parts.base,
            renditions=self._renditions(),
            far=parts.far,
            window=self._window(),
            spool=spool,
            flights=Flights(self._place / "flights.lock"),
            presets=presets_of(settings),
            hands=settings.renderers or os.cpu_count() or 1,
            kept=settings.tasks_kept,
        )

    def worker(self, threads: int) -> Worker:
        """A worker of so many threads."""
        from imgproxy.jobs.callbacks import key_of
        from imgproxy.jobs.worker import Terms, Worker

        ledger, queue, life = self._kept
        keys = self._settings.callback_keys
        key = keys[0] if keys else key_of(self._settings.data / "callback.key")
        terms = Terms(
            threads,
            self._settings.task_tries,
            deliveries=self._settings.callback_tries,
            key=key,
            pulse=self._settings.data / "run" / "worker",
        )
        return Worker(ledger, queue, life, self.shop, terms, _told, observe.surprised)

    def _missing(self, suffixes: tuple[str, ...], presets: tuple[str, ...], query: Mapping[str, object], after: str) -> Iterator[str]:
        from imgproxy.jobs import suffixes_of

        wanted = suffixes_of(suffixes, presets, presets_of(self._settings))
        return self.shop.renditions.missing(self._parts.words, wanted, query, after)

    def close(self) -> None:
        """Let go of what was needed."""
        if "jobs" in self.__dict__:
            self.jobs.close()
        if "shop" in self.__dict__:
            self.shop.window.close()

    @cached_property
    def _kept(self) -> tuple[Ledger, Queue, Life]:
        """Where tasks are, which is next, and which workers live."""
        shelf = self._settings.jobs
        if shelf.scheme == "sqlite":
            from imgproxy.jobs.near import NearLedger, NearLife
            from imgproxy.jobs.queue import near_queue

            ledger = NearLedger(self._place / "tasks.db")
            if ledger.moved is not None:
                observe.event("the database of tasks was damaged", {"lies at": str(ledger.moved)}, level="error")
            return ledger, near_queue(self._place / "queue.db"), NearLife(self._place / "workers")
        try:
            from imgproxy.stores import redis
        except ModuleNotFoundError as error:
            raise BadSettings([f"jobs: {shelf.scheme}:// needs {error.name}: pip install 'imgproxy[redis]'"]) from error
        from imgproxy.jobs.far import FarLedger, FarLife
        from imgproxy.jobs.queue import far_queue

        client = redis.client(f"{shelf.scheme}://{shelf.netloc}{shelf.path}", redis.Terms(connect=2.0, read=10.0))
        return FarLedger(client, redis.spoken), far_queue(client, redis.spoken, self._parts.holder), FarLife(client, redis.spoken)

    def _renditions(self) -> Renditions:
        from imgproxy.jobs.missing import Renditions, edition_since

        parts = self._parts
        if parts.far is None:  # on this machine it costs next to nothing to look at each
            return Renditions(parts.renditions)
        return Renditions(parts.renditions, lambda: edition_since(parts.words.chain.store, EDITION))

    def _window(self) -> Window:
        from imgproxy.addresses import Rules, network
        from imgproxy.fetch import Bounds, Window

        settings = self._settings
        rules = Rules(settings.fetch_hosts, tuple(map(network, settings.fetch_networks)), settings.fetch_ports)
        return Window(rules, Bounds(settings.limits.file_bytes, settings.fetch_seconds), _refused)


def _told(event: str, words: Mapping[str, object]) -> None:
    observe.event(event, words, level="warning" if event in _LOUD else "info")


def _refused(url: str, error: BadAddress) -> None:
    observe.event("an address was not asked", {"url": url, "why": error.why, "address": error.where}, level="warning")
