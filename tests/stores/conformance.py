"""What every store must do, whatever it is made of.

A test module runs the whole suite by importing `TestConformance` and defining a fixture `store` that yields an *empty* store; where the
store promises less than most do, it defines a fixture `promises` as well (the default is in `conftest.py`).
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from imgproxy.stores import Store

HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
BIG = bytes(range(256)) * (5 * 2**12)
BAD_KEYS = [
    "",
    ".",
    "..",
    "../etc",
    "a/../b",
    "a/./b",
    "a//b",
    "/a",
    "a/",
    "A",
    "a b",
    "a\n",
    "a\0",
    "a%2fb",
    "a~b",
    "a,b",
    "a:b",
    "a\\b",
    "ä",
    "x" * 251,
]


@dataclass(frozen=True)
class Promises:
    """Where stores may differ."""

    atomic_create: bool = True
    """Of many at once who put with `create=True`, exactly one is told True."""
    largest: int = len(BIG)
    """A tier may forget a larger object at once."""
    lag: float = 0.0
    """So many seconds a listing may be behind."""


class Cut(Exception):
    """A source came to an untimely end."""


class CutSource(io.BytesIO):
    """A source that fails when half of it is read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= len(self.getvalue()) // 2:
            raise Cut
        return super().read(min(size or 4096, 4096) if size != -1 else 4096)


class Drip(io.BytesIO):
    """A source that hands out less than it is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(7)


def body(store: Store, key: str) -> bytes | None:
    """All bytes of an object; None if there is none."""
    blob = store.get(key, fresh=True)
    if blob is None:
        return None
    with blob:
        return blob.file.read()


def keys(store: Store, prefix: str = "", after: str = "") -> list[str]:
    """The keys of a listing, as they come."""
    return [item.key for item in store.list(prefix, after)]


def soon(ask: Callable[[], object], expected: object, lag: float) -> None:
    """Assert that an answer is, within the lag, what is expected."""
    deadline = time.monotonic() + lag
    while ask() != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ask() == expected


class TestConformance:
    """The contract of `imgproxy.stores`, rule by rule."""

    # ---- what is put is what is got

    def test_what_is_put_is_got_byte_for_byte(self, store: Store) -> None:
        assert store.put(HASH, io.BytesIO(b"some\0bytes\r\n")) is True
        assert body(store, HASH) == b"some\0bytes\r\n"

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        assert store.put("empty", io.BytesIO(b"")) is True
        assert body(store, "empty") == b""
        item = store.head("empty")
        assert item is not None
        assert item.size == 0

    def test_an_object_of_five_megabytes_comes_back_whole(self, store: Store, promises: Promises) -> None:
        assert store.put("big", io.BytesIO(BIG)) is True
        got = body(store, "big")
        assert got == BIG or (got is None and promises.largest < len(BIG))

    def test_an_object_may_be_read_in_pieces(self, store: Store) -> None:
        store.put("pieces", io.BytesIO(b"0123456789" * 1000))
        blob = store.get("pieces")
        assert blob is not None
        with blob:
            got = b""
            while piece := blob.file.read(999):
                got += piece
        assert got == b"0123456789" * 1000

    def test_a_blob_stands_at_its_beginning_every_time(self, store: Store) -> None:
        store.put("k", io.BytesIO(b"abc"))
        assert [body(store, "k"), body(store, "k")] == [b"abc", b"abc"]

    def test_a_source_is_read_from_where_it_stands(self, store: Store) -> None:
        source = io.BytesIO(b"headerbody")
        source.seek(6)
        store.put("k", source)
        assert body(store, "k") == b"body"

    def test_a_source_that_yields_little_at_a_time_is_read_to_its_end(self, store: Store) -> None:
        store.put("k", Drip(b"0123456789" * 20))
        assert body(store, "k") == b"0123456789" * 20

    def test_a_source_is_left_open(self, store: Store) -> None:
        source = io.BytesIO(b"body")
        store.put("k", source)
        assert not source.closed

    def test_what_was_put_last_is_what_is_there(self, store: Store) -> None:
        store.put("k", io.BytesIO(b"a longer first version"))
        assert store.put("k", io.BytesIO(b"second")) is True
        assert body(store, "k") == b"second"
        item = store.head("k", fresh=True)
        assert item is not None
        assert item.size == 6

    def test_leaving_a_blob_closes_its_file(self, store: Store) -> None:
        store.put("k", io.BytesIO(b"body"))
        blob = store.get("k")
        assert blob is not None
        with blob as entered:
            assert entered is blob
            assert not blob.file.closed
        assert blob.file.closed

    def test_a_blob_may_be_closed_before_it_is_read_and_twice(self, store: Store) -> None:
        store.put("big", io.BytesIO(BIG[: 2**17]))
        blob = store.get("big")
        assert blob is not None
        blob.file.read(10)
        blob.close()
        blob.close()
        assert body(store, "big") == BIG[: 2**17]

    # ---- create

    def test_create_keeps_what_is_absent(self, store: Store) -> None:
        assert store.put("k", io.BytesIO(b"first"), create=True) is True
        assert body(store, "k") == b"first"

    def test_create_leaves_what_is_there_alone(self, store: Store) -> None:
        store.put("k", io.BytesIO(b"first"), type="image/png", note={"width": "640"})
        assert store.put("k", io.BytesIO(b"other"), type="image/gif", note={"width": "1"}, create=True) is False
        assert body(store, "k") == b"first"
        item = store.head("k", fresh=True)
        assert item is not None
        assert (item.type, dict(item.note)) == ("image/png", {"width": "640"})

    def test_create_works_again_after_a_deletion(self, store: Store) -> None:
        store.put("k", io.BytesIO(b"first"))
        store.delete("k")
        assert store.put("k", io.BytesIO(b"second"), create=True) is True
        assert body(store, "k") == b"second"

    def test_of_many_creators_at_once_one_is_told_that_it_was_first(self, store: Store, promises: Promises) -> None:
        bodies = [f"creator {number}".encode() * 100 for number in range(8)]
        start = threading.Barrier(len(bodies))

        def create(mine: bytes) -> bool:
            start.wait(30)
            return store.put("k", io.BytesIO(mine), create=True)

        with ThreadPoolExecutor(len(bodies)) as pool:
            told = list(pool.map(create, bodies))
        winners = [mine for mine, first in zip(bodies, told, strict=True) if first]
        assert winners
        if promises.atomic_create:
            assert len(winners) == 1
        assert body(store, "k") in winners

    # ---- absence

    def test_what_was_never_put_is_absent(self, store: Store) -> None:
        assert store.get("nothing") is None
        assert store.get("nothing", fresh=True) is None
        assert store.head("nothing") is None
        assert store.head("nothing", fresh=True) is None
        assert store.delete("nothing") is False

    def test_what_was_deleted_is_absent_and_cannot_be_deleted_twice(self, store: Store, promises: Promises) -> None:
        store.put("k", io.BytesIO(b"body"), type="image/png", note={"width": "640"})
        assert store.delete("k") is True
        assert body(store, "k") is None
        assert store.head("k", fresh=True) is None
        assert store.delete("k") is False
        soon(lambda: keys(store), [], promises.lag)

    def test_a_key_that_another_key_begins_with_is_absent(self, store: Store) -> None:
        store.put("commits/000001", io.BytesIO(b"body"))
        assert store.get("commits") is None
        assert store.head("commits") is None
        assert store.delete("commits") is False
        assert store.get("commits/000001/more") is None
        assert store.head("commits/0") is None
        assert body(store, "commits/000001") == b"body"

    # ---- what is said of an object

    def test_head_knows_size_and_time(self, store: Store) -> None:
        before = time.time()
        store.put("k", io.BytesIO(b"12345"))
        item = store.head("k")
        assert item is not None
        assert (item.key, item.size) == ("k", 5)
        assert abs(item.modified - before) < 120

    def test_type_and_note_are_kept(self, store: Store) -> None:
        note = {"width": "640", "height": "480", "md5": "d41d8cd98f00b204e9800998ecf8427e", "true-type": "jpg"}
        store.put("k", io.BytesIO(b"body"), type="image/jpeg", note=note)
        item = store.head("k")
        blob = store.get("k")
        assert item is not None
        assert blob is not None
        with blob:
            assert (blob.item.key, blob.item.size, blob.item.type, dict(blob.item.note)) == ("k", 4, "image/jpeg", note)
        assert (item.type, dict(item.note)) == ("image/jpeg", note)

    def test_without_type_and_note_nothing_is_made_up(self, store: Store) -> None:
        store.put("k.png", io.BytesIO(b"\x89PNG\r\n\x1a\n"))
        item = store.head("k.png")
        assert item is not None
        assert item.type in ("", "application/octet-stream")
        assert dict(item.note) == {}

    def test_type_and_note_are_those_of_the_last_version(self, store: Store) -> None:
        store.put("k", io.BytesIO(b"one"), type="image/png", note={"width": "1", "height": "2"})
        store.put("k", io.BytesIO(b"two"), type="image/gif", note={"width": "3"})
        item = store.head("k", fresh=True)
        assert item is not None
        assert (item.type, dict(item.note)) == ("image/gif", {"width": "3"})
        store.put("k", io.BytesIO(b"three"))
        item = store.head("k", fresh=True)
        assert item is not None
        assert dict(item.note) == {}

    def test_a_note_does_not_outlive_its_object(self, store: Store) -> None:
        store.put("k", io.BytesIO(b"one"), type="image/png", note={"width": "1"})
        store.delete("k")
        store.put("k", io.BytesIO(b"two"))
        item = store.head("k", fresh=True)
        assert item is not None
        assert dict(item.note) == {}

    # ---- listing

    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        assert keys(store) == []
        assert keys(store, "a", "a") == []

    def test_a_listing_is_in_order_and_obeys_prefix_and_after(self, store: Store, promises: Promises) -> None:
        names = sorted(
            {f"{number * 7919 % 4096:03x}{'-_.x'[number % 4]}{number}.jpg" for number in range(250)} | {"0", "00", "000", "0000", "a.b"}
        )
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda name: store.put(name, io.BytesIO(name.encode())), reversed(names)))
        soon(lambda: keys(store), names, promises.lag)
        assert {item.key: item.size for item in store.list()} == {name: len(name) for name in names}
        for prefix, after in [
            ("a", ""),
            ("0", ""),
            ("00", "000"),
            ("", names[100]),
            ("", names[100] + "0"),
            ("a", "7"),
            ("7", "a"),
            ("000", ""),
            ("no", ""),
        ]:
            assert keys(store, prefix, after) == [name for name in names if name.startswith(prefix) and name > after]
        assert keys(store, "", names[-1]) == []

    def test_a_listing_of_paths_is_in_order_and_obeys_prefix_and_after(self, store: Store, promises: Promises) -> None:
        names = sorted(
            [
                "a-b",
                "a.b",
                "a/b",
                "a/b-c/d",
                "a/b.c/d",
                "a/bc",
                "a0",
                "commits/000001",
                "commits/000002",
                "commits/000010",
                "lease",
                "snapshots/3",
            ]
        )
        for name in reversed(names):
            store.put(name, io.BytesIO(b"x"))
        soon(lambda: keys(store), names, promises.lag)
        for prefix in ("", "a", "a/", "a/b", "a/b-c/", "commits/", "commits/00000", "z"):
            for after in ("", "a/b", "a/b-c", "a/b-c/d", "commits", "commits/000001", "commits/000005", "lease"):
                assert keys(store, prefix, after) == [name for name in names if name.startswith(prefix) and name > after]

    def test_a_listing_may_be_left_early(self, store: Store, promises: Promises) -> None:
        for name in ("a", "b", "c"):
            store.put(name, io.BytesIO(b"x"))
        soon(lambda: keys(store), ["a", "b", "c"], promises.lag)
        listing = store.list()
        assert next(listing).key == "a"
        del listing
        assert keys(store) == ["a", "b", "c"]

    def test_what_is_deleted_while_a_listing_is_read_breaks_nothing(self, store: Store, promises: Promises) -> None:
        names = [f"{number:03}" for number in range(40)]
        for name in names:
            store.put(name, io.BytesIO(b"x"))
        soon(lambda: keys(store), names, promises.lag)
        listing = store.list()
        seen = [next(listing).key]
        for name in names[10:30]:
            store.delete(name)
        seen += [item.key for item in listing]
        assert seen == sorted(set(seen))
        assert set(names) - set(names[10:30]) <= set(seen) <= set(names)

    # ---- what is refused, and what fails

    @pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
    def test_no_verb_takes_what_is_no_key(self, store: Store, key: str) -> None:
        store.put("kept", io.BytesIO(b"body"))
        source = io.BytesIO(b"never read")
        with pytest.raises(ValueError):
            store.put(key, source)
        with pytest.raises(ValueError):
            store.put(key, source, create=True)
        with pytest.raises(ValueError):
            store.get(key)
        with pytest.raises(ValueError):
            store.head(key)
        with pytest.raises(ValueError):
            store.delete(key)
        assert source.tell() == 0
        assert set(keys(store)) <= {"kept"}
        assert body(store, "kept") == b"body"

    @pytest.mark.parametrize(
        "key", ["x" * 250, HASH + "-1024x512-fill_n-q_70.webp", "a", "ab", "abc", "abcd", "..a", "a..", "...", "-", "_", "a/b/c", ".a/..b"]
    )
    def test_every_key_is_taken(self, store: Store, promises: Promises, key: str) -> None:
        assert store.put(key, io.BytesIO(b"body"), type="image/png", note={"width": "1"}, create=True) is True
        assert body(store, key) == b"body"
        soon(lambda: keys(store), [key], promises.lag)
        assert store.delete(key) is True
        assert body(store, key) is None

    def test_a_source_that_fails_in_the_middle_leaves_nothing(self, store: Store, promises: Promises) -> None:
        with pytest.raises(Cut):
            store.put("k", CutSource(BIG[: 2**18]))
        assert body(store, "k") is None
        assert store.head("k", fresh=True) is None
        soon(lambda: keys(store), [], promises.lag)

    def test_a_source_that_fails_in_the_middle_leaves_the_old_version(self, store: Store) -> None:
        store.put("k", io.BytesIO(b"old"), note={"width": "1"})
        with pytest.raises(Cut):
            store.put("k", CutSource(BIG[: 2**18]), note={"width": "2"})
        assert body(store, "k") == b"old"
        item = store.head("k", fresh=True)
        assert item is not None
        assert dict(item.note) == {"width": "1"}

    # ---- many at once

    def test_readers_never_see_half_an_object(self, store: Store) -> None:
        versions = [bytes([number]) * (20_000 + 3_000 * number) for number in range(20)]
        store.put("k", io.BytesIO(versions[0]))
        done = threading.Event()
        torn: list[str] = []

        def read() -> int:
            reads = 0
            while not done.is_set() or reads < 10:
                got = body(store, "k")
                reads += 1
                if got not in versions:
                    torn.append("absent" if got is None else f"{len(got)} bytes of {sorted(set(got))}")
            return reads

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read) for _ in range(4)]
            try:
                for version in versions * 2:
                    store.put("k", io.BytesIO(version))
            finally:
                done.set()
            assert sum(reader.result(60) for reader in readers) >= 40
        assert torn == []

    def test_threads_may_use_it_at_once(self, store: Store, promises: Promises) -> None:
        def use(number: int) -> list[bytes | None]:
            got = []
            for turn in range(5):
                key = f"{number:02}-{turn}"
                store.put(key, io.BytesIO(key.encode() * 50), note={"turn": str(turn)})
                got.append(body(store, key))
            store.delete(f"{number:02}-0")
            return got

        with ThreadPoolExecutor(8) as pool:
            for number, got in enumerate(pool.map(use, range(8))):
                assert got == [f"{number:02}-{turn}".encode() * 50 for turn in range(5)]
        soon(lambda: keys(store), sorted(f"{number:02}-{turn}" for number in range(8) for turn in range(1, 5)), promises.lag)

    # ---- health

    def test_a_healthy_store_checks_and_shows_nothing_of_it(self, store: Store, promises: Promises) -> None:
        store.put("k", io.BytesIO(b"body"))
        store.check()
        soon(lambda: keys(store), ["k"], promises.lag)
