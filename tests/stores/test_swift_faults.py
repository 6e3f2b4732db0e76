"""What a Swift of four devices, two regions and three replicas may suffer under a steady load, and what we promise meanwhile.

With one or two of four servers away nothing fails. Otherwise there are errors, within their deadline: never wrong bytes, never "absent"
for what was acknowledged, and full service within five seconds of the repair. The summary of the run shows the table.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgproxy.errors import StoreDown
from imgproxy.stores.swift import Patience, Swift, SwiftStore
from tests.load import HEADING, Load, Tally
from tests.stores.conformance import body
from tests.swift_fixtures import account_of, new_store
from tests.swift_fixtures import swift_box_4 as swift_box_4
from tests.swiftbox import SwiftBox

pytestmark = [pytest.mark.xdist_group("swift_box_4"), pytest.mark.timeout(180)]

PATIENCE = Patience(connect=1.0, read=8.0, total=12.0)
LATEST = 30.0
"""No request may take longer on however busy a machine: its deadline, and the try that began just before it."""

Break = Callable[[SwiftBox], None]
Report = Callable[[str, Tally, float | None], None]


@pytest.fixture(scope="module")
def swift(swift_box_4: SwiftBox) -> Iterator[Swift]:
    swift = Swift(account_of(swift_box_4), PATIENCE)
    yield swift
    swift.close()


@pytest.fixture(scope="module")
def load(swift: Swift) -> Load:
    """A load of its own container, with something to read."""
    store = new_store(swift)

    def write(name: str, data: bytes) -> None:
        store.put(name, io.BytesIO(data), type="image/jpeg")

    load = Load(lambda name: body_of(store, name), write, readers=4, pause=0.02)
    load.seed(80)
    return load


def body_of(store: SwiftStore, name: str) -> bytes | None:
    """The bytes of an object, as plainly as a reader asks for them."""
    blob = store.get(name)
    if blob is None:
        return None
    with blob:
        return blob.file.read()


def whole(box: SwiftBox) -> None:
    """Start what is not there, wake what is stopped, and let the copies find their places."""
    for name, said in box.ctl("ps").items():
        if said["pid"] is None:
            box.ctl("start", name)
        else:
            box.ctl("kill", name, "CONT")


def killed(*names: str) -> Break:
    return told("KILL", *names)


def stopped(*names: str) -> Break:
    return told("STOP", *names)


def told(signal: str, *names: str) -> Break:
    def fault(box: SwiftBox) -> None:
        for name in names:
            box.ctl("kill", name, signal)

    return fault


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Put a row into the table."""
    return lambda fault, tally, mended: record_property("row", (HEADING, tally.row(fault, mended)))


def suffer(load: Load, box: SwiftBox, fault: Break, seconds: float = 2.5) -> tuple[Tally, float]:
    """Break something under load and mend it; returns what happened since, and when it was mended."""
    load.events.clear()
    with load:
        time.sleep(0.5)
        began = time.monotonic()
        fault(box)
        time.sleep(seconds)
        whole(box)
        mended = time.monotonic()
        load.settle(mended)
    box.ctl("once", "object-replicator")
    return load.tally().since(began), mended


FEW = {
    "one object server killed": killed("object2"),
    "two object servers killed": killed("object1", "object4"),
    "a region killed": killed(*(f"{kind}{node}" for kind in ("object", "container", "account") for node in (3, 4))),
    "an object server hung": stopped("object3"),
    "a container server killed": killed("container1"),
}


@pytest.mark.parametrize("fault", FEW)
def test_with_one_or_two_of_four_away_nothing_fails(load: Load, swift_box_4: SwiftBox, report: Report, fault: str) -> None:
    tally, mended = suffer(load, swift_box_4, FEW[fault])
    report(fault, tally, mended)
    assert tally.why == {}
    assert (tally.count("wrong"), tally.count("absent")) == (0, 0)
    assert tally.count("right", "read") > 20
    assert tally.count("right", "upload") > 5
    assert tally.slowest < LATEST


MANY = {
    "the proxy killed and restarted": killed("proxy"),
    "the proxy hung": stopped("proxy"),
    "three object servers killed": killed("object1", "object2", "object3"),
    "every object server killed": killed("object1", "object2", "object3", "object4"),
    "every container server killed": killed("container1", "container2", "container3", "container4"),
}


@pytest.mark.parametrize("fault", MANY)
def test_with_more_away_there_are_errors_and_no_lies_and_soon_all_is_well(
    load: Load, swift_box_4: SwiftBox, report: Report, fault: str
) -> None:
    tally, mended = suffer(load, swift_box_4, MANY[fault])
    report(fault, tally, mended)
    assert (tally.count("wrong"), tally.count("absent")) == (0, 0)
    assert all(why.startswith("StoreDown: container ") for why in tally.why)
    assert tally.slowest < LATEST
    assert tally.since(mended).count("right") > 10
    assert tally.recovery(mended) < 5
    # A hung proxy that goes on in time has cost a moment only; everything else was felt, or the test would show nothing.
    assert tally.count("failed") > 0 or fault == "the proxy hung"


def listed(store: SwiftStore) -> set[str] | None:
    """All names, or None if that is an error."""
    try:
        return {item.key for item in store.list()}
    except StoreDown:
        return None


@pytest.mark.parametrize("away", [1, 2, 4])
def test_a_listing_while_container_servers_are_away_invents_nothing(swift: Swift, swift_box_4: SwiftBox, away: int) -> None:
    store = new_store(swift)
    names = {f"{number:03}" for number in range(30)}
    for name in sorted(names):
        store.put(name, io.BytesIO(b"x"))
    killed(*(f"container{node}" for node in range(1, away + 1)))(swift_box_4)
    try:
        got = listed(store)
    finally:
        whole(swift_box_4)
    if away < 4:
        assert got == names
    else:
        assert got is None
    deadline = time.monotonic() + 5
    while (got := listed(store)) != names and time.monotonic() < deadline:
        time.sleep(0.1)
    assert got == names


def test_what_is_fresh_is_never_what_was(swift: Swift, swift_box_4: SwiftBox) -> None:
    store = new_store(swift)
    names = [f"{number:02}" for number in range(40)]
    for name in names:
        store.put(name, io.BytesIO(b"old"))
    killed("object1")(swift_box_4)
    for name in names[:20]:
        store.put(name, io.BytesIO(b"new"))
    for name in names[20:]:
        store.delete(name)
    whole(swift_box_4)
    plain = [body_of(store, name) for name in names * 3]
    assert [body(store, name) for name in names] == [b"new"] * 20 + [None] * 20
    # Without being asked for freshness Swift does give what was: the fault was there.
    assert plain != ([b"new"] * 20 + [None] * 20) * 3


def test_a_flipped_byte_is_put_away_by_its_first_reader(load: Load, swift: Swift, swift_box_4: SwiftBox, report: Report) -> None:
    """As a reader of originals does it: check the digest, and ask once more."""
    store = new_store(swift)
    bad = []

    def read(name: str) -> bytes | None:
        data = body_of(store, name)
        if data is not None and hashlib.sha256(data).hexdigest() != name:
            bad.append(name)
            data = body(store, name)
        return data

    def write(name: str, data: bytes) -> None:
        store.put(name, io.BytesIO(data))

    careful = Load(read, write, readers=4, pause=0.02)
    careful.seed(30)
    began = time.monotonic()
    rotten = [rot(swift_box_4, name, number) for number, name in enumerate(careful.known)]
    with careful:
        time.sleep(3)
    assert sum(rotten) == 30
    report("one byte flipped in one copy of 30 objects", careful.tally().since(began), None)
    assert bad
    assert careful.tally().count("right") == len(careful.events)


def rot(box: SwiftBox, name: str, number: int) -> bool:
    """Flip one byte of one copy of an object, on its disk; whether it was found."""
    body = b""
    for path in sorted(Path(box.info["dir"]).glob("srv/d*/d*/objects/*/*/*/*.data")):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == name:
            body = data
            flipped = bytearray(body)
            flipped[number % len(body)] ^= 1
            with path.open("r+b") as file:
                file.write(flipped)
            return True
    return False


def test_what_was_acknowledged_is_there_after_all_that(load: Load, swift_box_4: SwiftBox) -> None:
    assert load.check(load.known) == {}
