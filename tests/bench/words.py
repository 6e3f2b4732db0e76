"""A million records: import, one small commit, search, snapshot, restore and sync. `WORDS_RECORDS` says how many (1,000,000)."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from imgproxy.meta import restoring
from imgproxy.meta.bulk import bulk
from imgproxy.meta.index import tend
from imgproxy.meta.near import near
from imgproxy.meta.query import Query
from imgproxy.meta.record import Record
from imgproxy.meta.repository import Originals, Terms, Words, open_words
from imgproxy.meta.sync import Sync
from imgproxy.stores.files import Fanned
from imgproxy.stores.fs import FsStore
from tests.bench.ratio import Line, ratios, seconds, told

COUNT = int(os.environ.get("WORDS_RECORDS", "1000000"))
SMALL = 1_000
ROUNDS = 60
QUERIES = 400
_DAYS = 15 * 365


class Speech:
    """Words as people use them: few of them often, most of them seldom."""

    def __init__(self, seed: int) -> None:
        self.luck = random.Random(seed)
        letters = random.Random(1)
        self.words = ["".join(letters.choices("abcdefghijklmnoprstuvw", k=letters.randint(3, 9))) for _ in range(50_000)]
        self.tags = [f"{word} {number % 7}" if number % 5 == 0 else word for number, word in enumerate(self.words[:3_000])]
        self._words = list(itertools.accumulate(1 / (place + 3) for place in range(len(self.words))))
        self._tags = list(itertools.accumulate(1 / (place + 3) for place in range(len(self.tags))))

    def some(self, count: int) -> str:
        return " ".join(self.luck.choices(self.words, cum_weights=self._words, k=count))

    def tag(self) -> str:
        return self.luck.choices(self.tags, cum_weights=self._tags)[0]

    def day(self) -> int:
        return self.luck.randrange(_DAYS)


def date(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(1_262_304_000 + day * 86_400))


def hash_of(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def records(count: int) -> Iterator[Record]:
    speech = Speech(2)
    for number in range(count):
        hash = hash_of(number)
        yield Record(
            hash, "jpg", 4_000, 3_000 if number % 3 else 6_000, 2_000_000 + number, md5=hash[:32],
            added_at="2026-01-01T00:00:00Z", taken_at=f"{date(speech.day())}T{number % 24:02}:{number % 60:02}:00",
            title=speech.some(4), description=speech.some(10), tags=tuple({speech.tag() for _ in range(3)}),
        )  # fmt: skip


def node(root: Path) -> Words:
    """A node whose originals are always there: words alone are measured."""
    originals = Originals(lambda _: (), lambda _: None, lambda _: None)
    return open_words(root / "node", FsStore(root / "meta", fanned=False), originals, Terms("bench", settle_seconds=0.0))


def imported(words: Words, count: int) -> tuple[float, float]:
    """How many seconds staging took, and the commit."""
    session = words.sessions.open("import")
    made = list(records(count))
    staged = seconds(lambda: bulk(words.database, session, made))
    return staged, seconds(lambda: words.commits.commit(session.id))


def one_change(words: Words, luck: random.Random, count: int) -> float:
    """How long the commit of one change takes."""
    session = words.sessions.open()
    words.sessions.edit(session, hash_of(luck.randrange(count)), {"title": f"changed {luck.random()}"})
    return seconds(lambda: words.commits.commit(session.id))


def queries(count: int) -> Iterator[Query]:
    speech = Speech(3)
    for _ in range(count):
        first = speech.day()
        last = date(first + speech.luck.choice((7, 30, 365, 3_650)))
        yield Query(
            words=speech.some(speech.luck.choice((1, 1, 2))), tags=(speech.tag(),), taken_from=date(first), taken_to=f"{last}T23:59:59"
        )


def timed(words: Words, asked: list[Query]) -> list[float]:
    return sorted(seconds(lambda query=query: words.search.page(query)) * 1_000 for query in asked)  # type: ignore[misc]


def percentiles(found: list[float]) -> str:
    return f"p50 {statistics.median(found):.1f} ms, p95 {found[int(len(found) * 0.95)]:.1f} ms, worst {found[-1]:.1f} ms"


def measured() -> Iterator[Line]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORDS_ROOM"), prefix="words-") as directory:
        room = Path(directory)
        with closing(node(room / "small")) as small, closing(node(room / "large")) as large:
            imported(small, SMALL)
            stage, commit = imported(large, COUNT)
            rate = COUNT / (stage + commit)
            figure = f"{rate:,.0f} a second (staged in {stage:.0f} s, committed in {commit:.0f} s)"
            yield Line(f"import of {COUNT:,} records, words only", figure, "20,000 a second", rate >= 20_000)
            yield from _commits(small, large)
            yield from _searches(large)
            yield from _restores(room / "large", large)
        yield from _sync(room)


def _commits(small: Words, large: Words) -> Iterator[Line]:
    luck = random.Random(4)
    found = ratios(lambda: one_change(large, luck, COUNT), lambda: one_change(small, luck, SMALL), ROUNDS)
    yield Line(f"commit of 1 change at {COUNT:,} records by the same at {SMALL:,}", told(found), "1.5", statistics.median(found) <= 1.5)
    steps = sorted(_tended(large))
    yield Line("tending of the index afterwards, as the clerk does it", f"{len(steps)} steps, {percentiles(steps)}", "", True)
    alone = sorted(one_change(large, luck, COUNT) * 1_000 for _ in range(200))
    yield Line(f"200 commits of 1 change at {COUNT:,} records", percentiles(alone), "", True)


def _tended(large: Words) -> Iterator[float]:
    """How many milliseconds each step takes, until there is nothing to do."""
    more = True
    while more:
        began = time.perf_counter()
        more = tend(large.database)
        yield (time.perf_counter() - began) * 1_000


def _searches(large: Words) -> Iterator[Line]:
    found = timed(large, list(queries(QUERIES)))
    p95 = found[int(len(found) * 0.95)]
    yield Line(f"search of words, tag and dates in {COUNT:,}", percentiles(found), "p95 50 ms", p95 < 50)
    speech = Speech(5)
    kinds = {
        "one word": [Query(words=speech.some(1)) for _ in range(100)],
        "the commonest words": [Query(words=" ".join(speech.words[:2])), Query(words=speech.words[0])] * 10,
        "a beginning of two letters": [Query(words=f"{word[:2]}*") for word in speech.words[:50]],
        "by arrival, with a word": [Query(words=speech.some(1), order="added") for _ in range(100)],
        "nothing but dates": [Query(taken_from=date(speech.day())) for _ in range(50)],
        "size and type": [Query(min_height=5_000, min_bytes=2_000_000 + COUNT // 2, type="jpg")] * 10,
    }
    for name, asked in kinds.items():
        yield Line(f"search: {name}", percentiles(timed(large, asked)), "", True)
    deep = seconds(lambda: _pages(large, 40)) / 40
    yield Line("search: each of 40 pages of 50", f"{deep * 1_000:.1f} ms", "", True)
    alike = seconds(lambda: near(large.database, "0123456789abcdef")) * 1_000
    yield Line("look-alikes", f"{alike:.1f} ms", "", True)


def _pages(words: Words, count: int) -> None:
    speech = Speech(6)
    cursor = ""
    for _ in range(count):
        cursor = words.search.page(Query(words=speech.words[0]), cursor=cursor).cursor


def _restores(root: Path, large: Words) -> Iterator[Line]:
    took = seconds(large.snapshots.take)
    size = next(iter((root / "meta/snapshots").iterdir())).stat().st_size
    yield Line("snapshot", f"{took:.0f} s, {size / 2**20:.0f} MiB", "", True)
    yield Line("start with the database of the last run", f"{seconds(lambda: node(root).close()):.1f} s", "", True)
    store = FsStore(root / "meta", fanned=False)
    for name, until in (("restore from a snapshot", None), ("restore from commits alone", 1)):
        took = seconds(lambda until=until: restoring.restore(store, root / "copy.db", until=until))  # type: ignore[misc]
        (root / "copy.db").unlink()
        yield Line(name, f"{took:.0f} s", "", True)
    proof: list[restoring.Proof] = []
    took = seconds(lambda: proof.append(restoring.check(large.database, store, root / "proof.db")))
    yield Line("restore --check", f"{took:.0f} s, {len(proof[0].differences)} differences", "0 differences", not proof[0].differences)


def _sync(room: Path) -> Iterator[Line]:
    """The originals are real files; they are made without the care that a store takes, for that is not what is measured."""
    base = FsStore(room / "base")
    base.check()
    layout = Fanned()
    for number in range(COUNT):
        path = room / "base" / layout.path(hash_of(number))
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        path.touch()
    command = [sys.executable, "-m", "tests.bench.words", str(room)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    took, differences, resident, before = map(float, ended.stdout.split())
    figure = f"{took:.0f} s, {resident:.0f} MiB resident ({before:.0f} before), {differences:.0f} differences"
    yield Line(f"sync of {COUNT:,} originals and {COUNT:,} records", figure, "constant memory", resident - before < 64 and differences == 0)


def _sync_here(room: Path) -> None:
    with closing(node(room / "large")) as words:
        before = _peak()
        sync = Sync(words.chain, words.commits, FsStore(room / "base"))
        begun = time.perf_counter()
        differences = sum(1 for _ in sync.differences())
        print(time.perf_counter() - begun, differences, _peak(), before)


def _peak() -> float:
    """The most memory that this process ever had, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1_024


if __name__ == "__main__":
    _sync_here(Path(sys.argv[1]))
