"""A repository on two nodes over one Swift of four devices, two regions and three replicas; and the ways to break it and to mend it."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from imgproxy import config, wiring
from tests.album import Album, swift_settings
from tests.cutter import Cutter, Rule
from tests.load import Load, Tally
from tests.serving import Server, environment, serving
from tests.swiftbox import SwiftBox

SMALL = {"IMG_CACHE": "disk://?size=4M", "IMG_COPIES": "8M", "IMG_WORKERS": "1", "IMG_PATIENCE": "12", "IMG_LOG_LEVEL": "error"}
"""So little room near that much has to come from afar, again and again."""


@dataclass(frozen=True, slots=True)
class Far:
    """Two nodes, a house that uploads, the line between them all and Swift, and a load on them."""

    box: SwiftBox
    line: Cutter
    nodes: tuple[Server, Server]
    house: wiring.House
    album: Album
    load: Load


@contextmanager
def far_from(box: SwiftBox, folder: Path) -> Iterator[Far]:
    """A repository of its own in that Swift, with something to read."""
    with Cutter(box.info["port"]) as line, ExitStack() as stack:
        settings = {**swift_settings(box, "faults", line.port), **SMALL}
        env = environment(folder / "house", **settings)
        house = wiring.build(config.load(None, env), env)
        stack.callback(house.close)
        house.prepare()
        one, two = (stack.enter_context(serving(folder / name, **settings)) for name in ("one", "two"))
        album = Album(house.images, (one, two))
        stack.callback(album.close)
        load = Load(album.read, album.write, readers=8, writers=2, pause=0.05, subject=album.subject)
        load.seed(40)
        yield Far(box, line, (one, two), house, album, load)


Break = Callable[[Far], None]


def told(signal: str, *names: str) -> Break:
    def fault(far: Far) -> None:
        for name in names:
            far.box.ctl("kill", name, signal)

    return fault


def line_that(rule: Rule) -> Break:
    """All connections to Swift, those of the nodes and of the uploads, are treated so."""
    return lambda far: far.line.misbehave(rule)


def whole(far: Far) -> None:
    """Start what is not there, wake what is stopped, and let the line be good again (which closes what goes over it)."""
    if not far.line.good:
        far.line.misbehave(None)
    for name, said in far.box.ctl("ps").items():
        if said["pid"] is None:
            far.box.ctl("start", name)
        else:
            far.box.ctl("kill", name, "CONT")


def catch_up(far: Far) -> None:
    """Let Swift do what it does by itself from time to time: bring all copies to their places, and tell all containers what they missed."""
    for daemon in ("object-replicator", "object-updater", "container-replicator"):
        far.box.ctl("once", daemon)


def suffer(far: Far, fault: Break, seconds: float = 2.5) -> tuple[Tally, float]:
    """Break something under load and mend it; returns what happened since, and when it was mended."""
    far.load.events.clear()
    far.album.origins.clear()
    with far.load:
        time.sleep(0.5)
        began = time.monotonic()
        fault(far)
        time.sleep(seconds)
        whole(far)
        mended = time.monotonic()
        far.load.settle(mended)
    catch_up(far)
    return far.load.tally().since(began), mended


def rot(far: Far, names: Iterable[str], copies: int) -> Counter[str]:
    """Flip one byte in so many copies of these originals, on their disks; how many copies there were."""
    wanted, flipped = set(names), Counter[str]()
    for path in sorted(Path(far.box.info["dir"]).glob("srv/d*/d*/objects/*/*/*/*.data")):
        data = path.read_bytes()
        name = hashlib.sha256(data).hexdigest()
        if name in wanted and flipped[name] < copies:
            path.write_bytes(data[:900] + bytes([data[900] ^ 1]) + data[901:])
            flipped[name] += 1
    return flipped


def put_away(far: Far) -> int:
    """How many copies Swift itself has found rotten."""
    return len(list(Path(far.box.info["dir"]).glob("srv/d*/d*/quarantined/objects/*")))


def until_ready(far: Far) -> None:
    """Wait until both nodes say that they are."""
    deadline = time.monotonic() + 10
    while {node.get("/readyz").status for node in far.nodes} != {200}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
