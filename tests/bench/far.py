"""Far originals: cold renditions out of a Swift against a bare loop over swiftclient and pyvips, a large original, and many readers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyvips

from imgproxy.stores.swift import Container, Swift, SwiftStore
from tests.album import swift_settings
from tests.bench.cold import SUFFIX, Bare
from tests.bench.load import fetch_all
from tests.bench.memory import Watch
from tests.bench.pictures import PHOTO, put_copies
from tests.bench.ratio import Line, at_most, ratios, seconds
from tests.far import far_from
from tests.load import Load
from tests.serving import Server, serving
from tests.swift_fixtures import PATIENCE, account_of, swift_box
from tests.swiftbox import Shape, SwiftBox

COUNT = 12
ROUNDS = 9
READS = 100_000
LARGE = {"IMG_LIMITS_FILE_BYTES": "600M", "IMG_LIMITS_PIXELS": "200000000", "IMG_LIMITS_DECODED_BYTES": "600M"}

BARE = """
import sys, pyvips
from swiftclient.client import Connection
pyvips.cache_set_max(0)
swift = Connection({auth!r}, {user!r}, {key!r})
for line in sys.stdin:
    for hash in line.split():
        _, body = swift.get_object("bench-base", hash)
        image = pyvips.Image.thumbnail_buffer(body, 1024, height=512, size="down", option_string="[fail_on=error]")
        image.jpegsave_buffer(Q=80, keep="none")
    print("done", flush=True)
"""


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
    account = account_of(box)
    swift = Swift(account, PATIENCE)
    base, data = SwiftStore(Container("bench-base"), swift), PHOTO.read_bytes()
    script = BARE.format(auth=account.auth_url, user=account.user, key=account.key)
    with _served(box) as server:
        for what, processes in (("one after the other", 1), ("two at a time", 2)):
            bare = Bare(script, processes)

            def ours(lines: int = processes) -> float:
                names = [f"/{hash}{SUFFIX}" for hash in put_copies(data, COUNT, base)]
                return seconds(lambda: fetch_all(server.port, names, lines))

            def theirs(bare: Bare = bare) -> float:
                hashes = put_copies(data, COUNT, base)
                return seconds(lambda: bare.render(hashes))

            found = ratios(ours, theirs, ROUNDS)
            bare.close()
            yield at_most(f"cold 6-megapixel rendition of an original in Swift, {what}, by swiftclient and pyvips", found, 1.25)
    swift.close()


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
