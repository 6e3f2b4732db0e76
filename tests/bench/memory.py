"""Memory: a thousand mixed renders of 24-megapixel originals, and the largest process at any moment of each half."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import threading
from pathlib import Path

from tests.bench.load import fetch_all
from tests.bench.pictures import large
from tests.bench.ratio import Line
from tests.serving import Server, serving

RENDERS = 500
MOST = 400
SUFFIXES = (
    "-{side}x.jpg",
    "-{side}x{side}-fill_smart.webp",
    "-{side}x{side}-fill_entropy.jpg",
    "-{side}x-turn_90.png",
    "-x{side}-blur_20.jpg",
    "-{side}x-crop_500x500x3000x2500.webp",
    "-{side}x{side}-bg_102030-pad.jpg",
    "-{side}x-sharp_10.webp",
)


class Watch:
    """Looks at all processes of a server, again and again, and remembers the largest."""

    def __init__(self, server: Server) -> None:
        self.most = 0.0
        self._data = str(server.data)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    if self._data.encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                        pages = int((process / "statm").read_text().split()[1])
                        self.most = max(self.most, pages * 4096 / 2**20)
                except OSError:
                    continue


def measured() -> list[Line]:
    """The largest process, and what a second half adds."""
    halves = []
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "var", IMG_LIMITS_PIXELS="30000000") as server:
        hashes = []
        for kind, data in large().items():
            path = Path(folder) / kind
            path.write_bytes(data)
            server.put(path)
            hashes.append(hashlib.sha256(data).hexdigest())
        for half in range(2):
            sides = itertools.count(200 + half, 2)  # as large in one half as in the other, and no name twice
            names = [f"/{hashes[n % len(hashes)]}{SUFFIXES[n % len(SUFFIXES)].format(side=next(sides))}" for n in range(RENDERS)]
            with Watch(server) as watch:
                fetch_all(server.port, names)
            halves.append(watch.most)
    first, second = halves
    return [
        Line(f"largest process in {RENDERS} mixed renders of 24 megapixels", f"{first:.0f} MB", f"at most {MOST} MB", first <= MOST),
        Line("growth in a second such half", f"{(second / first - 1) * 100:+.1f} %", "less than 10 %", second < first * 1.1),
    ]
