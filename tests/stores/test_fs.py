"""The store on a file system: the conformance suite in both layouts, and what it promises besides."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgproxy.errors import StoreDown, StoreFull
from imgproxy.stores import files
from imgproxy.stores.files import nameless
from imgproxy.stores.fs import FsStore
from tests.stores.conformance import HASH, body, keys
from tests.stores.conformance import TestConformance as TestConformance


@pytest.fixture(params=[True, False], ids=["fanned", "plain"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FsStore:
    return FsStore(tmp_path / "store", fanned=request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def everything(root: Path) -> dict[str, bytes]:
    """Every file below the root but the locks, by its path."""
    paths = (path for path in root.rglob("*") if path.is_file() and "~locks" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


# ---- where things lie


def test_an_original_lies_in_a_plain_file_named_after_its_key(root: Path) -> None:
    FsStore(root).put(HASH, io.BytesIO(b"original"))
    assert everything(root) == {f"9f/86/{HASH}": b"original"}


def test_without_fanning_a_key_is_a_path(root: Path) -> None:
    store = FsStore(root, fanned=False)
    store.put("commits/000001", io.BytesIO(b"commit"))
    store.put("lease", io.BytesIO(b"lease"))
    assert everything(root) == {"commits/000001": b"commit", "lease": b"lease"}


def test_without_fanning_no_key_can_go_on_where_another_ends(root: Path) -> None:
    store = FsStore(root, fanned=False)
    store.put("a/b", io.BytesIO(b"body"))
    for create in (False, True):
        with pytest.raises(ValueError, match="other keys begin with it"):
            store.put("a", io.BytesIO(b"x"), create=create)
        with pytest.raises(ValueError, match="another key ends"):
            store.put("a/b/c", io.BytesIO(b"x"), create=create)
    assert everything(root) == {"a/b": b"body"}


def test_what_strangers_leave_in_the_directories_is_no_object(store: FsStore, root: Path) -> None:
    store.put("abcdef", io.BytesIO(b"body"))
    ours = next(path for path in root.rglob("abcdef"))
    for name in ("README", "Thumbs.db", "abcdeg~", "~x", "a b", "zzz,,", "core.\n"):
        (ours.parent / name).write_bytes(b"x")
        (root / name).write_bytes(b"x")
    (root / "Lost and Found").mkdir()
    (root / "Lost and Found" / "abcd").write_bytes(b"x")
    os.mkfifo(ours.parent / "abcdpipe")
    assert keys(store) == ["abcdef"]
    assert store.get("abcdpipe") is None


def test_a_link_in_the_place_of_an_object_is_no_object(root: Path, tmp_path: Path) -> None:
    store = FsStore(root)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    store.put("abcdef", io.BytesIO(b"body"))
    (root / "ab/cd/abcdeg").symlink_to(secret)
    assert store.get("abcdeg") is None
    assert store.head("abcdeg") is None
    assert keys(store) == ["abcdef"]
    store.put("abcdeg", io.BytesIO(b"mine"))
    assert secret.read_bytes() == b"secret"
    assert body(store, "abcdeg") == b"mine"


def test_a_blob_is_a_real_file_at_its_beginning(store: FsStore) -> None:
    store.put("abcdef", io.BytesIO(b"0123456789"))
    blob = store.get("abcdef")
    assert blob is not None
    with blob:
        assert blob.file.tell() == 0
        assert os.pread(blob.file.fileno(), 100, 0) == b"0123456789"
        assert blob.file.seek(5) == 5
        assert blob.file.read() == b"56789"


def test_an_open_blob_outlives_overwriting_and_deletion(store: FsStore) -> None:
    store.put("abcdef", io.BytesIO(b"old"))
    blob = store.get("abcdef")
    assert blob is not None
    store.put("abcdef", io.BytesIO(b"new and longer"))
    store.delete("abcdef")
    with blob:
        assert blob.file.read() == b"old"


# ---- notes


def test_objects_without_words_have_no_notes_on_disk(root: Path) -> None:
    store = FsStore(root)
    store.put("abcdef", io.BytesIO(b"body"))
    assert not (root / "~notes").exists()
    store.put("abcdeg", io.BytesIO(b"body"), type="image/png")
    assert [path for path in everything(root) if path.startswith("~")] == ["~notes/ab/cd/abcdeg"]
    store.delete("abcdeg")
    assert [path for path in everything(root) if path.startswith("~")] == []


def test_old_bytes_are_never_read_with_new_words(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FsStore(root)
    store.put("abcdef", io.BytesIO(b"old"), type="image/png", note={"width": "1"})
    replace = Path.replace

    def cut_off(self: Path, target: Path) -> Path:
        if "~notes" not in Path(target).parts:
            raise OSError(errno.EIO, "cut off")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut_off)
        with pytest.raises(StoreDown):
            store.put("abcdef", io.BytesIO(b"new"), type="image/gif", note={"width": "2"})
    item = FsStore(root).head("abcdef")
    assert item is not None
    assert (item.size, item.type, dict(item.note)) == (3, "image/png", {"width": "1"})
    store.put("abcdef", io.BytesIO(b"newer"), type="image/webp")
    item = store.head("abcdef")
    assert item is not None
    assert (item.size, item.type, dict(item.note)) == (5, "image/webp", {})


def test_words_survive_a_copy_of_the_tree_that_loses_the_times(root: Path, tmp_path: Path) -> None:
    FsStore(root).put("abcdef", io.BytesIO(b"body"), type="image/png", note={"width": "1"})
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    item = FsStore(tmp_path / "copy").head("abcdef")
    assert item is not None
    assert (item.type, dict(item.note)) == ("image/png", {"width": "1"})


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"7", b'{"1": 2}', b'{"1": ["image/png"]}', b'{"1": ["a", 7]}', b"\xff\xfe"])
def test_damaged_notes_say_nothing_and_hurt_nobody(root: Path, damage: bytes) -> None:
    store = FsStore(root)
    store.put("abcdef", io.BytesIO(b"body"), type="image/png")
    (root / "~notes/ab/cd/abcdef").write_bytes(damage)
    item = store.head("abcdef")
    assert item is not None
    assert (item.type, dict(item.note)) == ("", {})
    assert body(store, "abcdef") == b"body"
    store.put("abcdef", io.BytesIO(b"more"), type="image/gif")
    item = store.head("abcdef")
    assert item is not None
    assert item.type == "image/gif"


# ---- durability


class Recorder:
    """Writes down, in order, what is synced and what gets its name, while it really happens."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.events: list[str] = []
        fsync, link, replace = os.fsync, os.link, Path.replace

        def synced(descriptor: int) -> None:
            self.events.append(f"sync {self._short(str(Path(f'/proc/self/fd/{descriptor}').readlink()))}")
            fsync(descriptor)

        def linked(source: Path, target: Path) -> None:
            self.events.append(f"name {self._short(str(target))}")
            link(source, target)

        def replaced(path: Path, target: Path) -> Path:
            self.events.append(f"name {self._short(str(target))}")
            return replace(path, target)

        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "link", linked)
        patch.setattr(Path, "replace", replaced)

    def _short(self, path: str) -> str:
        short = os.path.relpath(path, self.root)
        return "draft" if short.startswith("~tmp/") else short


@pytest.mark.parametrize("create", [True, False])
def test_an_object_is_synced_before_it_is_named_and_its_name_before_put_returns(
    root: Path, monkeypatch: pytest.MonkeyPatch, create: bool
) -> None:
    store = FsStore(root)
    recorder = Recorder(root, monkeypatch)
    store.put("abcdef", io.BytesIO(b"body"), create=create)
    assert recorder.events == ["sync ab", "sync .", "sync draft", "name ab/cd/abcdef", "sync ab/cd"]
    recorder.events.clear()
    store.put("abcdeg", io.BytesIO(b"body"), create=create)
    assert recorder.events == ["sync draft", "name ab/cd/abcdeg", "sync ab/cd"]


def test_a_note_is_durable_before_its_object_has_a_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FsStore(root)
    store.put("abcdef", io.BytesIO(b"body"), type="image/png")
    recorder = Recorder(root, monkeypatch)
    store.put("abcdeg", io.BytesIO(b"body"), type="image/png")
    assert recorder.events == [
        "sync draft",
        "sync draft",
        "name ~notes/ab/cd/abcdeg",
        "sync ~notes/ab/cd",
        "name ab/cd/abcdeg",
        "sync ab/cd",
    ]


def test_directories_that_another_process_made_are_synced_as_well(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FsStore(root)
    (root / "ab/cd").mkdir(parents=True)
    recorder = Recorder(root, monkeypatch)
    store.put("abcdef", io.BytesIO(b"body"))
    assert recorder.events[:2] == ["sync ab", "sync ."]


def test_a_deletion_is_synced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FsStore(root)
    store.put("abcdef", io.BytesIO(b"body"))
    recorder = Recorder(root, monkeypatch)
    store.delete("abcdef")
    assert recorder.events == ["sync ab/cd"]


WRITER = """
import io, sys, hashlib
from pathlib import Path
from imgproxy.stores.fs import FsStore
store = FsStore(Path(sys.argv[1]))
number = int(sys.argv[2]) * 1_000_000
while True:
    data = hashlib.sha256(str(number).encode()).digest() * 8000
    key = hashlib.sha256(data).hexdigest()
    store.put(key, io.BytesIO(data), type="image/png", note={"width": str(number)})
    print(key, number, flush=True)
    number += 1
"""


def test_a_killed_writer_leaves_whole_objects_and_every_acknowledged_one(root: Path) -> None:
    acknowledged: dict[str, str] = {}
    for turn in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(root), str(turn)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        with writer.stdout as lines:
            for _ in range(3 + turn):
                key, number = lines.readline().split()
                acknowledged[key] = number
            time.sleep(0.003 * turn)
            writer.send_signal(signal.SIGKILL)
            acknowledged |= dict(line.split() for line in lines if line.endswith("\n"))
        writer.wait(30)
    store = FsStore(root)
    listed = keys(store)
    for key in listed:
        assert hashlib.sha256(body(store, key) or b"").hexdigest() == key
    assert set(acknowledged) <= set(listed)
    assert len(listed) - len(acknowledged) <= 6
    for key, number in acknowledged.items():
        item = store.head(key)
        assert item is not None
        assert (item.type, dict(item.note)) == ("image/png", {"width": number})


CREATOR = """
import io, sys
from pathlib import Path
from imgproxy.stores.fs import FsStore
store = FsStore(Path(sys.argv[1]))
mine = sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    if store.put(f"{number:04}", io.BytesIO(mine.encode() * 1000), type=f"image/{mine}", create=True):
        print(number, flush=True)
"""


def test_of_two_processes_that_create_one_key_exactly_one_is_first(root: Path) -> None:
    creators = {
        mine: subprocess.Popen([sys.executable, "-c", CREATOR, str(root), mine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for mine in ("left", "right")
    }
    for creator in creators.values():
        assert creator.stdout is not None
        assert creator.stdout.readline() == "ready\n"
    for creator in creators.values():
        assert creator.stdin is not None
        creator.stdin.write("go\n")
        creator.stdin.flush()
    won = {mine: creator.communicate(timeout=60)[0].split() for mine, creator in creators.items()}
    assert sorted(map(int, won["left"] + won["right"])) == list(range(60))
    store = FsStore(root)
    for mine, numbers in won.items():
        for number in numbers:
            item = store.head(f"{int(number):04}")
            assert item is not None
            assert item.type == f"image/{mine}"
            assert body(store, f"{int(number):04}") == mine.encode() * 1000


# ---- trouble


def raising(code: int) -> Callable[..., Any]:
    def broken(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "/very/secret/path")

    return broken


FAULTS: dict[str, tuple[object, str]] = {
    "the draft cannot be written": (files, "write"),
    "the draft cannot be synced": (os, "fsync"),
    "the object cannot be named": (Path, "replace"),
    "no directory can be made": (Path, "mkdir"),
}


@pytest.mark.parametrize(
    ("code", "trouble"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreDown), (errno.EACCES, StoreDown)]
)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_fails_while_writing_is_said_without_a_path_and_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: int, trouble: type[Exception]
) -> None:
    store = FsStore(root)
    before = everything(root)
    with monkeypatch.context() as patch:
        patch.setattr(*FAULTS[fault], raising(code))
        with pytest.raises(trouble) as caught:
            store.put("abcdef", io.BytesIO(b"body" * 1000))
    assert "/" not in str(caught.value).replace("Input/output", "")
    assert isinstance(caught.value.__cause__, OSError)
    assert everything(root) == before
    assert store.get("abcdef") is None
    assert store.put("abcdef", io.BytesIO(b"body")) is True


FULL = """
import io, resource, sys
from pathlib import Path
from imgproxy.errors import StoreDown
from imgproxy.stores.fs import FsStore
store = FsStore(Path(sys.argv[1]))
store.put("abcdef", io.BytesIO(b"old"), type="image/png")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.put("abcdef", io.BytesIO(bytes(150_000)), type="image/gif")
except StoreDown as error:
    print(error)
store.put("abcdeg", io.BytesIO(bytes(90_000)))
"""


def test_a_write_that_the_system_cuts_short_leaves_the_old_version(root: Path) -> None:
    said = subprocess.run([sys.executable, "-c", FULL, str(root)], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said == "the store's disk cannot be used: File too large\n"
    store = FsStore(root)
    assert body(store, "abcdef") == b"old"
    item = store.head("abcdef")
    assert item is not None
    assert item.type == "image/png"
    assert keys(store) == ["abcdef", "abcdeg"]
    assert list((root / "~tmp").iterdir()) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_what_cannot_be_read_is_never_called_absent(store: FsStore, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    store.put("abcdef", io.BytesIO(b"body"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", raising(code))
        patch.setattr(Path, "lstat", raising(code))
        patch.setattr(os, "scandir", raising(code))
        for ask in (lambda: store.get("abcdef"), lambda: store.head("abcdef"), lambda: keys(store)):
            with pytest.raises(StoreDown) as caught:
                ask()
            assert "secret" not in str(caught.value)
    assert body(store, "abcdef") == b"body"


def test_a_directory_that_went_away_is_trouble_and_not_an_empty_store(store: FsStore, root: Path) -> None:
    store.put("abcdef", io.BytesIO(b"body"))
    root.rename(root.with_name("elsewhere"))
    for ask in (
        lambda: store.get("abcdef"),
        lambda: store.head("abcdef"),
        lambda: store.delete("abcdef"),
        lambda: keys(store),
        lambda: store.put("abcdeg", io.BytesIO(b"body")),
        store.check,
    ):
        with pytest.raises(StoreDown, match="is not there"):
            ask()
    assert not root.exists()
    root.mkdir()  # what an unmounted disk looks like
    with pytest.raises(StoreDown, match="is not there"):
        store.get("abcdef")
    root.rmdir()
    root.with_name("elsewhere").rename(root)
    store.check()
    assert body(store, "abcdef") == b"body"


def test_a_store_that_could_not_be_made_at_first_is_made_by_a_later_check(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_bytes(b"a file in the way")
    store = FsStore(tmp_path / "blocked" / "store")
    with pytest.raises(StoreDown):
        store.check()
    with pytest.raises(StoreDown):
        store.get("abcdef")
    (tmp_path / "blocked").unlink()
    store.check()
    assert store.get("abcdef") is None


def test_the_error_of_a_source_stays_its_own(store: FsStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("the uploader has gone")

    with pytest.raises(ConnectionResetError, match="the uploader has gone"):
        store.put("abcdef", Broken())
    assert keys(store) == []


def test_a_check_sweeps_what_was_left_behind_but_nothing_that_is_being_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FsStore(root)
    for name in ("left-behind", "still-written"):
        (root / "~tmp" / name).write_bytes(b"half an obj")
    store.check()
    assert {path.name for path in (root / "~tmp").iterdir()} == {"left-behind", "still-written"}
    with (root / "~tmp/still-written").open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        monkeypatch.setattr(files, "STALE", -3600.0)
        store.check()
        assert {path.name for path in (root / "~tmp").iterdir()} == {"still-written"}
    store.check()
    assert list((root / "~tmp").iterdir()) == []


# ---- listing


def test_what_is_being_written_is_not_listed(store: FsStore) -> None:
    seen: list[list[str]] = []

    class Curious(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.append(keys(store))
            return super().read(size)

    store.put("abcdef", Curious(b"body"))
    assert seen == [[], []]


def test_a_directory_larger_than_a_page_is_listed_in_order(store: FsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"aaaa{number:03}" for number in range(100)]
    for name in names:
        store.put(name, io.BytesIO(b""))
    for page in (1, 7, 50, 99, 100, 101):
        monkeypatch.setattr(files, "PAGE", page)
        assert keys(store) == names
        assert keys(store, "aaaa05", "aaaa053") == names[54:60]


def test_prefix_and_after_skip_whole_directories(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FsStore(root)
    for number in range(0, 4096, 37):
        store.put(f"{number:03x}x", io.BytesIO(b""))
    scandir, scanned = os.scandir, []

    def counted(path: str) -> Any:
        scanned.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    assert keys(store, "000x") == ["000x"]
    assert len(scanned) == 3
    scanned.clear()
    assert keys(store, "", "fe") == ["fe6x"]
    assert len(scanned) <= 4


def test_the_memory_of_a_listing_does_not_grow_with_the_objects(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAGE", 200)
    peaks = []
    for objects in (600, 3_600):
        store = FsStore(root / str(objects), fanned=False)
        for number in range(objects):
            (root / str(objects) / f"{number:06}").touch()
        tracemalloc.start()
        assert sum(1 for _ in store.list()) == objects
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5


def test_a_file_that_never_had_a_name_is_kept_as_it_is(tmp_path: Path) -> None:
    store = FsStore(tmp_path / "store")
    (tmp_path / "spool").mkdir()
    with nameless(tmp_path / "spool") as file:
        file.write(b"some bytes")
        file.seek(0)
        inode = os.fstat(file.fileno()).st_ino
        assert store.put("a/b", file, type="text/plain", note={"a": "b"}, create=True)
        file.seek(0)
        assert not store.put("a/b", file, create=True)
    found = store.get("a/b")
    assert found is not None
    with found:
        assert (found.file.read(), found.item.type, dict(found.item.note)) == (b"some bytes", "text/plain", {"a": "b"})
        assert os.fstat(found.file.fileno()).st_ino == inode
    assert list((tmp_path / "store" / "~tmp").iterdir()) == []
    assert list((tmp_path / "spool").iterdir()) == []
