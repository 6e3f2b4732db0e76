"""The store in Swift, against a real one: the conformance suite, its containers, listings, deletions, and what its notes may be."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from swiftclient import Connection  # type: ignore[import-untyped]

from imgproxy.errors import BadSettings, StoreDown, StoreFull, TooMuch
from imgproxy.stores.swift import Container, Swift, SwiftStore
from tests.stores.conformance import HASH, Promises, body, keys, soon
from tests.stores.conformance import TestConformance as TestConformance
from tests.swift_fixtures import PATIENCE, account_of, new_store, swift_box
from tests.swift_fixtures import swift as swift
from tests.swift_fixtures import swift_box_1 as swift_box_1
from tests.swiftbox import Shape, SwiftBox


@pytest.fixture
def promises() -> Promises:
    return Promises(atomic_create=False)


@pytest.fixture
def store(swift: Swift) -> SwiftStore:
    return new_store(swift)


@pytest.fixture
def client(swift_box_1: SwiftBox) -> Connection:
    """The client library by itself, for what the store would never do."""
    info = swift_box_1.info
    connection = Connection(info["auth_url"], info["user"], info["key"], timeout=5)
    yield connection
    connection.close()


def some_name() -> str:
    return "t-" + uuid.uuid4().hex


# ---- containers


def test_a_missing_container_is_made_with_its_policy(swift: Swift, client: Connection) -> None:
    container = Container(some_name(), policy="silver1")
    assert SwiftStore(container, swift).prepare() == []
    assert client.head_container(container.name)["x-storage-policy"] == "silver1"
    assert SwiftStore(container, swift).prepare() == []


def test_a_container_of_another_policy_is_used_with_a_warning(swift: Swift) -> None:
    name = some_name()
    SwiftStore(Container(name, policy="gold"), swift).prepare()
    warning = SwiftStore(Container(name, policy="silver1"), swift).prepare()
    assert warning == [f"container {name} has the storage policy gold, not silver1: a policy is for life"]


def test_a_missing_container_that_may_not_be_made_is_refused_by_name(swift: Swift) -> None:
    container = Container(some_name(), make=False)
    with pytest.raises(BadSettings, match=f"IMG_STORE: container {container.name} does not exist"):
        SwiftStore(container, swift).prepare()


def test_a_policy_that_swift_has_not_is_refused_by_name(swift: Swift) -> None:
    container = Container(some_name(), policy="platinum")
    with pytest.raises(BadSettings, match=f"container {container.name} cannot be made: Swift has no storage policy platinum"):
        SwiftStore(container, swift).prepare()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "x" * 257])
def test_what_cannot_be_a_container_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a container"):
        Container(name)


VERBS: dict[str, Callable[[SwiftStore], object]] = {
    "get": lambda store: store.get("k"),
    "get fresh": lambda store: store.get("k", fresh=True),
    "head": lambda store: store.head("k"),
    "put": lambda store: store.put("k", io.BytesIO(b"x")),
    "put create": lambda store: store.put("k", io.BytesIO(b"x"), create=True),
    "delete": lambda store: store.delete("k"),
    "delete_prefix": lambda store: store.delete_prefix(HASH + "-"),
    "list": lambda store: list(store.list()),
    "check": lambda store: store.check(),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_container_is_never_a_missing_object(swift: Swift, verb: str) -> None:
    container = Container(some_name())
    with pytest.raises(StoreDown, match=f"container {container.name} does not exist"):
        VERBS[verb](SwiftStore(container, swift))


def test_a_container_that_went_away_is_noticed(swift: Swift, client: Connection) -> None:
    container = Container(some_name())
    store = new_store(swift, container)
    assert store.get("k") is None
    client.delete_container(container.name)
    with pytest.raises(StoreDown, match="does not exist"):
        store.get("k", fresh=True)


# ---- room


def test_a_full_container_is_full_and_takes_what_fits(swift: Swift, client: Connection) -> None:
    container = Container(some_name())
    client.put_container(container.name, {"X-Container-Meta-Quota-Bytes": "100000"})
    store = SwiftStore(container, swift)
    for size in (100_001, 30_000_000):
        with pytest.raises(StoreFull, match=f"container {container.name}: no room left"):
            store.put("k", io.BytesIO(bytes(size)))
    assert store.get("k") is None
    assert store.put("k", io.BytesIO(bytes(100_000))) is True


def test_what_is_larger_than_any_object_is_refused_before_it_is_sent(store: SwiftStore, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(5 * 2**30 + 1)
    with path.open("rb") as file, pytest.raises(TooMuch, match="at most 5368709120 bytes"):
        store.put("k", file)
    assert store.head("k") is None


def test_what_expires_is_gone_after_a_while(swift: Swift) -> None:
    store = new_store(swift, Container(some_name(), expire_after=1))
    store.put("k", io.BytesIO(b"x"))
    soon(lambda: body(store, "k"), None, 20)


# ---- sources


class Pipe(io.RawIOBase):
    """A source that cannot be rewound."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_a_source_of_unknown_length_is_sent_to_its_end(store: SwiftStore, size: int) -> None:
    data = bytes(range(250)) * (size // 250 + 1)
    assert store.put("k", Pipe(data[:size])) is True  # type: ignore[arg-type]
    assert body(store, "k") == data[:size]


def test_a_source_that_turns_out_shorter_than_it_was_leaves_nothing(store: SwiftStore, tmp_path: Path) -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return b"" if self.tell() > 100_000 else super().read(size)

    with pytest.raises(OSError, match="the source ended after"):
        store.put("k", Shrinking(bytes(300_000)))
    assert store.head("k", fresh=True) is None


def test_an_error_of_the_source_is_not_taken_for_the_stores(store: SwiftStore) -> None:
    class Rotten(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError, match="the client went away"):
        store.put("k", Rotten(bytes(300_000)))


# ---- notes


@pytest.mark.parametrize(
    "note",
    [{"Width": "1"}, {"taken_at": "1"}, {"": "1"}, {"a": ""}, {"a": " 1"}, {"a": "1\n"}, {"a": "ä"}, {"a": "x" * 201}, {"ä": "1"}],
    ids=str,
)
def test_a_note_that_would_not_come_back_is_refused(store: SwiftStore, note: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a note"):
        store.put("k", io.BytesIO(b"x"), note=note)
    assert store.head("k") is None


def test_more_notes_than_a_file_system_keeps_are_refused(store: SwiftStore) -> None:
    with pytest.raises(ValueError, match="notes of more than"):
        store.put("k", io.BytesIO(b"x"), note={f"n{number}": "x" * 200 for number in range(10)})


# ---- listing and deleting many


def fill(store: SwiftStore, names: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda name: store.put(name, io.BytesIO(name.encode())), names))


def test_a_listing_goes_on_beyond_a_page(swift: Swift) -> None:
    store = new_store(swift, Container(some_name(), page=7))
    names = [f"{number:02}" for number in range(29)]
    fill(store, names)
    assert keys(store) == names
    assert keys(store, "1") == names[10:20]
    assert keys(store, "", "13") == names[14:]


def test_a_listing_tells_type_size_and_time(store: SwiftStore) -> None:
    store.put("k", io.BytesIO(b"12345"), type="image/webp")
    said = store.head("k")
    [item] = store.list()
    assert said is not None
    assert (item.key, item.size, item.type) == ("k", 5, "image/webp")
    assert abs(item.modified - said.modified) < 0.1


def test_names_of_others_are_not_listed(swift: Swift, client: Connection) -> None:
    container = Container(some_name(), page=2)
    store = new_store(swift, container)
    fill(store, ["a", "c", "e"])
    for name in ("B", "b b", "dä", "d/../e", "z~"):
        client.put_object(container.name, name, b"not ours")
    assert keys(store) == ["a", "c", "e"]


DERIVED = [f"{HASH}-{width}x.webp" for width in range(100, 112)]
OTHERS = [HASH, HASH[:-1] + "9-100x.webp", "a"]


def test_everything_made_from_an_original_goes_and_nothing_else(swift: Swift) -> None:
    store = new_store(swift, Container(some_name(), page=5))
    fill(store, DERIVED + OTHERS)
    assert store.delete_prefix(HASH + "-") == len(DERIVED)
    assert keys(store) == sorted(OTHERS)
    assert store.delete_prefix(HASH + "-") == 0


def test_many_are_deleted_one_by_one_where_swift_cannot_do_it_at_once() -> None:
    with swift_box(Shape(without="bulk")) as box:
        swift = Swift(account_of(box), PATIENCE)
        store = new_store(swift)
        fill(store, DERIVED + OTHERS)
        assert store.delete_prefix(HASH + "-") == len(DERIVED)
        assert keys(store) == sorted(OTHERS)
        swift.close()


@pytest.mark.parametrize(
    "prefix", ["", "a", HASH, HASH + ".", HASH[:-1] + "-", HASH.upper() + "-", "x" + HASH + "-", HASH + "-a/b", HASH + "\n-"]
)
def test_a_prefix_that_an_original_could_have_is_refused(store: SwiftStore, prefix: str) -> None:
    fill(store, [HASH])
    with pytest.raises(ValueError, match="not the beginning of derived names"):
        store.delete_prefix(prefix)
    assert keys(store) == [HASH]
