"""What two nodes over one Swift of four devices, two regions and three replicas may suffer, and what who asks them sees of it.

Reads are over HTTP and of all kinds: originals and renditions, near, far and not yet made. Uploads go on meanwhile. With one or two of four
servers away nothing fails. Otherwise there are errors, within their deadline: never wrong bytes, never a 404 for what was acknowledged, and
full service within five seconds of the repair. The summary of the run shows the table.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgproxy.errors import StoreTrouble
from imgproxy.stores import Store
from tests.cutter import Rule
from tests.far import Far, far_from, line_that, put_away, rot, suffer, told, until_ready, whole
from tests.load import HEADING, Load, Tally
from tests.plain import noise
from tests.serving import Server
from tests.swift_fixtures import swift_box
from tests.swiftbox import Shape

pytestmark = [pytest.mark.xdist_group("swift_box_4"), pytest.mark.timeout(240)]

LATEST = 30.0
"""No request may take longer on however busy a machine: its patience, and the try that began just before it ended."""

Report = Callable[[str, Tally, float | None], None]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """All this is suffered with tokens that lapse every three seconds."""
    shape = Shape(nodes=4, replicas=3, recheck=1, error_interval=1, node_timeout=2.0, token_life=3)
    with swift_box(shape) as box, far_from(box, tmp_path_factory.mktemp("far")) as far:
        yield far


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Put a row into the table."""
    return lambda fault, tally, mended: record_property("row", (HEADING, tally.row(fault, mended)))


FEW = {
    "one object server killed": told("KILL", "object2"),
    "a region killed": told("KILL", *(f"{kind}{node}" for kind in ("object", "container", "account") for node in (3, 4))),
    "an object server hung": told("STOP", "object3"),
}


@pytest.mark.parametrize("fault", FEW)
def test_with_one_or_two_of_four_away_nothing_fails(far: Far, report: Report, fault: str) -> None:
    tally, mended = suffer(far, FEW[fault], 5 if "hung" in fault else 2.5)
    report(fault, tally, mended)
    assert tally.why == {}
    assert (tally.count("wrong"), tally.count("absent")) == (0, 0)
    assert tally.count("right", "read") > 10
    assert tally.count("right", "upload") > 0
    assert tally.slowest < LATEST


MANY = {
    "the proxy killed and restarted": told("KILL", "proxy"),
    "every object server killed": told("KILL", *(f"object{node}" for node in (1, 2, 3, 4))),
    "every object server hung": told("STOP", *(f"object{node}" for node in (1, 2, 3, 4))),
    "lines cut in the middle of what is read": line_that(Rule("cut", after=60_000)),
    "lines cut in the middle of what is uploaded": line_that(Rule("cut", after=30_000, way="up")),
}


@pytest.mark.parametrize("fault", MANY)
def test_with_more_broken_there_are_errors_and_no_lies_and_soon_all_is_well(far: Far, report: Report, fault: str) -> None:
    struck = far.line.struck
    tally, mended = suffer(far, MANY[fault])
    report(fault, tally, mended)
    assert (tally.count("wrong"), tally.count("absent")) == (0, 0)
    assert all(why.startswith(("Refused: 50", "Store")) for why in tally.why), tally.why
    assert tally.slowest < LATEST
    assert tally.since(mended).count("right") > 10
    assert tally.recovery(mended) < 5
    assert tally.count("failed") or far.line.struck > struck or tally.slowest > 1, "the fault was there"


def test_a_bit_flipped_on_every_line_is_never_seen(far: Far, report: Report) -> None:
    struck = far.line.struck
    tally, mended = suffer(far, line_that(Rule("flip", after=50_000)))
    report("a bit flipped on every line", tally, mended)
    assert far.line.struck > struck + 3
    assert (tally.count("wrong"), tally.count("absent")) == (0, 0)
    for node in far.nodes:  # what was flipped twice in a row was taken for rotten, for some minutes
        for mark in (node.data / "run" / "quarantine").glob("*"):
            mark.unlink()


def test_tokens_that_lapse_every_three_seconds_cost_nothing(far: Far, report: Report) -> None:
    log = Path(far.box.info["dir"]) / "log" / "proxy.log"
    refused = log.read_text().count(" HTTP/1.0 401 ")
    tally, _ = suffer(far, lambda _: None, 7)
    report("tokens lapse every 3 s, as in all the others", tally, None)
    assert log.read_text().count(" HTTP/1.0 401 ") > refused + 3
    assert tally.why == {}
    assert tally.count("right") == len(tally.events)


def put_unread(far: Far, count: int, seed: int) -> list[str]:
    """Put so many pictures that nobody has read yet."""
    dice = random.Random(seed)
    bodies = [noise(60, 40, dice) for _ in range(count)]
    names = [hashlib.sha256(body).hexdigest() for body in bodies]
    for name, body in zip(names, bodies, strict=True):
        far.album.write(name, body)
    return names


def test_a_byte_flipped_in_one_copy_of_an_original_is_never_seen(far: Far, report: Report) -> None:
    names = put_unread(far, 15, seed=1)
    assert rot(far, names, 1) == dict.fromkeys(names, 1)
    found = put_away(far)
    before, far.load.known[:] = list(far.load.known), names
    tally, _ = suffer(far, lambda _: None)
    far.load.known[:] = before  # of those others only two copies are right, and the region of both may be killed
    report("one byte flipped in one copy of originals", tally, None)
    assert tally.why == {}
    assert tally.count("right") == len(tally.events)
    assert put_away(far) > found


def figure(node: Server, name: str) -> float:
    """What a figure of a node says."""
    lines = [line for line in node.get("/metrics").body.decode().splitlines() if line.startswith(name)]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def test_an_original_of_which_no_copy_is_right_is_refused_told_counted_and_healed_by_a_new_upload(far: Far) -> None:
    node = far.nodes[0]
    (name,) = put_unread(far, 1, seed=2)
    assert rot(far, [name], 3) == {name: 3}
    before = figure(node, 'imgproxy_refusals_total{error="Rotten"}')
    answers = [node.get(f"/{name}{suffix}") for suffix in (".png", "-20x.jpg", "-30x.jpg", ".png")]
    assert [answer.status for answer in answers] == [502] * 4
    assert json.loads(answers[0].body)["title"] == "Rotten original"
    assert figure(node, 'imgproxy_refusals_total{error="Rotten"}') == before + 4
    log = (node.data / "server.log").read_text().splitlines()
    told = [line for line in log if "an original is rotten" in line and name in line]
    assert len(told) == 1
    assert json.loads(told[0]).items() >= {"level": "error", "hash": name}.items()
    passed = far.line.passed["down"]
    assert node.get(f"/{name}.png").status == 502
    assert far.line.passed["down"] - passed < len(far.album.bodies[name]), "it was not fetched again"
    picture = node.data / "again.png"
    picture.write_bytes(far.album.bodies[name])
    assert node.put(picture) == [f"{name}.png"]
    assert node.get(f"/{name}.png").body == far.album.bodies[name]
    assert node.get(f"/{name}-20x.jpg").status == 200


def listed(far: Far) -> set[str] | None:
    """The names of all originals as the store lists them, or None if it cannot."""
    try:
        return {item.key for item in far.house.stores[0].list()}
    except StoreTrouble:
        return None


@pytest.mark.parametrize("away", [1, 4])
def test_a_listing_under_load_while_container_servers_are_away_invents_and_loses_nothing(far: Far, report: Report, away: int) -> None:
    before = set(far.load.known)
    lists: list[set[str] | None] = []

    def fault(far: Far) -> None:
        told("KILL", *(f"container{node}" for node in range(1, away + 1)))(far)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            lists.append(listed(far))

    tally, mended = suffer(far, fault, 0)
    report(f"{away} of 4 container servers killed, while listing", tally, mended)
    assert (tally.count("wrong"), tally.count("absent")) == (0, 0)
    assert tally.recovery(mended) < 5
    if away == 1:
        assert tally.why == {}
        assert all(names is not None and names >= before for names in lists)
    assert None in lists or away == 1
    everything = listed(far)
    assert everything is not None
    assert everything >= set(far.load.known)
    assert all(names <= set(far.album.bodies) for names in [*filter(None, lists), everything])


def test_who_asks_for_what_is_not_there_while_a_region_is_away_troubles_nobody_else(far: Far, report: Report) -> None:
    over = threading.Event()

    def ask_for_nothing() -> None:
        dice = random.Random(3)
        while not over.is_set():
            far.nodes[dice.randrange(2)].get(f"/{dice.randbytes(32).hex()}-{dice.randint(1, 999)}x.jpg")

    def fault(far: Far) -> None:
        FEW["a region killed"](far)
        for stranger in strangers:
            stranger.start()

    strangers = [threading.Thread(target=ask_for_nothing) for _ in range(4)]
    try:
        tally, mended = suffer(far, fault)
    finally:
        over.set()
    for stranger in strangers:
        stranger.join()
    report("a region killed, and strangers ask for nothing", tally, mended)
    assert tally.why == {}
    assert (tally.count("wrong"), tally.count("absent")) == (0, 0)


def test_while_swift_is_away_cold_requests_fail_at_once_and_one_at_a_time_looks_for_it(
    far: Far, record_property: Callable[[str, object], None]
) -> None:
    seconds, threads = 3.0, 8
    took: list[float] = []

    def ask(number: int) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            answer = far.nodes[0].get(f"/{number:064x}-{len(took) + 1}x.jpg")
            took.append(time.monotonic() - began)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")

    far.box.ctl("kill", "proxy")
    far.line.misbehave(Rule("refuse"))
    try:
        for side in range(1, 20):  # until it is known to be down
            assert far.nodes[0].get(f"/{'0' * 64}-{side}x.jpg").status == 503
        knocks = far.line.connections
        with ThreadPoolExecutor(threads) as askers:
            list(askers.map(ask, range(threads)))
        knocks = far.line.connections - knocks
    finally:
        whole(far)
    until_ready(far)
    quick = sorted(took)[int(len(took) * 0.99)]
    row = f"{len(took):10} {quick:9.3f} s {max(took):9.3f} s {knocks:12}"
    record_property("row", (f"{'cold, Swift away':>10} {'99 of 100':>9} {'slowest':>11} {'connections':>14}", row))
    assert quick < 1
    assert max(took) < 5
    assert len(took) > 200
    # Two containers, and each is asked by one at a time: a check of three tries, with a second between.
    assert knocks <= 2 * 3 * (seconds + 2)


def test_ten_thousand_reads_by_sixteen_threads_without_a_wrong_one(far: Far, report: Report) -> None:
    known = [name for name in far.load.known if len(far.album.bodies[name]) < 200_000][:60]
    crowd = Load(far.album.read, far.album.write, readers=16, writers=0, pause=0, subject=far.album.subject, known=known)
    far.album.origins.clear()
    began = time.monotonic()
    with crowd:
        while len(crowd.events) < 10_000:
            time.sleep(0.1)
    tally = crowd.tally()
    report(f"none; {len(tally.events) / (time.monotonic() - began):.0f} reads a second by 16 threads", tally, None)
    assert tally.why == {}
    assert tally.count("right") == len(tally.events) >= 10_000
    assert set(far.album.origins) == {f'tier;desc="{word}"' for word in ("disk", "derived", "render", "base")}


def test_what_was_acknowledged_is_there_after_all_that_and_nothing_by_half(far: Far) -> None:
    base, derived = far.house.stores[0], far.house.stores[-1]
    kept = {item.key for item in base.list()}
    assert kept >= set(far.load.known)
    wrong = [name for name in kept if not any(is_right(far, base, name, f"{name}.png") for _ in range(3))]
    assert wrong == [], "a rotten copy is put away by its first reader, or its second"
    there = [item.key for item in derived.list()]
    made = random.Random(4).sample(there, min(len(there), 200))  # how many there are depends on how fast this machine is
    assert len(made) > 50
    assert [name for name in made if not is_right(far, derived, name, name)] == []


def is_right(far: Far, store: Store, key: str, name: str) -> bool:
    """Whether an object is what its name says, if it is there at all."""
    blob = store.get(key)
    if blob is None:
        return True
    with blob:
        return far.album.subject.right(name, blob.file.read())
