"""Settings become a house: the only file that knows every class.

Nothing is kept between houses and nothing happens at import, so that a worker can build its own after the fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imgproxy import config
from imgproxy.cache import Cache, Tier
from imgproxy.config import Settings
from imgproxy.flights import Flights
from imgproxy.images import Images, Patience
from imgproxy.originals import Originals
from imgproxy.picture import EDITION
from imgproxy.pool import Pool, PoolPlan
from imgproxy.security import Keyring, Policy
from imgproxy.spelling import Shelf
from imgproxy.stores import Store
from imgproxy.stores.disk import DiskTier
from imgproxy.stores.fs import FsStore
from imgproxy.stores.memory import MemoryStore
from imgproxy.web.health import Checks
from imgproxy.web.read import Guards, Manner

_WAITING_SHARE = 0.75
"""So many of a worker's threads may wait for pictures to be made; the others are for what is already there."""


@dataclass(frozen=True, slots=True)
class House:
    """All services of one process."""

    images: Images
    guards: Guards
    checks: Checks
    manner: Manner
    pool: Pool

    def close(self) -> None:
        """Let go of the renderers."""
        self.pool.close()


def build(settings: Settings) -> House:
    """The house that these settings describe."""
    data = Path(settings.data)
    run = data / "run"
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    pool = Pool(run, settings.limits, _plan(settings))
    flights = Flights(run / "flights")
    base = _store(settings.store, "base")
    tiers = [Tier(shelf.scheme, _tier(shelf)) for shelf in settings.cache]
    cache = Cache(tiers, flights, max(1, int(settings.threads * _WAITING_SHARE)))
    patience = Patience(settings.patience, settings.limits.file_bytes)
    marks = {id: (mark.mark, mark.path.read_bytes()) for id, mark in settings.marks.items()}
    images = Images(Originals(base, None, flights), cache, pool, marks, patience)
    return House(images, guards_of(settings), _checks(base, tiers, pool), Manner(cors=settings.cors, figures=settings.metrics), pool)


def guards_of(settings: Settings) -> Guards:
    """Who may have what, by these settings."""
    listed = frozenset(settings.listed) | frozenset(settings.presets.values())
    return Guards(Policy(settings.policy, settings.originals, listed), Keyring(settings.keys) if settings.keys else None)


def settings_of(environ: Mapping[str, str]) -> Settings:
    """The settings of this process, from its file and its environment."""
    return config.load(None, environ)


def _plan(settings: Settings) -> PoolPlan:
    return PoolPlan(
        renderers=settings.renderers or os.cpu_count() or 1,
        queue=settings.queue,
        memory=settings.renderer_memory,
        renders=settings.renderer_renders,
        resident=settings.renderer_resident,
    )


def _store(shelf: Shelf, container: str) -> Store:
    makers: dict[str, Callable[[], Store]] = {
        "fs": lambda: FsStore(Path(shelf.path) / container),
        "memory": MemoryStore,
    }
    return makers[shelf.scheme]()


def _tier(shelf: Shelf) -> Store:
    makers: dict[str, Callable[[], Store]] = {
        "disk": lambda: DiskTier(Path(shelf.path), EDITION, shelf.size),
        "memory": lambda: MemoryStore(shelf.size),
    }
    return makers[shelf.scheme]()


def _checks(base: Store, tiers: list[Tier], pool: Pool) -> Checks:
    return {"base": base.check, **{tier.word: tier.store.check for tier in tiers}, "renderers": pool.check}
