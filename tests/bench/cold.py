"""Cold renditions: gunicorn with two workers against a bare loop over pyvips in two processes, and against thumbor."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from tests.bench.load import fetch_all
from tests.bench.pictures import PHOTO, copies
from tests.bench.ratio import Line, at_least, ratios, seconds
from tests.serving import free_port, serving

COUNT = 24
ROUNDS = 9
SUFFIX = "-1024x512.jpg"
THUMBOR = Path(__file__).parents[2] / ".venv-bench" / "bin" / "thumbor"
"""What `make bench` installs, by a lock of its own."""

BARE = """
import sys, pyvips
pyvips.cache_set_max(0)
for line in sys.stdin:
    for path in line.split():
        image = pyvips.Image.thumbnail(path, 1024, height=512, size="down", fail_on="error")
        image.jpegsave_buffer(Q=80, keep="none")
    print("done", flush=True)
"""


class Bare:
    """Processes that do nothing but render what they are told to, a line of words at a time."""

    def __init__(self, script: str = BARE, count: int = 2) -> None:
        env = {**os.environ, "VIPS_CONCURRENCY": "1"}
        words = [sys.executable, "-c", script]
        self._processes = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for _ in range(count)]

    def render(self, files: Sequence[object]) -> None:
        """Render them all, the processes sharing the work."""
        for place, process in enumerate(self._processes):
            assert process.stdin is not None
            print(*files[place :: len(self._processes)], file=process.stdin, flush=True)
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.communicate()


@contextmanager
def thumbor(files: Path) -> Iterator[int]:
    """The port of a thumbor that reads `files`, with two processes and nothing kept."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        conf.write(
            f"LOADER = 'thumbor.loaders.file_loader'\nFILE_LOADER_ROOT_PATH = {str(files)!r}\n"
            "STORAGE = 'thumbor.storages.no_storage'\nENGINE = 'thumbor.engines.pil'\nQUALITY = 80\n"
            "ALLOW_UNSAFE_URL = True\nMAX_WIDTH = 0\nMAX_HEIGHT = 0\nAUTO_WEBP = False\n"
        )
        conf.flush()
        words = [str(THUMBOR), "--ip", "127.0.0.1", "--port", str(port), "--processes", "2", "--conf", conf.name, "--log-level", "error"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            _until_it_answers(port)
            yield port
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def _until_it_answers(port: int) -> None:
    for _ in range(600):
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5):
            return
        time.sleep(0.05)
    raise RuntimeError("thumbor does not answer")


def measured() -> list[Line]:
    """Throughput of ours by theirs."""
    lines, data, bare = [], PHOTO.read_bytes(), Bare()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "var") as server:
        store = Path(folder) / "var" / "store"

        def ours() -> float:
            names = [f"/{file.name}{SUFFIX}" for file in copies(data, COUNT, store)]
            return COUNT / seconds(lambda: fetch_all(server.port, names))

        def loop() -> float:
            files = copies(data, COUNT, store)
            return COUNT / seconds(lambda: bare.render(files))

        lines.append(at_least("cold 6-megapixel rendition, throughput by a bare pyvips loop", ratios(ours, loop, ROUNDS), 0.93))
        with thumbor(store / "base") as port:

            def rival() -> float:
                files = copies(data, COUNT, store)
                paths = [f"/unsafe/fit-in/1024x512/{file.relative_to(store / 'base')}" for file in files]
                return COUNT / seconds(lambda: fetch_all(port, paths))

            lines.append(at_least("the same, by thumbor 7", ratios(ours, rival, ROUNDS), 1.25))
    bare.close()
    return lines
