"""Records and originals made to agree: a merge of two sorted streams, in constant memory.

A listing is a hint, no more. What it seems to say is asked again, freshly and one by one, before it is reported, and once more, with no
commit happening meanwhile, before anything is deleted. Spared is what is young by the store's own clock, what an open session wants, and
what is about to be let go of anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from typing import Literal, NamedTuple

from imgproxy.errors import CannotRead, Conflict, Damaged, Missing, NotAnImage, StoreLied, TooMuch, Unstored
from imgproxy.meta.alone import Alone, undisturbed
from imgproxy.meta.chain import Chain
from imgproxy.meta.commits import Commits
from imgproxy.meta.record import Record
from imgproxy.meta.sessions import Session, Sessions, held
from imgproxy.meta.staging import Change
from imgproxy.stores import Store

Kind = Literal["lost", "stray", "odd"]
Facts = Callable[[str], Record]
"""The record of an original that has none: found by looking at it; raises if it is no picture that we take."""

GRACE = 86_400.0
_BATCH = 100


class Difference(NamedTuple):
    """A record without its original (`lost`), an original without a record (`stray`), or a key that is no hash (`odd`)."""

    kind: Kind
    key: str


@dataclass(frozen=True, slots=True)
class Repairs:
    """What to do about differences: delete entries that are lost; delete strays, or adopt them by their facts. Nothing unless asked."""

    lost: bool = False
    stray: Literal["leave", "delete", "adopt"] = "leave"
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many there were: `records`, `objects`, `lost`, `stray`, `odd`, `spared`; and what was done: `dropped`, `deleted`, `adopted`."""

    numbers: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.numbers.get(name, 0)


class Sync:
    """The records of one repository and the originals in its base store, compared."""

    def __init__(self, chain: Chain, commits: Commits, base: Store, *, alone: Alone = nullcontext, grace: float = GRACE) -> None:
        self._chain = chain
        self._commits = commits
        self._sessions = Sessions(chain.database)
        self._base = base
        self._alone = alone
        self._grace = grace

    def run(
        self,
        repairs: Repairs | None = None,
        told: Callable[[Difference], object] = lambda _: None,
        passing: Callable[[str], object] = lambda _: None,
    ) -> Tally:
        """Find every difference and tell it; repair those that are asked for. Entries are changed by one commit at the end.

        `passing` hears every key on the way, in their order.
        """
        repairs = repairs or Repairs()
        counts: Counter[str] = Counter()
        session = self._sessions.open(author="sync") if repairs.lost or repairs.stray == "adopt" else None
        differences = self.differences(counts, passing)
        while batch := list(islice(differences, _BATCH)):
            for one in batch:
                told(one)
                counts[one.kind] += 1
            self._repair(batch, repairs, session, counts)
        if session is not None:
            self._commit(session)
        return Tally(dict(counts))

    def differences(self, counts: Counter[str] | None = None, passing: Callable[[str], object] = lambda _: None) -> Iterator[Difference]:
        """Every difference, in the order of keys; each was asked again."""
        counts = Counter() if counts is None else counts
        now = self._now()
        for key, recorded, stored in _merged(self._recorded(counts), self._stored(counts)):
            passing(key)
            if recorded and not stored:
                if self._is_lost(key):
                    yield Difference("lost", key)
            elif not _is_hash(key):
                yield Difference("odd", key)
            elif not recorded:
                verdict = self._is_stray(key, now)
                if verdict:
                    yield Difference("stray", key)
                elif verdict is None:
                    counts["spared"] += 1

    def _repair(self, batch: list[Difference], repairs: Repairs, session: Session | None, counts: Counter[str]) -> None:
        if repairs.lost and session is not None:
            for one in batch:
                if one.kind == "lost":
                    counts["dropped"] += self._drop(session, one.key)
        strays = [one.key for one in batch if one.kind == "stray"]
        if repairs.stray == "delete":
            counts["deleted"] += self._delete(strays)
        elif repairs.stray == "adopt" and session is not None and repairs.facts is not None:
            for key in strays:
                counts["adopted"] += self._adopt(session, key, repairs.facts)

    def _commit(self, session: Session) -> None:
        """Commit what was repaired; what others changed or brought back meanwhile is left to them, and to the next run."""
        for one in self._sessions.diff(session):
            if one.after is None and not self._is_lost(one.hash):
                self._sessions.forget(session, one.hash)
        while True:
            try:
                if self._commits.commit(session.id, "sync", "make records and originals agree") is None:
                    self._sessions.discard(session)
                return
            except (Conflict, Unstored) as error:
                for hash in error.records:
                    self._sessions.forget(session, hash)

    def _drop(self, session: Session, key: str) -> bool:
        try:
            self._sessions.delete(session, key)
        except Missing:
            return False
        return True

    def _adopt(self, session: Session, key: str, facts: Facts) -> bool:
        try:
            record = facts(key)
        except (CannotRead, Damaged, Missing, NotAnImage, StoreLied, TooMuch):
            return False
        self._sessions.stage(session, [Change(key, record, 0)])
        return True

    def _delete(self, keys: Iterable[str]) -> int:
        """Delete strays while no commit can happen: what a session adds meanwhile, its commit finds missing.

        What is uploaded to this node just now is no stray in a moment.
        """
        count = 0
        with self._chain.alone():
            self._commits.catch_up()
            now = self._now()
            for key in keys:
                with undisturbed(self._alone, key) as alone:
                    if alone and self._is_stray(key, now):
                        count += self._base.delete(key)
        return count

    def _is_lost(self, key: str) -> bool:
        with self._chain.database.reading() as db:
            there = db.execute("SELECT 1 FROM records WHERE hash = ?", (bytes.fromhex(key),)).fetchone()
        return there is not None and self._base.head(key, fresh=True) is None

    def _is_stray(self, key: str, now: float) -> bool | None:
        """Whether nobody wants an original; None if it is spared for now."""
        hash = bytes.fromhex(key)
        with self._chain.database.reading() as db:
            if db.execute("SELECT 1 FROM records WHERE hash = ?", (hash,)).fetchone():
                return False
            wanted = held(db, hash) or db.execute("SELECT 1 FROM gone WHERE hash = ?", (hash,)).fetchone()
        item = self._base.head(key, fresh=True)
        if item is None:
            return False
        young = item.modified == 0.0 or now - item.modified < self._grace
        return None if wanted or young else True

    def _now(self) -> float:
        """What time it is by the clock that stamps the objects."""
        self._chain.store.put("clock", BytesIO(b"now"))
        item = self._chain.store.head("clock", fresh=True)
        return item.modified if item else 0.0

    def _recorded(self, counts: Counter[str]) -> Iterator[str]:
        for hash in self._sessions.hashes():
            counts["records"] += 1
            yield hash

    def _stored(self, counts: Counter[str]) -> Iterator[str]:
        for item in self._base.list():
            counts["objects"] += 1
            yield item.key


def orphans(base: Store, derived: Store) -> Iterator[str]:
    """The names of renditions whose original the store does not have, in order; in constant memory, and asked again."""
    originals = (item.key for item in base.list())
    known = next(originals, None)
    asked, alone = "", False
    for item in derived.list():
        hash = item.key[:64]
        while known is not None and known < hash:
            known = next(originals, None)
        if hash != asked:
            asked, alone = hash, known != hash and (not _is_hash(hash) or base.head(hash, fresh=True) is None)
        if alone:
            yield item.key


def _merged(ours: Iterator[str], theirs: Iterator[str]) -> Iterator[tuple[str, bool, bool]]:
    """Every key of two ascending streams, once, with where it was."""
    one, other = next(ours, None), next(theirs, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one < other):
            yield one or "", True, False
            one = next(ours, None)
        elif one is None or other < one:
            yield other, False, True
            other = next(theirs, None)
        else:
            yield one, True, True
            one, other = next(ours, None), next(theirs, None)


def _is_hash(key: str) -> bool:
    return len(key) == 64 and not key.strip("0123456789abcdef")
