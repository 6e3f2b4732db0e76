"""Settings become a house: the only file that knows every class.

Nothing is kept between houses and nothing happens at import, so that a worker can build its own after the fork. A client of a
store is imported when the settings name one, and the doors and desks by whoever opens them: nobody needs, or waits for, what he does
not use.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imgproxy import config, observe
from imgproxy.cache import Cache, Tier
from imgproxy.config import Settings
from imgproxy.departures import Departures
from imgproxy.errors import BadSettings, StoreTrouble
from imgproxy.flights import Flights
from imgproxy.images import Images, Patience
from imgproxy.limits import Limits
from imgproxy.meta.finding import Finder
from imgproxy.originals import Originals
from imgproxy.picture import EDITION
from imgproxy.pool import Pool, PoolPlan
from imgproxy.quarantine import Quarantine
from imgproxy.security import Keyring, Policy
from imgproxy.spelling import Shelf, seconds
from imgproxy.stores import Store
from imgproxy.stores.behind import Behind
from imgproxy.stores.derived import DerivedTier
from imgproxy.stores.disk import DiskTier
from imgproxy.stores.fs import FsStore
from imgproxy.stores.guarded import Guarded
from imgproxy.stores.memory import MemoryStore
from imgproxy.web.health import Check, Checks
from imgproxy.web.lookups import LookUps
from imgproxy.web.read import Guards, Manner

if TYPE_CHECKING:
    from imgproxy.clerk import Clerk
    from imgproxy.jobs import Jobs
    from imgproxy.jobs.worker import Worker
    from imgproxy.meta.repository import Words
    from imgproxy.meta.restoring import Progress
    from imgproxy.purges import Purges
    from imgproxy.tokens import TokenFile
    from imgproxy.uploads import Uploads
    from imgproxy.web.admin.office import Office, Opening
    from imgproxy.web.entrance import Entrance
    from imgproxy.workshop import Bench

_WAITING_SHARE = 0.75
"""So many of a worker's threads may wait for pictures to be made; the others are for what is already there."""

_NOBODY = "0" * 64
"""The hash of no original."""

Preparing = Callable[[], list[str]]


@dataclass(frozen=True, slots=True)
class House:
    """All services of one process."""

    images: Images
    guards: Guards
    checks: Checks
    manner: Manner
    finder: Finder
    lookups: LookUps
    pool: Pool
    stores: tuple[Store, ...]
    preparing: tuple[Preparing, ...]

    def prepare(self) -> list[str]:
        """Make the containers that are missing and may be made; returns warnings, raises `BadSettings` for what cannot be used."""
        return [warning for prepare in self.preparing for warning in prepare()]

    @property
    def base(self) -> Store:
        """Where the originals are."""
        return self.stores[0]

    def close(self) -> None:
        """Write what still waits, and let go of stores and renderers."""
        for store in self.stores:
            store.close()
        self.finder.close()
        self.pool.close()


@dataclass(frozen=True, slots=True)
class Desk:
    """The house, and the words of its repository."""

    house: House
    words: Words
    uploads: Uploads
    meta: Store
    purges: Purges
    bench: Bench

    @property
    def jobs(self) -> Jobs:
        """Work that nobody waits for."""
        return self.bench.jobs

    def step_down(self) -> None:
        """Let the next writer in, now, instead of when the lease lapses; not while another process of this node is writing.

        Who has deleted originals that are still in the store keeps the lease: it is for the writer to remove them.
        """
        from imgproxy.clerk import step_down

        step_down(self.words)

    def close(self) -> None:
        """Close all there is."""
        self.bench.close()
        self.purges.close()
        self.words.close()
        self.meta.close()
        self.house.close()


def settings_of(environ: Mapping[str, str]) -> Settings:
    """The settings of this process, from its file and its environment."""
    return config.load(None, environ)


def build(settings: Settings, environ: Mapping[str, str]) -> House:
    """The house that these settings describe; `environ` is where the stores' own variables are."""
    return _house(settings, _Shelves(settings, environ))


def furnish(settings: Settings, environ: Mapping[str, str], progress: Progress | None = None) -> Desk:
    """The house with its words, for whoever writes; `progress` hears of a restore, should the database have to be had from the store."""
    shelves = _Shelves(settings, environ)
    return _furnished(settings, shelves, _house(settings, shelves), progress)


def house_and_opening(settings: Settings, environ: Mapping[str, str]) -> tuple[House, Opening]:
    """The house at once, and what the doors for writing need when it is there: reading does not wait for words."""
    from imgproxy.web.admin.office import Opening

    shelves = _Shelves(settings, environ)
    house = _house(settings, shelves)
    return house, Opening(lambda: _office(settings, _furnished(settings, shelves, house)), "the repository")


def clerk_of(settings: Settings) -> Clerk:
    """Who does at this node what nobody asks for."""
    from imgproxy.clerk import Clerk

    def told(event: str, words: Mapping[str, object]) -> None:
        observe.event(event, {"who": "clerk", **words})

    return Clerk(settings.data / "run" / "clerk", settings.autocommit, told, kept=settings.sessions_kept)


def entrance_of(settings: Settings, environ: Mapping[str, str]) -> Entrance:
    """Who may come in by the doors for writing."""
    from imgproxy.web.entrance import Entrance

    tokens = tokens_of(settings, environ)
    tokens.begin()
    return Entrance(tokens.opened)


def tokens_of(settings: Settings, environ: Mapping[str, str]) -> TokenFile:
    """The tokens of this node."""
    from imgproxy.tokens import TokenFile

    return TokenFile(settings.data, environ.get(config.ADMIN_TOKEN, ""))


def _office(settings: Settings, desk: Desk) -> Office:
    from imgproxy.resumable import Spool
    from imgproxy.resumable import Terms as SpoolTerms
    from imgproxy.urls import Urls
    from imgproxy.web.admin import tus
    from imgproxy.web.admin.office import Office
    from imgproxy.web.spool import Inbox

    house = desk.house
    keyring = Keyring(settings.keys) if settings.originals == "signed" else None
    presets = config.presets_of(settings)
    urls = Urls("/", keyring, presets)
    terms = SpoolTerms(
        settings.limits.file_bytes, settings.uploads, settings.uploads_waiting, settings.uploads_kept, patience=settings.patience
    )
    partial = Spool(settings.data / "uploads", terms, lambda file, said: tus.kept(office, file, said))
    partial.sweep()
    office = Office(
        words=desk.words,
        uploads=desk.uploads,
        images=house.images,
        base=house.base,
        derived=derived_of(house),
        urls=urls,
        presets=presets,
        policy=house.guards.policy,
        inbox=Inbox(settings.data / "spool", settings.limits.file_bytes),
        partial=partial,
        jobs=desk.jobs,
    )
    return office


def _furnished(settings: Settings, shelves: _Shelves, house: House, progress: Progress | None = None) -> Desk:
    from imgproxy.meta.absent import absent_from
    from imgproxy.meta.repository import Originals as WordsOriginals
    from imgproxy.meta.repository import Terms, open_words
    from imgproxy.meta.restoring import quiet
    from imgproxy.uploads import Uploads
    from imgproxy.workshop import Bench, Parts

    meta = shelves.store("meta")
    for prepare in shelves.preparing:
        prepare()
    purges = purges_of(settings)
    purges.start()

    remove, forget = (_letting_go(how, purges) for how in (house.images.remove, house.images.forget))
    originals = WordsOriginals(absent_from(house.base), remove, forget, partial(house.images.alone, patience=0.0))
    terms = Terms(
        holder=f"{socket.gethostname()}:{settings.data}",
        settle_seconds=1.0 if shelves.far else 0.02,  # a rival's word is on this disk at once, or somewhere in a cluster soon
        snapshot_every=settings.snapshot_every,
    )
    words = open_words(words_of(settings), meta, originals, terms, progress=progress or quiet)
    uploads, far = Uploads(house.images, words), derived_of(house)
    renditions = far if far is not None else _shelf_of(house, settings)
    parts = Parts(terms.holder, house.images, words, uploads, house.base, renditions, far)
    return Desk(house, words, uploads, meta, purges, Bench(settings, parts))


def _letting_go(how: Callable[[str], object], purges: Purges) -> Callable[[str], None]:
    """Let go of an original, and tell caches in front: when that is done, and once before, should a store or a tier be in the way."""
    told: set[str] = set()

    def let_go(hash: str) -> None:
        try:
            how(hash)
        except StoreTrouble:
            if hash not in told:
                told.add(hash)
                purges.add(hash)
            raise
        told.discard(hash)
        purges.add(hash)

    return let_go


def _shelf_of(house: House, settings: Settings) -> Store:
    """The tier of this machine whose listing says which renditions there are: the disk, or else the nearest."""
    words = [shelf.scheme for shelf in settings.cache]
    if not words:
        return MemoryStore(1)
    return house.stores[1 + (words.index("disk") if "disk" in words else 0)]


def worker_of(settings: Settings, desk: Desk, threads: int) -> Worker:
    """Who does the work that was ordered, in this process."""
    observe.configure(settings.log_level, settings.log_format)
    return desk.bench.worker(threads)


def purges_of(settings: Settings) -> Purges:
    """What tells the caches of others, by these settings, of what this node has forgotten."""
    from imgproxy.purges import Hook, Purges

    calls = [call.split(" ", 1) for call in settings.purge]
    hooks = [Hook(method, url, settings.purge_headers, settings.purge_body) for method, url in calls]
    return Purges(settings.data / "run" / "purges", hooks, _unheard)


def _house(settings: Settings, shelves: _Shelves) -> House:
    run = settings.data / "run"
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    pool = Pool(run, settings.limits, _plan(settings))
    flights, departures = Flights(run / "flights.lock"), Departures(run / "departures")
    base = shelves.store("base")
    tiers = [Tier(shelf.scheme, _tier(shelf, departures)) for shelf in settings.cache] + shelves.derived(departures)
    cache = Cache(tiers, flights, departures, max(1, int(settings.threads * _WAITING_SHARE)))
    originals = Originals(base, shelves.copies(), flights, departures, Quarantine(run / "quarantine", _rotten), run)
    marks = {id: (mark.mark, mark.path.read_bytes()) for id, mark in settings.marks.items()}
    images = Images(originals, cache, pool, marks, Patience(settings.patience, settings.limits.file_bytes))
    manner = manner_of(settings)
    checks = {"base": Check(lambda: _can_be_read(base)), "renderers": Check(pool.check)}
    checks |= {tier.word: Check(tier.store.check, needed=False) for tier in tiers}
    guards, finder = guards_of(settings), Finder(words_of(settings))
    checks["words"] = Check(finder.check, needed=False)
    lookups = LookUps(finder, guards, manner, frozenset(marks))
    stores = (base, *(tier.store for tier in tiers))
    return House(images, guards, checks, manner, finder, lookups, pool, stores, tuple(shelves.preparing))


def words_of(settings: Settings) -> Path:
    """The directory of this node's words."""
    return settings.data / "words"


def manner_of(settings: Settings) -> Manner:
    """How the doors behave, by these settings."""
    behind = published(settings) if settings.edge != "off" else None
    return Manner(cors=settings.cors, figures=settings.metrics, tags=settings.tags, published=behind)


def published(settings: Settings) -> Path | None:
    """Where the local tier shows the renditions of this edition; None if there is no such tier."""
    return next((Path(shelf.path) / str(EDITION) for shelf in settings.cache if shelf.scheme == "disk"), None)


def derived_of(house: House) -> Store | None:
    """The farthest tier, if there is one: where sync looks for renditions that have no original."""
    return house.stores[-1] if "derived" in house.checks else None


def guards_of(settings: Settings) -> Guards:
    """Who may have what, by these settings."""
    listed = frozenset(settings.listed) | frozenset(settings.presets.values())
    return Guards(Policy(settings.policy, settings.originals, listed), Keyring(settings.keys) if settings.keys else None)


def _plan(settings: Settings) -> PoolPlan:
    return PoolPlan(
        renderers=settings.renderers or os.cpu_count() or 1,
        queue=settings.queue,
        memory=settings.renderer_memory + max(0, settings.limits.file_bytes - Limits().file_bytes),  # larger files are mapped
        renders=settings.renderer_renders,
        resident=settings.renderer_resident,
    )


class _Shelves:
    """The containers of the one store that the settings name."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._shelf = settings.store
        self.far = self._shelf.scheme != "fs"
        self.preparing: list[Preparing] = []
        makers = {"fs": self._files, "swift": self._swift}
        try:
            self._make = makers.get(self._shelf.scheme, self._cloud)(environ)
        except ModuleNotFoundError as error:
            extra = "swift" if self._shelf.scheme == "swift" else "cloud"
            raise BadSettings([f"store: {self._shelf.scheme}:// needs {error.name}: pip install 'imgproxy[{extra}]'"]) from error

    def store(self, container: str) -> Store:
        """The store of one container; one on the network stands behind a breaker."""
        store = self._make(container)
        return Guarded(store) if self.far else store

    def copies(self) -> DiskTier | None:
        """Where originals of a far store are kept near: out of sight, whatever the tier publishes."""
        if not self.far:
            return None
        hidden = self._settings.data / "copies"
        hidden.mkdir(parents=True, exist_ok=True, mode=0o700)
        return DiskTier(hidden / "base", 0, self._settings.copies)

    def derived(self, departures: Departures) -> list[Tier]:
        """The farthest tier, if there is to be one."""
        how = self._settings.derived
        if how == "auto":
            how = "behind" if self.far else "off"
        if how == "off":
            return []
        tier: Store = DerivedTier(self.store("derived"), EDITION)
        if how == "behind":
            tier = Behind(tier, self._settings.derived_waiting, _lost, departures.seen)
        return [Tier("derived", tier)]

    def _files(self, _environ: Mapping[str, str]) -> Callable[[str], Store]:
        return lambda container: FsStore(Path(self._shelf.path) / container, fanned=container != "meta")

    def _swift(self, environ: Mapping[str, str]) -> Callable[[str], Store]:
        from imgproxy.stores.swift import Container, Swift, SwiftStore, account_from
        from imgproxy.stores.swift import Patience as SwiftPatience

        total = self._settings.patience * 0.75
        swift = Swift(account_from(environ), SwiftPatience(read=total * 0.8, total=total))
        said = self._shelf.options
        expire = int(seconds(said["expire"])) if said["expire"] else None

        def make(name: str) -> Store:
            container = Container(
                f"{self._shelf.netloc}-{name}",
                policy=said[f"{name}_policy"],
                make=said["make"] == "yes",
                newest=name == "meta",
                expire_after=expire if name == "derived" else None,
            )
            store = SwiftStore(container, swift)
            self.preparing.append(lambda: list(store.prepare()))
            return store

        return make

    def _cloud(self, environ: Mapping[str, str]) -> Callable[[str], Store]:
        from imgproxy.stores.cloud import CloudStore

        def make(name: str) -> Store:
            store = CloudStore(f"{str(self._shelf).rstrip('/')}/{name}", environ)
            self.preparing.append(lambda: _without_warnings(store.prepare))
            return store

        return make


def _without_warnings(prepare: Callable[[], None]) -> list[str]:
    prepare()
    return []


def _tier(shelf: Shelf, departures: Departures) -> Store:
    if shelf.scheme == "disk":
        return DiskTier(Path(shelf.path), EDITION, shelf.size)
    if shelf.scheme == "memory":
        return MemoryStore(shelf.size, departures.seen)
    try:
        from imgproxy.stores.redis import RedisTier, Terms
    except ModuleNotFoundError as error:
        raise BadSettings([f"cache: {shelf.scheme}:// needs {error.name}: pip install 'imgproxy[redis]'"]) from error
    url = f"{shelf.scheme}://{shelf.netloc}{shelf.path}"
    return RedisTier(url, EDITION, Terms(largest=shelf.size, expire=seconds(shelf.options["expire"])))


def _can_be_read(base: Store) -> None:
    """Return if the store can say whether something is there: a full disk keeps nobody from reading."""
    base.head(_NOBODY)


def _lost(key: str, trouble: StoreTrouble) -> None:
    observe.event("a rendition was not written behind", {"key": key, "why": str(trouble)}, level="warning")


def _rotten(hash: str) -> None:
    observe.event("an original is rotten", {"hash": hash, "mend": "put it again, or restore it in the store"}, level="error")


def _unheard(hash: str, why: str) -> None:
    observe.event("a cache was not told of a deletion, and will be", {"hash": hash, "why": why}, level="warning")
