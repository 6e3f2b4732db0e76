"""Kill the writer at every named step and at random moments, throw its disk away, restore from the store, and look.

    python -m tests.meta.kill_harness --kills 2000 [--store fs|swift] [--seed N] [--liar]

A child uploads, edits, deletes, commits, lets go and takes snapshots; it says on a pipe what it is about to commit, and when it was
answered. The parent kills it, and keeps the model: what was answered must be there, what was not answered may be there, as a whole.
Three lives of four lose their disk; the others go on with what the killed one left behind, ask for the last commit again, and lose their
disk then. Half of the lives commit as if everything were large. With `--liar` the child claims an answer before it has one: the harness
must find lost commits, or it proves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from imgproxy.errors import Conflict
from imgproxy.meta import commits, index, restoring, snapshots
from imgproxy.meta.repository import Words
from imgproxy.meta.sync import Repairs, Sync
from tests.meta.making import Place, body, hash_of, live, place_on_disk, record

NUMBERS = 24
"""So few originals that everything is deleted and added again many times."""

OWN_STEPS = ("upload: stored", "upload: staged", "session: opened", "session: edited", "session: deleted", "session: discarded", "let go")
STEPS = (*OWN_STEPS, *commits.STEPS, *snapshots.STEPS)
"""Every step that a child is killed at."""

_LIFE = 14
_NUMBER = {hash_of(number): number for number in range(NUMBERS)}


@dataclass(frozen=True)
class Plan:
    """How one child is to die: at the n-th time of a step, or after so many seconds; and with which luck it lives."""

    seed: int
    step: str = ""
    time: int = 1
    after: float = 0.0
    liar: bool = False


@dataclass
class Result:
    """What was seen; every list but `kills` and `steps` must be empty."""

    kills: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    recovered: int = 0
    lost: list[str] = field(default_factory=list)
    half: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.half or self.wrong or self.unequal)


class Child:
    """One life of a writer."""

    def __init__(self, where: Place, plan: Plan, pipe: int) -> None:
        self._where = where
        self._plan = plan
        self._pipe = pipe
        self._luck = random.Random(plan.seed)
        commits.BESIDE = self._luck.choice((0, commits.BESIDE))
        index.MANY = self._luck.choice((0, index.MANY))
        self._met: Counter[str] = Counter()
        self._words = where.node(reached=self._reached)
        self._open: list[str] = []

    def live(self) -> None:
        """Do a dozen things, and end unless killed."""
        self._say("ready")
        for _ in range(_LIFE):
            while len(self._open) < 2:
                self._open.append(self._words.sessions.open(author="child").id)
                self._reached("session: opened")
            for _ in range(self._luck.randint(1, 4)):
                self._change(self._luck.choice(self._open))
            self._luck.choices([self._commit, self._discard, self._let_go, self._snapshot], [8, 1, 2, 1])[0]()
        self._say("end")

    def _change(self, which: str) -> None:
        session = self._words.sessions.find(which)
        number = self._luck.randrange(NUMBERS)
        title = f"{self._plan.seed} {self._luck.random()}"
        if self._words.sessions.read(hash_of(number), session) is None:
            self._where.keep(number)
            self._reached("upload: stored")
            self._words.sessions.put(session, record(number, title=title, tags=(f"t{number % 3}",)))
            self._reached("upload: staged")
        elif self._luck.random() < 0.6:
            self._words.sessions.edit(session, hash_of(number), {"title": title})
            self._reached("session: edited")
        else:
            self._words.sessions.delete(session, hash_of(number))
            self._reached("session: deleted")

    def _commit(self) -> None:
        which = self._open.pop(0)
        changes = {
            _NUMBER[one.hash]: one.after.title if one.after else None for one in self._words.sessions.diff(self._words.sessions.find(which))
        }
        self._say("try", which, changes)
        if self._plan.liar:
            self._say("ok", which)
        try:
            self._words.commits.commit(which)
        except Conflict:
            self._say("no", which)
            self._words.sessions.discard(self._words.sessions.find(which))
            self._reached("session: discarded")
            return
        if not self._plan.liar:
            self._say("ok", which)

    def _discard(self) -> None:
        self._words.sessions.discard(self._words.sessions.find(self._open.pop(0)))
        self._reached("session: discarded")

    def _let_go(self) -> None:
        self._words.farewell.say()
        self._reached("let go")

    def _snapshot(self) -> None:
        self._words.snapshots.take()

    def _reached(self, step: str) -> None:
        self._met[step] += 1
        if step == self._plan.step and self._met[step] == self._plan.time:
            os.kill(os.getpid(), signal.SIGKILL)

    def _say(self, *words: object) -> None:
        os.write(self._pipe, json.dumps(words).encode() + b"\n")


class Harness:
    """Lives and deaths over one pair of stores; `stores` opens them anew, for no connection may cross a fork."""

    def __init__(self, stores: Callable[[], Place], seed: int, *, liar: bool = False) -> None:
        self._stores = stores
        self._luck = random.Random(seed)
        self._liar = liar
        self._model: dict[int, str] = {}
        self.result = Result()

    def run(self, kills: int, told: Callable[[Result], object] = lambda _: None) -> Result:
        """Kill so often: first at every step, then at steps and moments at random."""
        pending = list(STEPS)
        while self.result.kills < kills:
            plan = self._plan(pending)
            before = self.result.kills
            answered, flying = self._life(plan)
            if pending and self.result.kills > before:
                pending.pop(0)
            where = self._stores()
            self._answer(answered)
            if flying and self._luck.random() < 0.25:
                self._resume(where, flying)
                flying = None
            shutil.rmtree(where.root / "node", ignore_errors=True)
            with closing(where.node()) as words:
                self._look(where, words, flying)
            where.close()
            told(self.result)
        return self.result

    def _plan(self, pending: list[str]) -> Plan:
        seed = self._luck.getrandbits(40)
        if pending:
            return Plan(seed, pending[0], liar=self._liar)
        if self._luck.random() < 0.4:
            return Plan(seed, self._luck.choice(STEPS), self._luck.randint(1, 4), liar=self._liar)
        return Plan(seed, after=self._luck.random() * 0.15, liar=self._liar)

    def _life(self, plan: Plan) -> tuple[list[dict[int, str | None]], tuple[str, dict[int, str | None]] | None]:
        """Let a child live and die: the changes that it was answered for, and the commit that it was not."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            try:
                Child(self._stores(), plan, writer).live()
            except BaseException as error:
                os.write(2, f"child: {error!r}\n".encode())
                os._exit(1)
            os._exit(0)
        os.close(writer)
        lines = _until_dead(reader, pid, plan.after)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            self.result.kills += 1
            self.result.steps[plan.step or "a moment"] += 1
        elif os.WEXITSTATUS(status):
            self.result.wrong.append(f"a child failed, seed {plan.seed}")
        return _told(lines)

    def _answer(self, answered: list[dict[int, str | None]]) -> None:
        for changes in answered:
            self._model = _changed(self._model, changes)
            self.result.commits += 1

    def _resume(self, where: Place, flying: tuple[str, dict[int, str | None]]) -> None:
        """Go on with the disk of the killed life, and ask for its last commit again: it must happen exactly once."""
        with closing(where.node()) as words:
            before = words.commits.log(most=1)
            try:
                done = words.commits.commit(flying[0]) if flying[1] else None
            except Conflict:  # it was killed before it was told
                return
            again = words.commits.commit(flying[0]) if done else None
            if done != again or (done and before and done.n > before[0].n + 1):
                self.result.unequal.append(f"commit {done} was {again} when asked again")
            self._model = _changed(self._model, flying[1])
            self.result.recovered += 1

    def _look(self, where: Place, words: Words, flying: tuple[str, dict[int, str | None]] | None) -> None:
        """Compare a restored repository with the model, and let sync make records and originals equal."""
        words.commits.catch_up()
        found = {_NUMBER[hash]: one.title for hash, one in live(words).items()}
        if found != self._model and flying and found == _changed(self._model, flying[1]):
            self._model = found
        if found != self._model:
            self._blame(found, flying)
            self._model = found
        for number in found:
            if not _right(where, number):
                self.result.wrong.append(f"original {number} is not what its record says")
        sync = Sync(words.chain, words.commits, where.base, grace=-1.0)
        sync.run(Repairs(lost=True, stray="delete"))
        words.farewell.say()
        left = list(sync.differences())
        if left or len(live(words)) != len(found):
            self.result.unequal.append(f"after sync: {left}")
        proof = restoring.check(words.database, where.meta, where.root / "proof.db")
        if proof.differences:
            self.result.unequal.append(f"a second restore differs: {proof.differences}")

    def _blame(self, found: dict[int, str], flying: tuple[str, dict[int, str | None]] | None) -> None:
        """Whether an unanswered commit is there by half, or an answered one is lost."""
        partly = [number for number, title in (flying[1] if flying else {}).items() if found.get(number) == title]
        missing = {number for number in {*found, *self._model} if found.get(number) != self._model.get(number)}
        where = self.result.half if partly and missing <= set(flying[1] if flying else {}) else self.result.lost
        where.append(f"records {sorted(missing)}")


def _until_dead(reader: int, pid: int, after: float) -> list[list[object]]:
    """All that a child says until it ends; with `after`, it is killed so long after it was ready."""
    data = b""
    deadline = time.monotonic() + 120
    kill_at = None
    while True:
        if kill_at is None and after and b"ready" in data:
            kill_at = time.monotonic() + after
        wait = (kill_at or deadline) - time.monotonic()
        if wait <= 0 or not select.select([reader], [], [], wait)[0]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            kill_at, deadline = None, time.monotonic() + 120
            after = 0.0
            continue
        piece = os.read(reader, 65_536)
        if not piece:
            os.close(reader)
            return [json.loads(line) for line in data.splitlines()]
        data += piece


def _told(lines: list[list[object]]) -> tuple[list[dict[int, str | None]], tuple[str, dict[int, str | None]] | None]:
    answered: list[dict[int, str | None]] = []
    flying: dict[str, dict[int, str | None]] = {}
    for what, *more in lines:
        if what == "try":
            flying[str(more[0])] = {int(number): title for number, title in more[1].items()}  # type: ignore[attr-defined]
        elif what == "ok":
            answered.append(flying.pop(str(more[0])))
        elif what == "no":
            flying.pop(str(more[0]), None)
    assert len(flying) <= 1
    return answered, next(iter(flying.items()), None)


def _changed(model: dict[int, str], changes: dict[int, str | None]) -> dict[int, str]:
    after = {**model, **changes}
    return {number: title for number, title in after.items() if title is not None}


def _right(where: Place, number: int) -> bool:
    blob = where.base.get(hash_of(number), fresh=True)
    if blob is None:
        return False
    with blob:
        data = blob.file.read()
    return data == body(number) and sha256(data).hexdigest() == hash_of(number)


def in_swift(root: Path, stack: ExitStack) -> Callable[[], Place]:
    """Stores in a real Swift that lives as long as the stack."""
    from imgproxy.stores.swift import Container, Swift, SwiftStore
    from tests.swift_fixtures import PATIENCE, account_of, swift_box
    from tests.swiftbox import Shape

    box = stack.enter_context(swift_box(Shape(recheck=1)))

    def stores() -> Place:
        swift = Swift(account_of(box), PATIENCE)
        meta, base = SwiftStore(Container("meta"), swift), SwiftStore(Container("base"), swift)
        meta.prepare()
        base.prepare()
        return Place(root, meta, base, swift.close)

    return stores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2_000)
    parser.add_argument("--store", choices=["fs", "swift"], default="fs")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--liar", action="store_true")
    said = parser.parse_args()
    room = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    begun = time.monotonic()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=room, prefix="kills-")))
        stores = in_swift(directory, stack) if said.store == "swift" else lambda: place_on_disk(directory)
        harness = Harness(stores, said.seed, liar=said.liar)

        seen: set[int] = set()

        def told(result: Result) -> None:
            if result.kills % 100 == 0 and result.kills not in seen:
                seen.add(result.kills)
                print(f"{result.kills} kills, {result.commits} commits, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

        result = harness.run(said.kills, told)
    print(json.dumps({
        "store": said.store, "seed": said.seed, "kills": result.kills, "steps": dict(result.steps), "answered": result.commits,
        "asked again": result.recovered, "lost": result.lost, "half": result.half, "wrong": result.wrong, "unequal": result.unequal,
        "seconds": round(time.monotonic() - begun, 1),
    }))  # fmt: skip
    return 0 if result.clean != said.liar else 1


if __name__ == "__main__":
    sys.exit(main())
