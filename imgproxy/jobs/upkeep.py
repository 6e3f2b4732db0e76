"""The work that keeps a repository whole: commit, sync, verify, snapshot, cull."""

from __future__ import annotations

from imgproxy.jobs.orders import Commit, Snapshot, Sync, Verify
from imgproxy.jobs.shop import Shop, Tell
from imgproxy.jobs.task import Outcome
from imgproxy.meta import sync as syncing
from imgproxy.meta import verify as verifying
from imgproxy.meta.sync import Difference, Repairs

_TOLD = 100


def commit(order: Commit, _task: str, shop: Shop, _tell: Tell) -> Outcome:
    """Make all of a session live."""
    words = shop.words
    made = words.commits.commit(order.session, order.author, order.message)  # of a session that is committed already, the same commit
    if made is None:
        return Outcome("succeeded", {"n": None})
    hindered = words.farewell.begin()
    if words.snapshots.due():
        words.snapshots.take()
    return Outcome("warning" if hindered else "succeeded", {"n": made.n, "changes": made.changes}, hindered)


def sync(order: Sync, _task: str, shop: Shop, tell: Tell) -> Outcome:
    """Compare the records with the originals, and the renditions with both."""
    words, found, numbers = shop.words, list[str](), {"orphan": 0}

    def told(one: Difference) -> None:
        numbers[one.kind] = numbers.get(one.kind, 0) + 1
        if len(found) < _TOLD:
            found.append(f"{one.kind} {one.key}")
        tell(numbers)

    stray = "delete" if order.delete_strays else "adopt"
    repairs = Repairs(True, stray, shop.uploads.described) if order.repair else Repairs()  # type: ignore[arg-type]
    tally = syncing.Sync(words.chain, words.commits, shop.base, alone=words.originals.alone, grace=order.grace).run(repairs, told)
    for key in syncing.orphans(shop.base, shop.far) if shop.far is not None else ():
        numbers["orphan"] += 1
        tell(numbers)
        if order.repair and shop.far is not None:
            shop.far.delete(key)
    hindered = words.farewell.begin()
    result = {**tally.numbers, "orphan": numbers["orphan"], "differences": found}
    wrong = sum(tally[kind] for kind in ("lost", "stray", "odd"))
    open_ones = wrong - tally["dropped"] - tally["deleted"] - tally["adopted"]
    left = [f"{open_ones} differences are left"] if open_ones else []
    why = "; ".join(left + [hindered] * bool(hindered))
    return Outcome("warning" if why else "succeeded", result, why)


def verify(order: Verify, _task: str, shop: Shop, tell: Tell) -> Outcome:
    """Hash originals again, going on where the last run stopped."""
    words = shop.words
    run = verifying.Verify(words.chain, shop.base, words.commits.catch_up, words.originals.alone, pace=order.pace)
    done = run.run(lambda so_far: tell({"originals": so_far.originals, "bytes": so_far.bytes}), most=order.most or None)
    bad = list(done.quarantined)
    result = {"originals": done.originals, "bytes": done.bytes, "quarantined": bad[:_TOLD], "whole": done.whole}
    return Outcome("warning" if bad else "succeeded", result, f"{len(bad)} did not match their name and were put away" if bad else "")


def snapshot(_order: Snapshot, _task: str, shop: Shop, _tell: Tell) -> Outcome:
    """Write the whole database into the store."""
    return Outcome("succeeded", {"n": shop.words.snapshots.take()})
