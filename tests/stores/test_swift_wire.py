"""Bad lines and bad answers between us and Swift: whatever goes wrong on the way, an error within the deadline, and never wrong bytes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from imgproxy.errors import StoreDown, StoreLied, StoreTrouble
from imgproxy.stores.swift import Container, Patience, Swift, SwiftStore, TempAuth
from tests.cutter import HOST, Cutter, Rule
from tests.stores.conformance import body
from tests.swift_fixtures import account_of, new_store
from tests.swift_fixtures import swift as swift
from tests.swift_fixtures import swift_box_1 as swift_box_1
from tests.swiftbox import ROOT, SwiftBox

HASTE = Patience(connect=0.5, read=0.5, total=1.5, tries=3, pause=0.02)
AT_MOST = 10.0
"""No try ends later than this, on however slow a machine; their patience is 1.5 s."""

BREAKS: tuple[Literal["cut", "hang"], ...] = ("cut", "hang")
SMALL = b"0123456789abcdef" * 1_000
LARGE = random.Random(1).randbytes(3_000_000)
READS = int(os.environ.get("SWIFT_READS", "1000"))


@pytest.fixture
def direct(swift: Swift) -> SwiftStore:
    """A store without anything in between, to see what is really there."""
    store = new_store(swift)
    store.put("small", io.BytesIO(SMALL))
    store.put("large", io.BytesIO(LARGE))
    return store


@pytest.fixture
def cutter(swift_box_1: SwiftBox) -> Iterator[Cutter]:
    with Cutter(swift_box_1.info["port"]) as cutter:
        yield cutter


@pytest.fixture
def store(direct: SwiftStore, cutter: Cutter, swift_box_1: SwiftBox) -> Iterator[SwiftStore]:
    """The same container, by way of the cutter; let in already."""
    swift = Swift(account_of(swift_box_1, cutter.port), HASTE)
    store = SwiftStore(Container(direct._name), swift)
    store.check()
    yield store
    swift.close()


@contextlib.contextmanager
def within_the_deadline() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_MOST


def test_an_untroubled_line_changes_nothing(store: SwiftStore) -> None:
    assert (body(store, "small"), body(store, "large")) == (SMALL, LARGE)


# ---- reading


@pytest.mark.parametrize("after", [0, 5, 400, 10_000])
def test_a_small_object_whose_line_is_cut_once_is_read_again(store: SwiftStore, cutter: Cutter, after: int) -> None:
    cutter.misbehave(Rule("cut", after=after), times=1)
    assert body(store, "small") == SMALL
    assert cutter.struck == 1


@pytest.mark.parametrize("rule", [*(Rule(what, after) for what in BREAKS for after in (0, 300, 10_000)), Rule("drip", 1_000)], ids=str)
def test_a_small_object_whose_line_stays_bad_is_an_error(store: SwiftStore, cutter: Cutter, rule: Rule) -> None:
    cutter.misbehave(rule)
    with within_the_deadline(), pytest.raises(StoreDown):
        store.get("small")
    assert cutter.struck >= 1


@pytest.mark.parametrize(
    "rule", [*(Rule(what, after) for what in BREAKS for after in (1_000, 1_500_000, 2_999_000)), Rule("drip", 2_000_000)], ids=str
)
def test_a_large_object_that_breaks_off_is_an_error_and_stays_one(store: SwiftStore, cutter: Cutter, rule: Rule) -> None:
    cutter.misbehave(rule)
    blob = store.get("large")
    assert blob is not None
    got = bytearray()

    def read_on() -> None:
        while piece := blob.file.read(10_000):
            got.extend(piece)

    with blob, within_the_deadline():
        for _ in range(2):
            with pytest.raises(StoreDown, match="bytes before its end"):
                read_on()
    assert len(got) < len(LARGE)
    assert LARGE.startswith(got)


def test_a_line_that_was_cut_is_not_used_again(store: SwiftStore, cutter: Cutter) -> None:
    cutter.misbehave(Rule("cut", after=1_000_000), times=1)
    blob = store.get("large")
    assert blob is not None
    with blob, pytest.raises(StoreDown):
        blob.file.read()
    assert body(store, "large") == LARGE


@pytest.mark.parametrize("rule", [Rule("refuse"), Rule("cut"), Rule("hang"), Rule("hang", way="up")], ids=str)
def test_every_verb_ends_in_time_while_swift_is_out_of_reach(store: SwiftStore, cutter: Cutter, rule: Rule) -> None:
    cutter.misbehave(rule)
    with ThreadPoolExecutor(6) as pool, within_the_deadline():
        asked: list[Callable[[], object]] = [
            lambda: store.get("small"),
            lambda: store.head("small", fresh=True),
            lambda: store.delete("small"),
            lambda: list(store.list()),
            lambda: store.put("new", io.BytesIO(SMALL)),
            lambda: store.check(),
        ]
        tried = [pool.submit(ask) for ask in asked]
        assert [type(attempt.exception(AT_MOST)) for attempt in tried] == [StoreDown] * 6


def test_a_new_line_is_found_as_soon_as_there_is_one(store: SwiftStore, cutter: Cutter) -> None:
    cutter.misbehave(Rule("refuse"))
    with pytest.raises(StoreDown):
        store.get("small")
    cutter.misbehave(None)
    assert body(store, "small") == SMALL


# ---- writing


@pytest.mark.parametrize("rule", [Rule("cut", 1_500_000, "up"), Rule("hang", 1_500_000, "up"), Rule("cut", 0, "down")], ids=str)
def test_an_upload_whose_line_stays_bad_is_an_error_and_leaves_no_half(
    store: SwiftStore, direct: SwiftStore, cutter: Cutter, rule: Rule
) -> None:
    cutter.misbehave(rule)
    with within_the_deadline(), pytest.raises(StoreDown):
        store.put("new", io.BytesIO(LARGE))
    assert cutter.struck >= 1
    assert body(direct, "new") in (None, LARGE) if rule.way == "down" else body(direct, "new") is None


def test_an_upload_whose_line_is_cut_once_is_sent_again_from_its_beginning(store: SwiftStore, direct: SwiftStore, cutter: Cutter) -> None:
    cutter.misbehave(Rule("cut", 1_500_000, "up"), times=1)
    source = io.BytesIO(b"before" + LARGE)
    source.seek(6)
    assert store.put("new", source) is True
    assert cutter.struck == 1
    assert body(direct, "new") == LARGE


class Pipe(io.BytesIO):
    """A source that cannot be rewound."""

    def seekable(self) -> bool:
        return False


def test_an_upload_that_cannot_be_rewound_is_not_sent_again(store: SwiftStore, direct: SwiftStore, cutter: Cutter) -> None:
    cutter.misbehave(Rule("cut", 1_500_000, "up"))
    with pytest.raises(StoreDown):
        store.put("new", Pipe(LARGE))
    cutter.misbehave(None)
    assert body(direct, "new") is None
    assert store.put("new", Pipe(LARGE)) is True
    assert body(direct, "new") == LARGE


def test_bytes_that_were_changed_on_the_way_are_noticed_and_deleted(store: SwiftStore, direct: SwiftStore, cutter: Cutter) -> None:
    cutter.misbehave(Rule("flip", 1_500_000, "up"), times=1)
    with pytest.raises(StoreLied, match="not what was sent"):
        store.put("new", io.BytesIO(LARGE))
    assert cutter.struck == 1
    assert body(direct, "new") is None


def test_what_was_created_by_a_request_whose_answer_was_lost_is_ours(store: SwiftStore, direct: SwiftStore, cutter: Cutter) -> None:
    assert store.head("new") is None
    before = cutter.passed["down"]
    assert store.head("new") is None
    # On a new line, the question whether it is there gets through, and the answer to the upload does not.
    cutter.misbehave(Rule("cut", after=cutter.passed["down"] - before), times=1)
    assert store.put("new", io.BytesIO(SMALL), create=True) is True
    assert cutter.struck == 1
    assert body(direct, "new") == SMALL
    assert store.put("new", io.BytesIO(LARGE), create=True) is False


# ---- many


def test_sixteen_threads_never_get_each_others_bytes(direct: SwiftStore) -> None:
    bodies = {f"{number:03}": random.Random(number).randbytes(200 + 97 * number) for number in range(200)}
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda name: direct.put(name, io.BytesIO(bodies[name])), bodies))
        names = [random.Random(number).choice(list(bodies)) for number in range(READS)]
        wrong = [name for name, got in zip(names, pool.map(lambda name: body(direct, name), names), strict=True) if got != bodies[name]]
    assert wrong == []


def test_one_thread_may_hold_several_objects_open(direct: SwiftStore) -> None:
    other = LARGE[::-1]
    direct.put("other", io.BytesIO(other))
    first, second = direct.get("large"), direct.get("other")
    assert first is not None
    assert second is not None
    with first, second:
        pieces = [(first.file.read(70_000), second.file.read(50_000), body(direct, "small")) for _ in range(60)]
    assert b"".join(piece[0] for piece in pieces) == LARGE
    assert b"".join(piece[1] for piece in pieces) == other
    assert {piece[2] for piece in pieces} == {SMALL}


def test_a_child_of_a_fork_uses_lines_of_its_own(direct: SwiftStore) -> None:
    names = ["small", "large"] * 20
    stop = threading.Event()
    parent = ThreadPoolExecutor(2)
    reading = [parent.submit(lambda: [body(direct, name) for name in names if not stop.is_set()]) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os._exit(int([body(direct, name) for name in names] != [SMALL, LARGE] * 20))
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [got.result(60) for got in reading] == [[SMALL, LARGE] * 20] * 2
    parent.shutdown()


def test_what_is_large_is_never_in_memory(direct: SwiftStore, swift_box_1: SwiftBox, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    account = asdict(account_of(swift_box_1))
    code = """
import hashlib, json, resource, sys
from imgproxy.stores.swift import Container, Swift, SwiftStore, TempAuth
account, name, path = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
store = SwiftStore(Container(name), Swift(TempAuth(**account)))
store.check()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(path, "rb") as file:
    assert store.put("huge", file)
sum = hashlib.sha256()
with store.get("huge") as blob:
    while piece := blob.file.read(2**20):
        sum.update(piece)
print(sum.hexdigest(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, json.dumps(account), direct._name, str(path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True).stdout.split()
    assert said[0] == hashlib.sha256(bytes(200 * 2**20)).hexdigest()
    assert int(said[1]) < 20_000


# ---- nonsense

OK = b"HTTP/1.1 200 OK\r\n"
NONSENSE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing said": OK + b"\r\n",
    "no length": OK + b"X-Timestamp: 1.0\r\nEtag: x\r\nConnection: close\r\n\r\nbytes",
    "a bad length": OK + b"Content-Length: a lot\r\nX-Timestamp: 1.0\r\n\r\nbytes",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 7\r\nX-Timestamp: 1.0\r\n\r\nbytes",
    "a negative length": OK + b"Content-Length: -5\r\nX-Timestamp: 1.0\r\n\r\nbytes",
    "no time": OK + b"Content-Length: 5\r\n\r\nbytes",
    "a bad time": OK + b"Content-Length: 5\r\nX-Timestamp: noon\r\n\r\nbytes",
    "no UTF-8": OK + b"Content-Length: 5\r\nX-Timestamp: 1.0\r\nX-Object-Meta-A: \xff\r\n\r\nbytes",
    "an endless header": OK + b"A: " + b"x" * 200_000 + b"\r\n\r\n",
    "a redirect to itself": b"HTTP/1.1 302 Found\r\nLocation: /v1/AUTH_test/c/k\r\nContent-Length: 0\r\n\r\n",
    "a redirect to nowhere": b"HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\nContent-Length: 0\r\n\r\n",
    "418": b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n",
    "999": b"HTTP/1.1 999 Beyond\r\nContent-Length: 0\r\n\r\n",
    "chunks of garbage": OK + b"Transfer-Encoding: chunked\r\nX-Timestamp: 1.0\r\nContent-Length: 5\r\n\r\nzz\r\nbytes",
}


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Somebody at a port who answers everything with the same."""
    with socket.create_server((HOST, 0)) as ear:

        def serve() -> None:
            for _ in count():
                try:
                    line = ear.accept()[0]
                except OSError:
                    return
                with line, contextlib.suppress(OSError):
                    line.settimeout(1)
                    while b"\r\n\r\n" not in line.recv(2**16):
                        pass
                    line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield ear.getsockname()[1]
        finally:
            ear.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_is_trouble_and_never_absence_or_bytes(swift_box_1: SwiftBox, nonsense: str) -> None:
    with answering(NONSENSE[nonsense]) as port:
        good = account_of(swift_box_1)
        account = TempAuth(good.auth_url, good.user, good.key, f"http://{HOST}:{port}/v1/AUTH_test")
        store = SwiftStore(Container("c"), Swift(account, HASTE))
        with within_the_deadline():
            asked: list[Callable[[], object]] = [
                lambda: store.get("k"),
                lambda: list(store.list()),
                lambda: store.put("k", io.BytesIO(SMALL)),
            ]
            if nonsense != "chunks of garbage":
                asked.append(lambda: store.head("k"))
            for ask in asked:
                with pytest.raises(StoreTrouble) as told:
                    ask()
                assert str(port) not in str(told.value)
        store.close()
