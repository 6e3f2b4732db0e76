"""Far originals: cold renditions out of a Swift against a bare loop over swiftclient and pyvips, a large original, and many readers."""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyvips

from imgproxy.stores.swift import Container, Swift, SwiftStore
from tests.album import swift_settings
from tests.bench.cold import SUFFIX, Bare
from tests.bench.load import fetch_all, got
from tests.bench.memory import Watch
from tests.bench.pictures import PHOTO, put_copies
from tests.bench.ratio import Line, at_most, ratios, seconds, told
from tests.far import far_from
from tests.load import Load
from tests.serving import Server, serving
from tests.swift_fixtures import PATIENCE, account_of, swift_box
from tests.swiftbox import Shape, SwiftBox

COUNT = 12
ROUNDS = 9
PAUSE = 0.05
WHAT = "cold 6-megapixel rendition of an original in Swift"
READS = 100_000
LARGE = {"IMG_LIMITS_FILE_BYTES": "600M", "IMG_LIMITS_PIXELS": "200000000", "IMG_LIMITS_DECODED_BYTES": "600M"}

LOOP = """
import sys, pyvips
from swiftclient.client import Connection, ClientException
pyvips.cache_set_max(0)
swift = Connection({auth!r}, {user!r}, {key!r})
for line in sys.stdin:
    for hash in line.split():
        if {looking}:
            try:
                swift.get_object("bench-derived", hash + "{suffix}")
            except ClientException:
                pass
        _, body = swift.get_object("bench-base", hash)
        image = pyvips.Image.thumbnail_buffer(body, 1024, height=512, size="down", option_string="[fail_on=error]")
        made = image.jpegsave_buffer(Q=80, keep="none")
        if {keeping}:
            swift.put_object("bench-derived", hash + "{suffix}", made, content_type="image/jpeg")
    print("done", flush=True)
"""
"""What anybody would write: get the original and render it. Who shares renditions looks for one before, and keeps it afterwards."""


def measured() -> Iterator[Line]:
    """Overhead, memory and truth."""
    with swift_box(Shape()) as box:
        yield from _overhead(box)
        yield from _memory(box)
    yield from _truth()


@contextmanager
def _served(box: SwiftBox, **more: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "var", **swift_settings(box, "bench"), **more) as server:
        yield server


def _overhead(box: SwiftBox) -> Iterator[Line]:
    """Ours by the loop: how long who asks alone waits, and the throughput of two.

    Nobody waits for his rendition to be kept, so who is alone asks when the one before is kept. Two at a time take both cores, of which
    Swift needs some for each of its answers. So the far tier is held against a loop that looks for renditions and keeps them, too.
    """
    pictures = _Pictures(box)
    with _served(box, IMG_DERIVED="off") as server:
        with _loop(box, 1) as loop:
            found = ratios(lambda: pictures.asked_alone(server), lambda: pictures.looped_alone(loop), ROUNDS)
        yield at_most(f"{WHAT}, time to the answer by swiftclient and pyvips", found, 1.25)
        with _loop(box, 2) as loop:
            found = ratios(lambda: pictures.asked(server), lambda: pictures.looped(loop), ROUNDS)
        yield at_most("the same, two at a time", found, 1.25)
    with _served(box) as server:
        with _loop(box, 1, looking=True) as loop:
            found = ratios(lambda: pictures.asked_alone(server), lambda: pictures.looped_alone(loop), ROUNDS)
        yield at_most("with the far tier, time to the answer by a loop that looks for the rendition first", found, 1.25)
        with _loop(box, 2, looking=True, keeping=True) as loop:
            found = ratios(lambda: pictures.asked(server), lambda: pictures.looped(loop), ROUNDS)
        yield at_most("the same, two at a time, by a loop that keeps it, too", found, 1.25)
        with _loop(box, 1) as loop:
            found = ratios(lambda: pictures.asked_alone(server), lambda: pictures.looped_alone(loop), ROUNDS)
        yield Line("with the far tier, time to the answer by a loop that neither looks nor keeps", told(found), "nothing", True)
    pictures.close()


@contextmanager
def _loop(box: SwiftBox, count: int, *, looking: bool = False, keeping: bool = False) -> Iterator[Bare]:
    account = account_of(box)
    script = LOOP.format(auth=account.auth_url, user=account.user, key=account.key, suffix=SUFFIX, looking=looking, keeping=keeping)
    with closing(Bare(script, count)) as loop:
        yield loop


class _Pictures:
    """Originals in Swift, new ones for each round; what is returned are seconds."""

    def __init__(self, box: SwiftBox) -> None:
        self._swift = Swift(account_of(box), PATIENCE)
        self._base = SwiftStore(Container("bench-base"), self._swift)
        self._data = PHOTO.read_bytes()

    def asked(self, server: Server) -> float:
        """Two at a time, over HTTP."""
        names = [f"/{hash}{SUFFIX}" for hash in self._new()]
        return seconds(lambda: fetch_all(server.port, names, 2))

    def asked_alone(self, server: Server) -> float:
        """One after the other, over one connection."""
        line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        with closing(line):
            return self._alone(lambda name: got(line, f"/{name}{SUFFIX}"))

    def looped(self, loop: Bare) -> float:
        """By as many processes as the loop has."""
        hashes = self._new()
        return seconds(lambda: loop.render(hashes))

    def looped_alone(self, loop: Bare) -> float:
        """One after the other."""
        return self._alone(lambda name: loop.render([name]))

    def close(self) -> None:
        """Close the connections."""
        self._swift.close()

    def _new(self) -> list[str]:
        return put_copies(self._data, COUNT, self._base)

    def _alone(self, work: Callable[[str], object]) -> float:
        total = 0.0
        for hash in self._new():
            time.sleep(PAUSE)
            began = time.perf_counter()
            work(hash)
            total += time.perf_counter() - began
        return total


def _memory(box: SwiftBox) -> Iterator[Line]:
    with _served(box, **LARGE) as server:
        path = server.data / "large.tif"
        noise = pyvips.Image.gaussnoise(13_000, 13_000, sigma=50, mean=128).cast("uchar")
        noise.bandjoin([noise, noise]).copy(interpretation="srgb").tiffsave(str(path))
        with Watch(server) as watch:
            (name,) = server.put(path)
            path.unlink()
            fetch_all(server.port, [f"/{name.removesuffix('.tif')}{SUFFIX}", f"/{name}"])
    yield Line("largest process while a 500 MB original is put, rendered and got", f"{watch.most:.0f} MB", "under 300 MB", watch.most < 300)


def _truth() -> Iterator[Line]:
    with swift_box(Shape(nodes=4, replicas=3)) as box, tempfile.TemporaryDirectory() as folder, far_from(box, Path(folder)) as far:
        known = [name for name in far.load.known if len(far.album.bodies[name]) < 200_000]
        crowd = Load(far.album.read, far.album.write, readers=16, writers=0, pause=0, subject=far.album.subject, known=known)
        with crowd:
            while len(crowd.events) < READS:
                time.sleep(0.2)
        tally = crowd.tally()
    wrong = len(tally.events) - tally.count("right")
    yield Line(f"reads of {len(tally.events)} by 16 threads that were not right", str(wrong), "0", wrong == 0)
