"""An export: a tree for people, whole files only, run again without doing anything twice."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from imgproxy.errors import Busy, Missing, Rotten, StoreDown
from imgproxy.exporting import Export, day, name
from imgproxy.stores import Blob, Store
from imgproxy.stores.fs import FsStore
from imgproxy.stores.memory import MemoryStore
from tests.meta.making import body, hash_of, record


def kept(base: Store, *numbers: int) -> None:
    for number in numbers:
        base.put(hash_of(number), BytesIO(body(number)), type="image/jpeg")


def tree(root: Path) -> dict[str, bytes]:
    """All files that people see."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and ".export" not in path.parts}


def exported(base: Store, root: Path, *records: Any, link: bool = True) -> list[str | None]:
    export = Export(base, root, link=link)
    with export.open():
        paths = [export.keep(one) for one in records]
    return [str(path) if path else None for path in paths]


@pytest.fixture
def base(tmp_path: Path) -> FsStore:
    store = FsStore(tmp_path / "base")
    kept(store, 1, 2, 3)
    return store


SHORT = [hash_of(number)[:12] for number in range(4)]


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"taken_at": "2024-05-17T13:45:00+02:00", "title": "Red sun, over the sea!"}, f"2024/05/17/red-sun-over-the-sea-{SHORT[1]}.jpg"),
        ({"taken_at": "1899-12-31T23:59:59", "domain": "shop", "dkey": "art/42 B"}, f"1899/12/31/art-42-b-{SHORT[1]}.jpg"),
        ({"title": "東京 2024"}, f"2000/01/01/東京-2024-{SHORT[1]}.jpg"),
        ({"title": "../../../etc/passwd"}, f"2000/01/01/etc-passwd-{SHORT[1]}.jpg"),
        ({"title": "...", "domain": "d", "dkey": "k"}, f"2000/01/01/k-{SHORT[1]}.jpg"),
        ({"title": "\u202e\U0001f600 \t"}, f"2000/01/01/{SHORT[1]}.jpg"),
        ({}, f"2000/01/01/{SHORT[1]}.jpg"),
    ],
)
def test_a_picture_lies_under_its_day_and_a_name_that_can_be_read(said: dict[str, str], path: str) -> None:
    one = record(1, **said)
    assert f"{day(one)}/{name(one)}" == path


def test_a_long_title_is_cut_where_a_character_ends() -> None:
    for title in ("ü" * 900, "東" * 900, "word " * 200):
        file = name(record(1, title=title))
        assert len(file.encode()) < 200
        assert file.endswith(f"-{SHORT[1]}.jpg")
        assert "--" not in file


def test_what_is_there_is_left_alone_and_what_is_new_is_added(base: FsStore, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    first = exported(base, root, record(1, title="one"), record(2, taken_at="2024-05-17T00:00:00"))
    assert first == [f"2000/01/01/one-{SHORT[1]}.jpg", f"2024/05/17/{SHORT[2]}.jpg"]
    again = exported(base, root, record(1, title="another title"), record(2, taken_at="2024-05-17T00:00:00"), record(3))
    assert again == [None, None, f"2000/01/01/{SHORT[3]}.jpg"]
    assert tree(root) == {str(first[0]): body(1), str(first[1]): body(2), str(again[2]): body(3)}


def test_what_is_not_whole_is_made_again(base: FsStore, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (path,) = exported(base, root, record(1), link=False)
    (root / str(path)).write_bytes(body(1)[:3])
    assert exported(base, root, record(1)) == [path]
    (root / str(path)).unlink()
    assert exported(base, root, record(1)) == [path]
    assert tree(root) == {path: body(1)}


def test_on_one_file_system_it_is_the_stores_own_file_and_read_only(base: FsStore, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (path,) = exported(base, root, record(1))
    facts = (root / str(path)).stat()
    assert facts.st_nlink == 2
    assert stat.S_IMODE(facts.st_mode) & 0o222 == 0
    base.put(hash_of(1), BytesIO(body(1)), type="image/png")
    assert base.delete(hash_of(1))
    assert tree(root) == {path: body(1)}


def test_a_copy_is_a_file_of_its_own(base: FsStore, tmp_path: Path) -> None:
    (path,) = exported(base, tmp_path / "tree", record(1), link=False)
    facts = (tmp_path / "tree" / str(path)).stat()
    assert (facts.st_nlink, stat.S_IMODE(facts.st_mode) & 0o200) == (1, 0o200)


def test_out_of_a_store_that_is_no_directory_come_copies(tmp_path: Path) -> None:
    memory = MemoryStore()
    kept(memory, 1)
    (path,) = exported(memory, tmp_path / "tree", record(1))
    assert tree(tmp_path / "tree") == {path: body(1)}


@pytest.mark.parametrize("other", [path for path in map(Path, ("/dev/shm", "/run", "/tmp")) if os.access(path, os.W_OK)], ids=str)
def test_from_one_file_system_to_another_come_copies_too(base: FsStore, tmp_path: Path, other: Path) -> None:
    with tempfile.TemporaryDirectory(dir=other) as root:
        (path,) = exported(base, Path(root), record(1))
        assert tree(Path(root)) == {path: body(1)}
        linked = Path(root).stat().st_dev == tmp_path.stat().st_dev
        assert (Path(root) / str(path)).stat().st_nlink == 1 + linked


@pytest.mark.parametrize("link", [True, False])
def test_what_has_rotted_is_not_laid_out(base: FsStore, tmp_path: Path, link: bool) -> None:
    rotten = replace(record(1), hash=hashlib.sha256(b"what it was").hexdigest())
    base.put(rotten.hash, BytesIO(b"what it is"))
    export = Export(base, tmp_path / "tree", link=link)
    with export.open():
        with pytest.raises(Rotten):
            export.keep(rotten)
        with pytest.raises(Missing):
            export.keep(record(0))
        assert export.keep(record(1)) is not None
    assert list(tree(tmp_path / "tree").values()) == [body(1)]
    assert sorted(path.name for path in (tmp_path / "tree" / ".export").iterdir()) == ["lock"]


def test_a_store_that_stops_in_the_middle_leaves_nothing_half(tmp_path: Path) -> None:
    class Cut(MemoryStore):
        def get(self, key: str, *, fresh: bool = False) -> Blob | None:
            blob = super().get(key, fresh=fresh)
            assert blob is not None

            class File(BytesIO):
                def read(self, size: int | None = -1, /) -> bytes:
                    data = super().read(5)
                    if not data:
                        raise StoreDown("it stopped")
                    return data

            file: BinaryIO = File(blob.file.read())
            return Blob(blob.item, file)

    cut = Cut(2**20)
    kept(cut, 1)
    with pytest.raises(StoreDown):
        exported(cut, tmp_path / "tree", record(1))
    assert tree(tmp_path / "tree") == {}
    whole = MemoryStore()
    kept(whole, 1)
    (path,) = exported(whole, tmp_path / "tree", record(1))
    assert tree(tmp_path / "tree") == {path: body(1)}


def test_a_tree_is_written_by_one_at_a_time(base: FsStore, tmp_path: Path) -> None:
    one, other = (Export(base, tmp_path / "tree", link=True) for _ in range(2))
    with one.open(), pytest.raises(Busy), other.open():
        pass
    with other.open():
        assert other.keep(record(1)) is not None
