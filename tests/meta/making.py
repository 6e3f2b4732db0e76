"""What the tests of the words are made of: records, stores on disk, and whole repositories around them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from imgproxy.meta.absent import absent_from
from imgproxy.meta.chain import Reached, unheard
from imgproxy.meta.commits import Commit
from imgproxy.meta.record import Record, from_state
from imgproxy.meta.repository import Originals, Terms, Words, open_words
from imgproxy.stores import Store
from imgproxy.stores.fs import FsStore
from imgproxy.stores.memory import MemoryStore


def body(number: int) -> bytes:
    """The bytes of an original; that it is no picture does not matter to words."""
    return b"original %d" % number


def hash_of(number: int) -> str:
    return hashlib.sha256(body(number)).hexdigest()


def record(number: int, **said: Any) -> Record:
    """What is said of the original of that number."""
    plain = Record(hash_of(number), "jpg", 640, 480, len(body(number)), added_at="2024-01-01T00:00:00Z")
    return replace(plain, md5=hashlib.md5(body(number)).hexdigest(), **said)


@dataclass(frozen=True)
class Place:
    """Stores that last, and room for nodes whose disks do not."""

    root: Path
    meta: Store
    base: Store
    close: Callable[[], object] = lambda: None

    def node(self, name: str = "node", *, holder: str = "", reached: Reached = unheard, **terms: Any) -> Words:
        """The words as a node of that name opens them; of the same name, on the same disk."""
        originals = Originals(absent_from(self.base), self.base.delete, lambda _: None)
        said = Terms(**{"holder": holder or name, "settle_seconds": 0.0, **terms})
        return open_words(self.root / name, self.meta, originals, said, reached=reached)

    def keep(self, *numbers: int) -> None:
        """Put originals into the store."""
        for number in numbers:
            self.base.put(hash_of(number), BytesIO(body(number)), type="image/jpeg", create=True)


def place(root: Path) -> Place:
    """Stores in memory: they outlive every node of the test, and cost nothing."""
    return Place(root, MemoryStore(), MemoryStore())


def place_on_disk(root: Path) -> Place:
    """Stores that processes share."""
    return Place(root, FsStore(root / "stores/meta", fanned=False), FsStore(root / "stores/base"))


def commit(words: Words, *records: Record, message: str = "") -> Commit:
    """Commit these states in a session of their own."""
    session = words.sessions.open(author="tester")
    for one in records:
        words.sessions.put(session, one)
    done = words.commits.commit(session.id, message=message)
    assert done is not None
    return done


def live(words: Words) -> dict[str, Record]:
    """All that is live."""
    with words.database.reading() as db:
        rows = db.execute("SELECT hash, since, state FROM records").fetchall()
    return {hash.hex(): from_state(hash.hex(), since, state) for hash, since, state in rows}
