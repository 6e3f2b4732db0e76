"""The tier on the local disk: the conformance suite, what nginx sees, its bound, and every way to hurt it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from imgproxy.errors import Rotten, StoreDown, StoreFull
from imgproxy.picture import EDITION_TIME
from imgproxy.stores import files
from imgproxy.stores.disk import DiskTier, rows, tree
from imgproxy.stores.disk.index import Index
from imgproxy.stores.disk.tree import key_of as key_of_file
from tests.stores import crowd
from tests.stores.conformance import HASH, body, keys
from tests.stores.conformance import TestConformance as TestConformance

SIZE = 64 * 2**20
KEY = f"{HASH}-100x.webp"
NAME = f"1/9f/86/{KEY}"
BODY = bytes(range(256)) * 100


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "tier"


@pytest.fixture
def store(root: Path) -> Iterator[DiskTier]:
    tier = DiskTier(root, 1, SIZE)
    yield tier
    tier.close()


def put(tier: DiskTier, key: str = KEY, data: bytes = BODY) -> Path:
    """Put an object; return the value that the tier keeps it in."""
    tier.put(key, io.BytesIO(data), type="image/webp", note={"width": "100"})
    return value_of(tier, key)


def value_of(tier: DiskTier, key: str = KEY) -> Path:
    return next(Path(found.path) for found in tier._tree.values() if found.stem == key)


def settle(tier: DiskTier, key: str = KEY) -> None:
    """Let a tier verify an object and remember it."""
    time.sleep(0.06)  # what was changed a moment ago is not remembered
    assert body(tier, key) is not None
    assert key in tier._known


def go_round(tier: DiskTier) -> None:
    """Let the hand of a tier go round twice at least."""
    opened = tier._index._opened()
    for _ in range(200):
        opened.hand.move()


def index(root: Path, edition: int = 1) -> sqlite3.Connection:
    """The index, as a stranger opens it."""
    return sqlite3.connect(root / f"~{edition}" / "cache.db", isolation_level=None)


def bytes_on_disk(root: Path) -> int:
    """The real bytes of all files; a file with several names counts once."""
    facts = [path.lstat() for path in root.rglob("*")]
    return sum({fact.st_ino: fact.st_blocks * 512 for fact in facts}.values())


# ---- what nginx sees


def test_a_rendition_is_published_as_a_plain_file_with_the_time_of_its_edition(store: DiskTier, root: Path) -> None:
    value = put(store)
    published = root / NAME
    assert published.read_bytes() == BODY
    assert published.stat().st_mtime_ns == EDITION_TIME * 1_000_000_000
    assert published.stat().st_ino == value.stat().st_ino
    assert published.stat().st_nlink == 2


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_are_the_same_under_every_umask(root: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        put(DiskTier(root, 1, SIZE))
    finally:
        os.umask(old)
    modes = {path: (root / path).stat().st_mode & 0o777 for path in ("", "1", "1/9f", "1/9f/86", NAME, "~1", "~1/9f", "~tmp")}
    assert modes == {
        "": 0o711,
        "1": 0o711,
        "1/9f": 0o711,
        "1/9f/86": 0o711,
        NAME: 0o644,
        "~1": 0o700,
        "~1/9f": 0o700,
        "~tmp": 0o700,
    }


def test_a_new_version_takes_the_name_and_the_old_file_goes(store: DiskTier, root: Path) -> None:
    old = put(store)
    new = put(store, KEY, b"new")
    assert (root / NAME).read_bytes() == b"new"
    assert (root / NAME).stat().st_ino == new.stat().st_ino
    assert not old.exists()


def test_what_is_deleted_is_unpublished_and_its_directories_go(store: DiskTier, root: Path) -> None:
    value = put(store)
    store.delete(KEY)
    assert not value.exists()
    assert list((root / "1").iterdir()) == []


def test_what_is_found_unpublished_is_published_again(store: DiskTier, root: Path) -> None:
    put(store)
    settle(store)
    shutil.rmtree(root / "1")
    assert body(store, KEY) == BODY
    assert (root / NAME).read_bytes() == BODY


def test_a_published_name_of_another_file_is_published_again(store: DiskTier, root: Path) -> None:
    value = put(store)
    settle(store)
    (root / "imposter").write_bytes(b"x" * len(BODY))
    (root / "imposter").replace(root / NAME)
    assert body(store, KEY) == BODY
    assert (root / NAME).stat().st_ino == value.stat().st_ino


def test_what_was_published_before_the_machine_was_started_waits_to_be_verified(root: Path) -> None:
    tier = DiskTier(root, 1, SIZE)
    put(tier)
    rotten = put(tier, "abcdef")
    tier.close()
    (root / "~1/boot").write_text("an earlier start")
    rotten.write_bytes(BODY[:100])
    tier = DiskTier(root, 1, SIZE)
    tier.check()
    assert not (root / NAME).exists()
    assert not (root / "1/ab/cd/abcdef").exists()
    assert body(tier, KEY) == BODY
    assert body(tier, "abcdef") is None
    assert (root / NAME).read_bytes() == BODY
    assert not (root / "1/ab/cd/abcdef").exists()
    tier.close()
    DiskTier(root, 1, SIZE).check()
    assert (root / NAME).read_bytes() == BODY


def test_other_editions_are_erased_when_the_tier_is_opened(root: Path) -> None:
    put(DiskTier(root, 1, SIZE))
    (root / "keep").write_bytes(b"a stranger's file")
    tier = DiskTier(root, 2, SIZE)
    assert tier.get(KEY) is None
    assert {path.name for path in root.iterdir()} == {"2", "~2", "~tmp", "~lock", "keep"}


def test_an_erasure_that_was_cut_off_goes_on(store: DiskTier, root: Path) -> None:
    store.check()
    for number in range(50):
        (root / f"~gone-old/{number}").mkdir(parents=True)
        (root / f"~gone-old/{number}/file").write_bytes(b"x")
    go_round(store)
    assert not (root / "~gone-old").exists()


def test_a_name_never_outlives_its_value(store: DiskTier, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = put(store)
    (root / NAME).unlink()
    name_it = tree._rename

    def dropped_meanwhile(beside: Path, name: Path) -> None:
        store._tree.drop(f"9f/{value.name}")
        name_it(beside, name)

    monkeypatch.setattr(tree, "_rename", dropped_meanwhile)
    store._tree.publish(KEY, f"9f/{value.name}")
    assert not (root / NAME).exists()
    assert list((root / "~tmp").iterdir()) == []


# ---- hits


def test_a_hit_that_was_verified_asks_the_index_nothing(store: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    settle(store)

    def asked(self: Index, work: object) -> None:
        raise AssertionError("the index was asked")

    monkeypatch.setattr(Index, "ask", asked)
    blob = store.get(KEY)
    assert blob is not None
    with blob:
        assert blob.file.read() == BODY
        assert (blob.item.size, blob.item.type, dict(blob.item.note)) == (len(BODY), "image/webp", {"width": "100"})
        assert os.pread(blob.file.fileno(), 10, 0) == BODY[:10]


def test_what_is_brought_is_open_at_once_and_kept(root: Path) -> None:
    data = os.urandom(300_000)
    hash = hashlib.sha256(data).hexdigest()
    with closing(DiskTier(root, 0, 10**6)) as store:
        for _ in range(2):
            with store.bring(hash, io.BytesIO(data), "image/png") as blob:
                assert (blob.item.key, blob.item.size, blob.item.type) == (hash, len(data), "image/png")
                assert blob.file.read() == data
        found = store.get(hash)
        assert found is not None
        with found:
            assert found.file.read() == data


def test_what_is_brought_and_is_not_what_its_name_says_leaves_nothing(root: Path) -> None:
    with closing(DiskTier(root, 0, 10**6)) as store:
        with pytest.raises(Rotten):
            store.bring("0" * 64, io.BytesIO(b"something else"), "image/png")
        assert list(store.list()) == []
        assert not [path for path in root.rglob("*") if path.is_file() and path.read_bytes() == b"something else"]


def test_what_is_brought_and_too_large_to_keep_is_open_all_the_same(root: Path) -> None:
    data = os.urandom(300_000)
    hash = hashlib.sha256(data).hexdigest()
    with closing(DiskTier(root, 0, 10**5)) as store:
        with store.bring(hash, io.BytesIO(data), "image/png") as blob:
            assert blob.file.read() == data
        assert store.get(hash) is None


def test_what_was_verified_is_verified_again_in_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = DiskTier(root, 1, SIZE, believed=0.05)
    put(tier)
    settle(tier)
    time.sleep(0.06)
    monkeypatch.setattr("imgproxy.stores.disk.tier._verified", lambda *_: False)
    assert tier.get(KEY) is None


def test_what_changed_a_moment_ago_is_not_remembered(store: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    time.sleep(0.06)
    monkeypatch.setattr("imgproxy.stores.disk.tier._RACY", 3600 * 10**9)
    assert body(store, KEY) == BODY
    assert KEY not in store._known
    monkeypatch.setattr("imgproxy.stores.disk.tier._RACY", 0)
    assert body(store, KEY) == BODY
    assert KEY in store._known


def test_no_more_than_so_many_files_are_remembered(store: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgproxy.stores.disk.tier._REMEMBERED", 3)
    for number in range(5):
        put(store, f"abcd{number}")
    for number in range(5):
        settle(store, f"abcd{number}")
    assert list(store._known) == ["abcd2", "abcd3", "abcd4"]


# ---- damage


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1234)
        byte = file.read(1)
        file.seek(1234)
        file.write(bytes([byte[0] ^ 1]))


def truncate(path: Path) -> None:
    os.truncate(path, 1234)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def extend(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def replace(path: Path) -> None:
    path.with_name("other").write_bytes(bytes(len(BODY)))
    path.with_name("other").replace(path)


def zero(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(len(BODY)))


DAMAGE = [flip, truncate, empty, extend, replace, zero]


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "reopened"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_value_is_absent_and_removed(root: Path, damage: Callable[[Path], None], remembered: bool) -> None:
    tier = DiskTier(root, 1, SIZE)
    value = put(tier)
    put(tier, "abcdef", b"the neighbour")
    if remembered:
        settle(tier)
    else:
        tier = DiskTier(root, 1, SIZE)
    damage(value)
    assert tier.get(KEY) is None
    assert tier.head(KEY) is None
    assert not value.exists()
    assert keys(tier) == ["abcdef"]
    go_round(tier)
    assert not (root / NAME).exists()
    put(tier)
    assert body(tier, KEY) == BODY
    assert (root / NAME).read_bytes() == BODY


@pytest.mark.parametrize("damage", DAMAGE)
def test_of_five_hundred_gets_of_damaged_files_none_gives_a_wrong_byte(store: DiskTier, damage: Callable[[Path], None]) -> None:
    names = [f"{number:02x}{number:02x}{KEY}" for number in range(20)]
    values = {name: put(store, name) for name in names}
    time.sleep(0.06)
    for _ in range(25):
        for name in names:
            assert body(store, name) in (BODY, None)
        damaged = names.pop(0)
        damage(values[damaged])
        assert body(store, damaged) is None
        names.append(damaged)
        values[damaged] = put(store, damaged)


def test_a_row_without_its_file_is_absent_and_removed(store: DiskTier, root: Path) -> None:
    value = put(store)
    settle(store)
    value.unlink()
    (root / NAME).unlink()
    assert store.get(KEY) is None
    assert index(root).execute("SELECT COUNT(*) FROM Cache").fetchone() == (0,)
    put(store)
    assert body(store, KEY) == BODY


def test_a_value_that_the_disk_cannot_read_is_absent(store: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)

    def unreadable(*_: object) -> bytes:
        raise OSError(errno.EIO, "medium error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", unreadable)
        assert store.get(KEY) is None
    put(store)
    assert body(store, KEY) == BODY


# ---- orphans


def test_files_that_no_row_knows_are_removed_by_the_hand_and_others_left_alone(store: DiskTier, root: Path) -> None:
    value = put(store)
    lost = put(store, "abcdef")
    index(root).execute("DELETE FROM Cache WHERE key = 'abcdef'")
    shutil.copy(value, value.with_name(f"{KEY}~OLDv"))
    (root / "1/12/34").mkdir(parents=True)
    (root / "1/12/34/1234-of-nobody").write_bytes(b"x")
    go_round(store)
    assert not lost.exists()
    assert not (root / "1/ab").exists()
    assert not (root / "1/12").exists()
    assert [found.path for found in store._tree.values()] == [str(value)]
    assert body(store, KEY) == BODY
    assert (root / NAME).read_bytes() == BODY


def test_puts_alone_move_the_hand(store: DiskTier, root: Path) -> None:
    lost = put(store, "abcdef")
    index(root).execute("DELETE FROM Cache")
    for number in range(12):
        put(store, f"ff{number:02}")
    assert not lost.exists()
    assert len(keys(store)) == 12


def test_a_check_sweeps_drafts_that_were_left_behind(store: DiskTier, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.check()
    (root / "~tmp/left").write_bytes(b"x")
    with (root / "~tmp/written").open("wb") as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        monkeypatch.setattr(files, "STALE", -3600.0)
        store.check()
        assert [path.name for path in (root / "~tmp").iterdir()] == ["written"]


# ---- the bound


def test_the_tier_stays_within_its_size_in_real_bytes(root: Path) -> None:
    size = 8 * 2**20
    tier = DiskTier(root, 1, size)
    largest = 0
    for number in range(400):
        data = os.urandom(1 + number * 7919 % 120_000)
        tier.put(crowd.key_of(number), io.BytesIO(data))
        assert body(tier, crowd.key_of(number)) == data
        if number % 20 == 19:
            largest = max(largest, bytes_on_disk(root))
    slack = 2**20 + 4096 * (256 + 256)  # SQLite's log, and the directories of the first level
    assert size * 0.8 < largest < size + slack
    assert 80 < len(keys(tier)) < 250


def test_what_is_evicted_is_unpublished_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgproxy.stores.disk.hand.Hand.move", lambda self: None)
    tier = DiskTier(root, 1, 2**20)
    for number in range(150):
        put(tier, crowd.key_of(number), b"x" * 20_000)
    published = {found.stem for found in tier._tree.published()}
    assert published == set(keys(tier))
    assert 20 < len(published) < 60


def test_one_large_object_pushes_out_as_many_small_ones_as_it_takes(root: Path) -> None:
    tier = DiskTier(root, 1, 4 * 2**20)
    for number in range(300):
        put(tier, crowd.key_of(number), b"x" * 5000)
    put(tier, KEY, bytes(3 * 2**20))
    assert body(tier, KEY) == bytes(3 * 2**20)
    assert tier._index._opened().rows.volume() <= 4 * 2**20
    assert len(keys(tier)) < 150


def test_what_is_larger_than_the_tier_is_forgotten_and_takes_nothing_else_with_it(root: Path) -> None:
    tier = DiskTier(root, 1, 2**20)
    put(tier)
    put(tier, "abcdef", b"old")
    assert tier.put("abcdef", io.BytesIO(bytes(2**20))) is True
    assert tier.get("abcdef") is None
    assert body(tier, KEY) == BODY


def test_what_python_reads_outlives_what_nobody_reads(root: Path) -> None:
    tier = DiskTier(root, 1, 2 * 2**20, believed=0.0)
    for number in range(150):
        put(tier, crowd.key_of(number), b"x" * 20_000)
        assert body(tier, crowd.key_of(0)) == b"x" * 20_000
    assert tier.get(crowd.key_of(1)) is None


def test_a_use_is_noted_in_the_index_only_once_in_a_while(root: Path) -> None:
    tier = DiskTier(root, 1, SIZE, believed=600.0)
    put(tier)

    def used() -> Any:
        return index(root).execute("SELECT expire_time FROM Cache").fetchone()[0]

    first = used()
    for _ in range(3):
        assert body(DiskTier(root, 1, SIZE), KEY) == BODY
    assert used() == first
    index(root).execute("UPDATE Cache SET expire_time = expire_time - 700")
    assert body(DiskTier(root, 1, SIZE), KEY) == BODY
    assert used() > first


def test_what_nginx_reads_outlives_what_nobody_reads(root: Path) -> None:
    tier = DiskTier(root, 1, 2 * 2**20)
    hot = root / "1" / crowd.key_of(0)[:2] / crowd.key_of(0)[2:4] / crowd.key_of(0)
    for number in range(300):
        put(tier, crowd.key_of(number), b"x" * 20_000)
        assert hot.read_bytes() == b"x" * 20_000
    assert tier.get(crowd.key_of(1)) is None


# ---- a damaged index


def garbage(database: Path) -> None:
    database.write_bytes(os.urandom(50_000))


def torn(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def emptied(database: Path) -> None:
    os.truncate(database, 0)


def removed(database: Path) -> None:
    database.unlink()


def rotten_pages(database: Path) -> None:
    with database.open("r+b") as file:
        for page in range(1, database.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(2000))


def another_program_s(database: Path) -> None:
    database.unlink()
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE Settings (key, value)")
        connection.execute("INSERT INTO Settings VALUES ('eviction_policy', 'none')")
        connection.execute("CREATE TABLE Cache (some, thing)")


def a_directory(database: Path) -> None:
    database.unlink()
    database.mkdir()


HURTS = [garbage, torn, emptied, removed, rotten_pages, another_program_s, a_directory]


def flushed(root: Path) -> None:
    """Bring all of the index into its main file."""
    connection = index(root)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.parametrize("log", ["kept", "lost", "rotten"])
@pytest.mark.parametrize("hurt", HURTS)
def test_a_tier_opened_on_a_damaged_index_forgets_and_works(root: Path, hurt: Callable[[Path], None], log: str) -> None:
    tier = DiskTier(root, 1, SIZE)
    for number in range(100):
        put(tier, crowd.key_of(number))
    tier.close()
    flushed(root)
    hurt(root / "~1/cache.db")
    if log == "rotten":
        (root / "~1/cache.db-wal").write_bytes(os.urandom(40_000))
    elif log == "lost":
        (root / "~1/cache.db-wal").unlink(missing_ok=True)
    tier = DiskTier(root, 1, SIZE)
    works(tier)
    go_round(tier)
    assert not list(root.glob("~gone-*"))


@pytest.mark.parametrize("hurt", HURTS)
def test_a_tier_whose_index_is_damaged_under_it_forgets_and_works(root: Path, hurt: Callable[[Path], None]) -> None:
    tier = DiskTier(root, 1, SIZE)
    for number in range(100):
        put(tier, crowd.key_of(number))
    flushed(root)
    hurt(root / "~1/cache.db")
    works(tier)
    other = DiskTier(root, 1, SIZE)
    works(other)
    works(tier)
    for one, another in ((tier, other), (other, tier)):
        put(one, KEY, b"seen by all")
        assert body(another, KEY) == b"seen by all"
        assert another.delete(KEY) is True


def works(tier: DiskTier) -> None:
    """Assert that a tier gives what it has or nothing, and keeps what it is given."""
    for number in range(100):
        assert body(tier, crowd.key_of(number)) in (BODY, None)
    for number in range(100, 130):
        put(tier, crowd.key_of(number), b"%d" % number)
    for number in range(100, 130):
        assert body(tier, crowd.key_of(number)) == b"%d" % number
    assert tier.delete(crowd.key_of(100)) is True
    assert tier.get(crowd.key_of(100)) is None
    tier.check()


def test_a_tier_whose_directory_is_removed_under_it_begins_anew(store: DiskTier, root: Path) -> None:
    put(store)
    settle(store)
    shutil.rmtree(root)
    assert store.get(KEY) is None
    put(store)
    assert body(store, KEY) == BODY
    assert (root / NAME).read_bytes() == BODY
    shutil.rmtree(root / "~tmp")
    put(store, "abcdef")
    assert body(store, "abcdef") == BODY


def test_an_index_that_others_keep_busy_is_no_failure(store: DiskTier, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_PATIENCE", 0.05)
    tier = DiskTier(root, 1, SIZE, believed=0.0)
    put(tier)
    other = index(root)
    other.execute("BEGIN IMMEDIATE")
    assert body(tier, KEY) == BODY
    assert tier.put("abcdef", io.BytesIO(b"new")) is True
    assert tier.get("abcdef") is None
    assert tier.delete(KEY) is True
    assert tier.get(KEY) is None
    assert not (root / NAME).exists()
    other.execute("COMMIT")
    assert tier.get(KEY) is None
    assert tier.put("abcdef", io.BytesIO(b"new")) is True
    assert body(tier, "abcdef") == b"new"
    assert list((root / "~tmp").iterdir()) == []


# ---- rows that a stranger wrote


class Trap:
    """What must never be unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Trap.sprung),)

    sprung = Path("never")


def test_a_pickled_value_is_never_unpickled_but_absent_and_removed(store: DiskTier, root: Path, tmp_path: Path) -> None:
    Trap.sprung = tmp_path / "sprung"
    put(store)
    connection = index(root)
    connection.execute("UPDATE Cache SET mode = 4, filename = NULL, value = ?", (pickle.dumps(Trap()),))
    assert store.get(KEY) is None
    assert connection.execute("SELECT COUNT(*) FROM Cache").fetchone() == (0,)
    file = put(store)
    file.write_bytes(pickle.dumps(Trap()))
    connection.execute("UPDATE Cache SET mode = 4")
    assert store.get(KEY) is None
    put(store)
    connection.execute("UPDATE Cache SET raw = 0, key = ?", (pickle.dumps(Trap()),))
    assert store.get(KEY) is None
    assert keys(store) == [KEY]
    go_round(store)
    assert keys(store) == []
    assert not Trap.sprung.exists()


@pytest.mark.parametrize(
    "filename",
    ["../../victim", "/etc/passwd", "ab/../../../victim~abcd", "boot", "cache.db", "9f/" + KEY, "ab/abcdef~abcd", b"x", 7, None, ""],
)
def test_a_row_that_names_a_strange_file_neither_gives_nor_removes_it(
    store: DiskTier, root: Path, tmp_path: Path, filename: object
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(BODY)
    put(store)
    neighbour = put(store, "abcdef")
    neighbour.rename(neighbour.with_name("abcdef~abcd"))
    connection = index(root)
    connection.execute("UPDATE Cache SET filename = 'ab/abcdef~abcd' WHERE key = 'abcdef'")
    connection.execute("UPDATE Cache SET filename = ? WHERE key = ?", (filename, KEY))
    assert store.get(KEY) is None
    assert store.put(KEY, io.BytesIO(b"new")) is True
    assert body(store, KEY) == b"new"
    assert victim.read_bytes() == BODY
    assert (root / "~1/boot").exists()


@pytest.mark.parametrize(
    "tag", [None, "", "x", "7", "[]", "[1,2,3,4]", '["a","b","c",{}]', b"\xff", '[25600,"00","",{}]', '[25600,null,"",7]']
)
def test_a_row_with_a_strange_tag_is_absent(store: DiskTier, root: Path, tag: object) -> None:
    put(store)
    index(root).execute("UPDATE Cache SET tag = ?", (tag,))
    assert store.get(KEY) is None
    put(store)
    assert body(store, KEY) == BODY


@pytest.mark.parametrize("column", ["expire_time", "size", "mode", "store_time", "access_time", "raw", "key"])
@pytest.mark.parametrize("value", [None, "x", b"x", -1, 0, 2**62, 1e300])
def test_no_strange_value_in_a_row_makes_the_tier_fail(store: DiskTier, root: Path, column: str, value: object) -> None:
    put(store)
    index(root).execute(f"UPDATE Cache SET {column} = ?", (value,))
    assert body(store, KEY) in (BODY, None)
    store.put(KEY, io.BytesIO(b"new"))
    assert body(store, KEY) in (b"new", None)
    go_round(store)
    store.check()


@pytest.mark.parametrize("setting", ["size", "count", "size_limit", "eviction_policy", "cull_limit", "statistics", "sqlite_journal_mode"])
@pytest.mark.parametrize("value", [None, "x", b"x", -1, 2**62])
def test_no_strange_setting_in_the_index_makes_the_tier_fail(root: Path, setting: str, value: object) -> None:
    tier = DiskTier(root, 1, SIZE)
    put(tier)
    index(root).execute("UPDATE Settings SET value = ? WHERE key = ?", (value, setting))
    for _ in range(2):
        tier.put("abcdef", io.BytesIO(b"new"))
        assert body(tier, KEY) in (BODY, None)
    tier = DiskTier(root, 1, SIZE)
    assert body(tier, KEY) in (BODY, None)
    tier.put(KEY, io.BytesIO(BODY))
    put(tier)
    assert body(tier, KEY) == BODY
    tier.check()


# ---- a full or failing disk


def raising(code: int) -> Callable[..., Any]:
    def broken(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "/very/secret/path")

    return broken


@pytest.mark.parametrize(("code", "trouble"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreDown)])
@pytest.mark.parametrize("fault", [(files, "write"), (os, "link"), (os, "fchmod")], ids=["write", "link", "chmod"])
def test_a_disk_that_cannot_be_written_is_trouble_and_leaves_nothing(
    store: DiskTier, root: Path, monkeypatch: pytest.MonkeyPatch, fault: tuple[object, str], code: int, trouble: type[Exception]
) -> None:
    put(store)
    monkeypatch.setattr("imgproxy.stores.disk.tier.write", files.write)
    with monkeypatch.context() as patch:
        patch.setattr(*fault, raising(code))
        if fault[1] == "write":
            patch.setattr("imgproxy.stores.disk.tier.write", raising(code))
        with pytest.raises(trouble) as caught:
            store.put("abcdef", io.BytesIO(BODY))
    assert "secret" not in str(caught.value)
    assert store.get("abcdef") is None
    assert list((root / "~tmp").iterdir()) == []
    assert keys(store) == ([] if trouble is StoreFull else [KEY])  # on a full disk the tier gives up what it has
    assert body(store, KEY) == (None if trouble is StoreFull else BODY)
    put(store, "abcdef")
    assert body(store, "abcdef") == BODY


def test_a_value_whose_row_cannot_be_written_goes_at_once(store: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree.Tree, "make_room", lambda self, wanted: True)
    monkeypatch.setattr("imgproxy.stores.disk.hand.Hand.move", lambda self: None)
    put(store)
    opened = store._index._opened()
    pages = opened.rows._cache._sql("PRAGMA page_count").fetchone()[0]
    opened.rows._cache._sql(f"PRAGMA max_page_count={pages}")
    full = 0
    for number in range(100):
        try:
            store.put(crowd.key_of(number), io.BytesIO(b"x" * 100), note={"long": "x" * 500})
        except StoreFull:
            full += 1
            assert store.get(crowd.key_of(number)) is None
    assert full > 0
    assert {found.stem for found in store._tree.values()} == {found.stem for found in store._tree.published()}


FULL_DISK = """
import io, os, subprocess, sys
from pathlib import Path
from imgproxy.errors import StoreFull
from imgproxy.stores.disk import DiskTier
place = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)
tier = DiskTier(place / "tier", 1, 64 * 2**20)
full = 0
for number in range(300):
    key, data = f"{number:04}", (b"%04d" % number) * 2500
    try:
        tier.put(key, io.BytesIO(data))
    except StoreFull:
        full += 1
    for seen in (key, f"{number // 2:04}"):
        blob = tier.get(seen)
        if blob:
            with blob:
                assert blob.file.read() == seen.encode() * 2500, seen
kept = [item.key for item in tier.list()]
assert 30 < len(kept) < 150, len(kept)
assert 0 < full < 60, full
assert not list((place / "tier/~tmp").iterdir())
for key in kept:
    tier.delete(key)
tier.put("again", io.BytesIO(b"there is room"))
assert tier.get("again").file.read() == b"there is room"
tier.check()
print("held", flush=True)
os._exit(0)
"""


FULL_OF_OTHERS = """
import io, os, subprocess, sys
from pathlib import Path
from imgproxy.errors import StoreTrouble
from imgproxy.stores.disk import DiskTier
place = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)
with (place / "another's").open("wb", buffering=0) as other:
    try:
        while other.write(bytes(4096)):
            pass
    except OSError:
        pass
for _ in range(2):
    tier = DiskTier(place / "tier", 1, 64 * 2**20)
    for number in range(3):
        try:
            tier.put(str(number), io.BytesIO(b"x" * 5000))
        except StoreTrouble:
            pass
        try:
            assert tier.get(str(number)) is None
        except StoreTrouble:
            pass
(place / "another's").unlink()
tier.put("again", io.BytesIO(b"there is room"))
assert tier.get("again").file.read() == b"there is room"
tier.check()
print("held", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("program", [FULL_DISK, FULL_OF_OTHERS], ids=["of ours", "of others' files from the beginning"])
def test_a_disk_that_is_full_is_trouble_and_the_tier_goes_on(tmp_path: Path, program: str) -> None:
    alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    done = subprocess.run([*alone, sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("held\n", "")


# ---- many at once


def test_threads_put_get_and_evict_at_once(root: Path) -> None:
    tier = DiskTier(root, 1, 400_000, believed=0.01)
    wrong: list[int] = []

    def use(seed: int) -> None:
        for turn in range(120):
            number = (turn * 7 + seed * 13) % 30
            if turn % 3 == 0:
                tier.put(crowd.key_of(number), io.BytesIO(crowd.body_of(number, turn)))
            got = body(tier, crowd.key_of(number))
            if got is not None and not crowd.is_whole(number, got):
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    consistent(tier)


def consistent(tier: DiskTier) -> None:
    """Assert that, once the hand has gone round, rows, values and names tell the same."""
    go_round(tier)
    files_say = tier._tree
    rows_say = dict(index(files_say.root).execute("SELECT key, filename FROM Cache").fetchall())
    values = {found.stem: os.path.relpath(found.path, files_say.index) for found in files_say.values()}
    assert values.items() <= rows_say.items()
    for found in files_say.published():
        assert Path(found.path).stat().st_ino == Path(files_say.value(values[found.stem])).stat().st_ino
    for filename in values.values():
        assert key_of_file(filename) is not None


FORKED = """
import io, os, sys
from pathlib import Path
from imgproxy.stores.disk import DiskTier
tier = DiskTier(Path(sys.argv[1]), 1, 10**7)
tier.put("before", io.BytesIO(b"parent"))
inherited = tier._index._now.rows
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        assert tier.get("before").file.read() == b"parent"
        assert tier._index._now.rows is not inherited
        for turn in range(30):
            tier.put(f"child{number}", io.BytesIO(b"%d" % turn * 1000))
            assert tier.get(f"child{number}").file.read() == b"%d" % turn * 1000
        sys.exit(0)
    children.append(child)
for turn in range(30):
    tier.put("parent", io.BytesIO(b"%d" % turn * 1000))
for child in children:
    assert os.waitpid(child, 0)[1] == 0
for number in range(3):
    assert tier.get(f"child{number}").file.read() == b"29" * 1000
assert tier.get("parent").file.read() == b"29" * 1000
print([item.key for item in tier.list()])
"""


def test_a_process_may_fork_with_the_tier_open(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, str(root)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("['before', 'child0', 'child1', 'child2', 'parent']\n", "")


def test_processes_use_it_at_once_and_are_killed_and_no_wrong_byte_is_given(root: Path) -> None:
    size = 500_000
    processes: list[subprocess.Popen[str]] = []
    said = ""

    def started(seed: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.stores.crowd", str(root), str(size), str(seed)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def killed(process: subprocess.Popen[str], dots: int) -> str:
        assert process.stdout is not None
        heard = "".join(process.stdout.readline() for _ in range(dots))
        time.sleep(0.0017 * dots)
        process.send_signal(signal.SIGKILL)
        return heard + process.communicate(timeout=30)[0]

    try:
        processes += [started(seed) for seed in range(3)]
        for turn in range(8):
            said += killed(processes.pop(0), 3 + turn)
            processes.append(started(10 + turn))
    finally:
        said += "".join(killed(process, 5) for process in processes)
    assert set(said.split()) == {"."}
    assert said.count(".") >= sum(range(3, 11)) + 15
    tier = DiskTier(root, 1, size)
    for number in range(crowd.KEYS):
        got = body(tier, crowd.key_of(number))
        assert got is None or crowd.is_whole(number, got)
    for number in range(40):
        tier.put(f"more{number}", io.BytesIO(b"x"))
    assert tier._index._opened().rows.volume() <= size
    consistent(tier)
