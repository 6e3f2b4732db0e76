"""Originals are checked against their names: near ones where they are, far ones on the way here."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from imgproxy import errors
from imgproxy.departures import Departures
from imgproxy.errors import Missing, StoreDown, StoreFull, StoreLied
from imgproxy.flights import Flights
from imgproxy.originals import Checked, Copies, Originals
from imgproxy.quarantine import Quarantine
from imgproxy.stores import Blob, Item, Store
from imgproxy.stores.disk import DiskTier
from imgproxy.stores.fs import FsStore
from imgproxy.stores.memory import MemoryStore

DATA = b"an original" * 10_000
HASH = hashlib.sha256(DATA).hexdigest()


class Rotten:
    """A store of one object whose copies are not all alike: it hands out the next of `bodies` each time, and remembers how it was asked."""

    def __init__(self, *bodies: bytes | None) -> None:
        self._bodies = list(bodies)
        self.asked: list[bool] = []

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        self.asked.append(fresh)
        body = self._bodies.pop(0)
        return Blob(Item(key, len(body)), io.BytesIO(body)) if body is not None else None

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        return Item(key, len(DATA))

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        raise StoreFull("full")

    def delete(self, key: str) -> bool:
        return False

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        return iter(())

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass


def near(tmp_path: Path) -> DiskTier:
    return DiskTier(tmp_path / "copies", 0, 2**30)


def originals(tmp_path: Path, store: Store, copies: Copies | None = None) -> Originals:
    departures = Departures(tmp_path / "departures")
    return Originals(store, copies, Flights(tmp_path / "flights"), departures, Quarantine(tmp_path / "quarantine", lambda _: None))


def content(blob: Blob) -> bytes:
    with blob:
        return blob.file.read()


def soon() -> float:
    return time.monotonic() + 30


def stored(tmp_path: Path) -> tuple[FsStore, Path]:
    store = FsStore(tmp_path / "base")
    store.put(HASH, io.BytesIO(DATA))
    return store, next((tmp_path / "base").rglob(HASH))


def test_what_matches_reads_like_any_file() -> None:
    checked = Checked(io.BytesIO(DATA), HASH)
    assert b"".join(iter(lambda: checked.read(1000), b"")) == DATA


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b"", DATA.replace(b"o", b"0", 1)])
def test_what_does_not_match_is_told_at_its_end(data: bytes) -> None:
    with pytest.raises(StoreLied):
        Checked(io.BytesIO(data), HASH).drain()


def test_a_near_original_is_read_where_it_is(tmp_path: Path) -> None:
    store, path = stored(tmp_path)
    with originals(tmp_path, store).open(HASH, soon()) as blob:
        assert os.fstat(blob.file.fileno()).st_ino == path.stat().st_ino
        assert blob.file.read() == DATA


def test_a_near_original_that_was_written_to_is_noticed_though_it_was_right_before(tmp_path: Path) -> None:
    store, path = stored(tmp_path)
    these = originals(tmp_path, store)
    assert content(these.open(HASH, soon())) == DATA
    stat = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(StoreLied):
        these.open(HASH, soon())


def test_an_unknown_original_is_missing(tmp_path: Path) -> None:
    for copies in (None, near(tmp_path)):
        with pytest.raises(Missing):
            originals(tmp_path, MemoryStore(), copies).open(HASH, soon())


def test_a_far_original_is_copied_once(tmp_path: Path) -> None:
    far, copies = MemoryStore(), near(tmp_path)
    far.put(HASH, io.BytesIO(DATA), type="image/png")
    these = originals(tmp_path, far, copies)
    assert content(these.open(HASH, soon())) == DATA
    far.delete(HASH)
    assert content(these.open(HASH, soon())) == DATA


def test_a_rotten_copy_is_asked_for_once_more_past_stale_ones(tmp_path: Path) -> None:
    store = Rotten(b"rot", DATA)
    assert content(originals(tmp_path, store, near(tmp_path)).open(HASH, soon())) == DATA
    assert store.asked == [False, True]


def test_what_stays_rotten_is_never_kept(tmp_path: Path) -> None:
    copies = near(tmp_path)
    with pytest.raises(StoreLied):
        originals(tmp_path, Rotten(b"rot", b"more rot"), copies).open(HASH, soon())
    assert list(copies.list()) == []


@pytest.mark.parametrize("is_near", [True, False])
@pytest.mark.parametrize("second", [b"more rot", None])
def test_what_is_rotten_twice_or_gone_with_its_last_copy_is_refused_unread_from_then_on(
    tmp_path: Path, is_near: bool, second: bytes | None
) -> None:
    store = Rotten(b"rot", second)
    copies = None if is_near else near(tmp_path)
    for _ in range(3):
        with pytest.raises(errors.Rotten):
            originals(tmp_path, store, copies).open(HASH, soon())
    assert store.asked == [False, True]


def test_nonsense_is_not_taken_for_rot(tmp_path: Path) -> None:
    class Nonsense(Rotten):
        def get(self, key: str, *, fresh: bool = False) -> Blob | None:
            if not self.asked:
                self.asked.append(fresh)
                raise StoreLied("nonsense")
            return super().get(key, fresh=fresh)

    store = Nonsense(b"rot", DATA)
    copies = near(tmp_path)
    with pytest.raises(errors.Rotten):
        originals(tmp_path, store, copies).open(HASH, soon())
    assert content(originals(tmp_path, store, copies).open(HASH, soon())) == DATA
    assert store.asked == [False, True, False]


def test_to_put_a_rotten_original_again_heals_it(tmp_path: Path) -> None:
    store, copies = MemoryStore(), near(tmp_path)
    store.put(HASH, io.BytesIO(b"rot"))
    these = originals(tmp_path, store, copies)
    with pytest.raises(errors.Rotten):
        these.open(HASH, soon())
    assert these.put(HASH, io.BytesIO(DATA), "image/png", {})
    assert content(these.open(HASH, soon())) == DATA
    assert not these.put(HASH, io.BytesIO(DATA), "image/png", {})


class Breaking(Rotten):
    """A store that breaks off in the middle of what it hands over, so many times."""

    times = 1

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        blob = super().get(key, fresh=fresh)
        assert blob is not None
        return Blob(blob.item, cast("BinaryIO", Short(DATA[: len(DATA) // 2]))) if len(self.asked) <= self.times else blob


class Short(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if not data:
            raise StoreDown("broke off")
        return data


def test_what_breaks_off_is_asked_for_once_more(tmp_path: Path) -> None:
    store = Breaking(DATA, DATA)
    copies = near(tmp_path)
    assert content(originals(tmp_path, store, copies).open(HASH, soon())) == DATA
    assert store.asked == [False, True]


def test_what_breaks_off_twice_is_not_kept_and_not_rotten(tmp_path: Path) -> None:
    store = Breaking(DATA, DATA, DATA)
    store.times = 2
    copies = near(tmp_path)
    with pytest.raises(errors.BrokenOff):
        originals(tmp_path, store, copies).open(HASH, soon())
    assert list(copies.list()) == []
    assert content(originals(tmp_path, store, copies).open(HASH, soon())) == DATA


class Unsure(MemoryStore):
    """It has room, and cannot say what it has."""

    error: type[StoreDown] = StoreDown

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        if create:
            source.read(10)
            raise self.error("cannot say")
        return super().put(key, source, type=type, note=note)


def test_a_store_that_cannot_say_what_it_has_is_given_an_original_all_the_same(tmp_path: Path) -> None:
    these = originals(tmp_path, Unsure(), near(tmp_path))
    assert these.put(HASH, io.BytesIO(DATA), "image/png", {})
    assert content(these.open(HASH, soon())) == DATA


def test_a_store_that_refuses_us_is_not_asked_twice(tmp_path: Path) -> None:
    store = Unsure()
    store.error = errors.StoreRefused
    with pytest.raises(errors.StoreRefused):
        originals(tmp_path, store).put(HASH, io.BytesIO(DATA), "image/png", {})
    assert list(store.list()) == []


def test_a_rotten_original_that_was_removed_is_missing(tmp_path: Path) -> None:
    store = MemoryStore()
    store.put(HASH, io.BytesIO(b"rot"))
    these = originals(tmp_path, store, near(tmp_path))
    with pytest.raises(errors.Rotten):
        these.open(HASH, soon())
    these.remove(HASH)
    with pytest.raises(Missing):
        these.open(HASH, soon())


class Full(DiskTier):
    """A place for copies that has no room."""

    def bring(self, hash: str, source: BinaryIO, type: str) -> Blob:
        raise StoreFull("full")


def test_without_room_for_a_copy_the_original_is_read_all_the_same(tmp_path: Path) -> None:
    far = MemoryStore()
    far.put(HASH, io.BytesIO(DATA))

    with originals(tmp_path, far, Full(tmp_path / "copies", 0, 2**30)).open(HASH, soon()) as blob:
        assert os.fstat(blob.file.fileno()).st_size == len(DATA)
        assert blob.file.read() == DATA


@pytest.mark.parametrize("broken", ["get", "bring", "both"])
def test_copies_that_cannot_be_kept_or_had_keep_no_original_back(tmp_path: Path, broken: str) -> None:
    far = MemoryStore()
    far.put(HASH, io.BytesIO(DATA))

    class Down(DiskTier):
        def get(self, key: str, *, fresh: bool = False) -> Blob | None:
            if broken in ("get", "both"):
                raise StoreDown("its directory is not there")
            return super().get(key, fresh=fresh)

        def bring(self, hash: str, source: BinaryIO, type: str) -> Blob:
            if broken in ("bring", "both"):
                raise StoreDown("its directory is not there")
            return super().bring(hash, source, type)

    assert content(originals(tmp_path, far, Down(tmp_path / "copies", 0, 2**30)).open(HASH, soon())) == DATA


def test_without_room_for_anything_the_trouble_has_a_name(tmp_path: Path) -> None:
    far = MemoryStore()
    far.put(HASH, io.BytesIO(DATA))
    nowhere = Quarantine(tmp_path / "quarantine", lambda _: None)
    copies, departures = Full(tmp_path / "copies", 0, 2**30), Departures(tmp_path / "departures")
    these = Originals(far, copies, Flights(tmp_path / "flights"), departures, nowhere, tmp_path / "no" / "secret" / "place")
    with pytest.raises(StoreDown) as trouble:
        these.open(HASH, soon())
    assert "secret" not in str(trouble.value)


def test_a_disk_that_cannot_be_read_is_a_store_that_is_down(tmp_path: Path) -> None:
    class Bad(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error", "/a/secret/path")

    with pytest.raises(StoreDown) as trouble:
        Checked(Bad(), HASH).read(10)
    assert "secret" not in str(trouble.value)


def test_what_is_had_at_once_is_what_nobody_waits_for(tmp_path: Path) -> None:
    store, path = stored(tmp_path)
    these = originals(tmp_path, store)
    assert these.at_once(HASH) is None
    these.open(HASH, soon()).close()
    known = these.at_once(HASH)
    assert known is not None
    assert content(known) == DATA
    path.write_bytes(DATA[::-1])
    assert these.at_once(HASH) is None
    far, copies = MemoryStore(), near(tmp_path)
    far.put(HASH, io.BytesIO(DATA))
    distant = originals(tmp_path, far, copies)
    assert distant.at_once(HASH) is None
    distant.open(HASH, soon()).close()
    copy = distant.at_once(HASH)
    assert copy is not None
    assert content(copy) == DATA


def test_removing_takes_the_copy_too(tmp_path: Path) -> None:
    far, copies = MemoryStore(), near(tmp_path)
    far.put(HASH, io.BytesIO(DATA))
    these = originals(tmp_path, far, copies)
    these.open(HASH, soon()).close()
    assert these.remove(HASH)
    assert not these.remove(HASH)
    with pytest.raises(Missing):
        these.open(HASH, soon())


def test_an_original_that_leaves_while_it_is_brought_near_is_neither_given_nor_kept_near(tmp_path: Path) -> None:
    far = MemoryStore()
    far.put(HASH, io.BytesIO(DATA))
    writer = originals(tmp_path, far, near(tmp_path))  # in another process

    class Leaving(DiskTier):
        def bring(self, hash: str, source: BinaryIO, type: str) -> Blob:
            writer.remove(hash)
            return super().bring(hash, source, type)

    with pytest.raises(Missing):
        originals(tmp_path, far, Leaving(tmp_path / "copies", 0, 2**30)).open(HASH, soon())
    with pytest.raises(Missing):
        originals(tmp_path, far, near(tmp_path)).open(HASH, soon())


def test_an_original_whose_mark_changes_with_another_one_s_is_given_all_the_same(tmp_path: Path) -> None:
    far, asked = MemoryStore(), list[str]()
    far.put(HASH, io.BytesIO(DATA))
    departures = Departures(tmp_path / "departures")

    class Marking(DiskTier):
        def bring(self, hash: str, source: BinaryIO, type: str) -> Blob:
            if not asked:
                departures.note(hash)
            asked.append(hash)
            return super().bring(hash, source, type)

    assert content(originals(tmp_path, far, Marking(tmp_path / "copies", 0, 2**30)).open(HASH, soon())) == DATA
    assert len(asked) == 2
