"""All of this package put together around one directory and one store: what commands, doors and tests hold in their hands."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from imgproxy.meta.absent import Absent
from imgproxy.meta.alone import Alone
from imgproxy.meta.boot import Booted, boot
from imgproxy.meta.chain import Chain, Reached, unheard
from imgproxy.meta.commits import Commits
from imgproxy.meta.database import Database
from imgproxy.meta.farewell import Farewell, LetGo
from imgproxy.meta.following import Follower
from imgproxy.meta.lease import Lease
from imgproxy.meta.level import Level
from imgproxy.meta.restoring import Progress, quiet
from imgproxy.meta.search import Search
from imgproxy.meta.sessions import Sessions
from imgproxy.meta.snapshots import Snapshots
from imgproxy.stores import Store

_LOOKED_AT = 100
"""So many originals a reading node asks for at a time, whether the writer has removed them yet."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Who a node is, how long its lease lasts, how long it waits for a rival's word, and after how many commits a snapshot is due."""

    holder: str
    lease_seconds: float = 30.0
    settle_seconds: float = 1.0
    snapshot_every: int = 200


@dataclass(frozen=True, slots=True)
class Originals:
    """What words need of originals: which the store does not have; how to remove one from it, and how to let this node forget one.

    And how to be alone with one meanwhile.
    """

    absent: Absent
    remove: LetGo
    forget: LetGo
    alone: Alone = nullcontext


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one repository, on one node: the writing one uses `commits` and `farewell`, a reading one `follower`."""

    booted: Booted
    database: Database
    chain: Chain
    lease: Lease
    sessions: Sessions
    commits: Commits
    search: Search
    snapshots: Snapshots
    farewell: Farewell
    follower: Follower
    originals: Originals

    def close(self) -> None:
        """Let go of the database; the lease stays ours until it lapses, or is released."""
        self.database.close()


def database_of(directory: Path) -> Path:
    """Where the database of the words in a directory is."""
    return directory / "words.db"


def open_words(
    directory: Path, store: Store, originals: Originals, terms: Terms, *, reached: Reached = unheard, progress: Progress = quiet
) -> Words:
    """Open the words of a repository in a directory, restored from the `meta` store if need be."""
    booted = boot(database_of(directory), store, progress=progress)
    chain = Chain(booted.database, store, directory / "drafts")
    lease = Lease(store, terms.holder, booted.incarnation, seconds=terms.lease_seconds, settle=terms.settle_seconds)
    commits = Commits(chain, lease, originals.absent, reached)
    return Words(
        booted,
        booted.database,
        chain,
        lease,
        Sessions(booted.database),
        commits,
        Search(booted.database),
        Snapshots(chain, every=terms.snapshot_every, reached=reached),
        Farewell(chain, originals.remove, first=lambda: (lease.renew(), commits.catch_up()), alone=originals.alone),
        Follower(
            chain,
            Farewell(chain, originals.forget, which=originals.absent, page=_LOOKED_AT),
            Level(directory / "level"),
            absent=originals.absent,
            writing=lease.mine,
        ),
        originals,
    )
