"""Upkeep: records and originals compared, originals hashed again, snapshots, and the proof that all could be restored."""

from __future__ import annotations

from secrets import token_hex
from typing import Annotated, Any, Literal

import msgspec

from imgproxy.errors import BadRecord
from imgproxy.jobs import orders
from imgproxy.meta import restoring
from imgproxy.meta.sync import Difference, Repairs, Sync, Tally, orphans
from imgproxy.meta.verify import Verify
from imgproxy.web.admin import models
from imgproxy.web.admin.office import Office, Opening
from imgproxy.web.admin.tasks import ORDERED, accepted
from imgproxy.web.operation import Answer, Asked, Operation, Reply

_TOLD = 1_000
_SLOWEST = 0.001
_DIFFERENCES = ("lost", "stray", "odd")


class Syncing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to repair: delete records whose original is gone, and adopt originals without a record, or delete these.

    What is younger than `grace` seconds is spared. Without `wait` it is a task.
    """

    repair: bool = False
    delete_strays: bool = False
    grace: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 86_400.0
    wait: bool = True


class Verifying(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many originals (0: all that are left), and at most how many megabytes a second (0: as fast as it goes).

    Without `wait` it is a task.
    """

    most: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0
    pace: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 20.0
    wait: bool = True


class Snapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without `wait` it is a task."""

    wait: bool = True


def operations(opening: Opening) -> tuple[Operation, ...]:
    """The rows of this page of the table."""
    return (
        Operation(
            name="sync",
            method="POST",
            path="/admin/sync",
            scope="sync",
            what="Compare the records with the originals, and tell or mend what differs.",
            call=lambda asked: _sync(opening.get(), asked.query, asked.author),
            query=Syncing,
            answers={200: Answer("What was found, and done.", models.Synced), 202: ORDERED},
        ),
        Operation(
            name="verify",
            method="POST",
            path="/admin/verify",
            scope="sync",
            what="Hash the originals again, going on where the last run stopped, and put away what does not match its name.",
            call=lambda asked: _verify(opening.get(), asked.query, asked.author),
            query=Verifying,
            answers={200: Answer("How far it came.", models.Verified), 202: ORDERED},
        ),
        Operation(
            name="snapshot",
            method="POST",
            path="/admin/snapshot",
            scope="sync",
            what="Write the whole database into the store, so that a restore is quicker.",
            call=lambda asked: _snapshot(opening.get(), asked.query, asked.author),
            query=Snapping,
            answers={200: Answer("It is written.", models.Snapshot), 202: ORDERED},
        ),
        Operation(
            name="prove",
            method="POST",
            path="/admin/proof",
            scope="sync",
            what="Restore the database from the store beside the live one, and compare them.",
            call=lambda asked: _prove(opening.get(), asked),
            answers={200: Answer("What came of it.", models.Proof)},
            writes=False,
        ),
    )


def _sync(office: Office, asked: Syncing, author: str) -> Reply:
    if not asked.wait:
        return accepted(
            office.jobs.submit(orders.Sync(repair=asked.repair, delete_strays=asked.delete_strays, grace=asked.grace), author=author)
        )
    words, found = office.words, list[models.Found]()
    stray: Literal["delete", "adopt"] = "delete" if asked.delete_strays else "adopt"
    repairs = Repairs(lost=True, stray=stray, facts=office.uploads.described) if asked.repair else Repairs()

    def told(one: Difference) -> None:
        if len(found) < _TOLD:
            found.append(models.Found(kind=one.kind, key=one.key))

    tally = Sync(words.chain, words.commits, office.base, alone=words.originals.alone, grace=asked.grace).run(repairs, told)
    alone = _orphans(office, found, repair=asked.repair)
    if asked.repair:
        office.let_go()
    numbers = {**tally.numbers, "orphan": alone}
    return Reply(models.Synced(found=found, numbers=numbers, agree=not _differs(tally)), audit={"repair": asked.repair, **numbers})


def _differs(tally: Tally) -> bool:
    return any(tally[kind] for kind in _DIFFERENCES)


def _orphans(office: Office, found: list[models.Found], *, repair: bool) -> int:
    """Renditions in the store that have no original."""
    count = 0
    for key in orphans(office.base, office.derived) if office.derived is not None else ():
        count += 1
        if len(found) < _TOLD:
            found.append(models.Found(kind="orphan", key=key))
        if repair and office.derived is not None:
            office.derived.delete(key)
    return count


def _verify(office: Office, asked: Verifying, author: str) -> Reply:
    words = office.words
    if 0 < asked.pace < _SLOWEST:
        raise BadRecord("pace", f"is neither 0 nor at least {_SLOWEST}")
    if not asked.wait:
        return accepted(office.jobs.submit(orders.Verify(pace=asked.pace * 1e6, most=asked.most), author=author))
    done = Verify(words.chain, office.base, words.commits.catch_up, words.originals.alone, pace=asked.pace * 1e6).run(
        most=asked.most or None
    )
    shown = models.Verified(originals=done.originals, bytes=done.bytes, quarantined=list(done.quarantined), whole=done.whole)
    return Reply(shown, audit={"originals": done.originals, "quarantined": len(done.quarantined)})


def _snapshot(office: Office, asked: Snapping, author: str) -> Reply:
    if not asked.wait:
        return accepted(office.jobs.submit(orders.Snapshot(), author=author))
    n = office.words.snapshots.take()
    return Reply(models.Snapshot(n=n), audit={"commit": n})


def _prove(office: Office, _: Asked[Any]) -> Reply:
    database = office.words.database
    proof = restoring.check(database, office.words.chain.store, database.path.with_name(f"proof-{token_hex(4)}.db"))
    broken = list(proof.restored.broken)
    return Reply(models.Proof(n=proof.restored.n, records=proof.records, broken=broken, differences=list(proof.differences)))
