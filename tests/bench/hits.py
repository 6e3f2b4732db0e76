"""Hits: a rendition out of the local disk tier against a bare falcon responder that sends the same file, on the same gunicorn."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from imgproxy.picture import EDITION
from tests.bench.load import requests_per_second
from tests.bench.pictures import PHOTO
from tests.bench.ratio import Line, at_least, ratios
from tests.serving import environment, free_port, serving

CONF = Path(__file__).parents[2] / "conf" / "gunicorn.conf.py"
ROUNDS = 9
SECONDS = 3

BARE = """
import os, falcon
PATH = os.environ["BARE_FILE"]
class File:
    def on_get(self, req, resp, name):
        resp.content_type = "image/jpeg"
        resp.set_stream(open(PATH, "rb"), os.stat(PATH).st_size)
app = falcon.App()
app.add_route("/{name}", File())
"""


@contextmanager
def bare(code: str, folder: Path, **settings: str) -> Iterator[int]:
    """The port of a bare application, on a gunicorn that is set like ours; it answers a GET of anything."""
    port = free_port()
    (folder / "bare.py").write_text(code)
    words = ["-m", "gunicorn", "-c", str(CONF), "--chdir", str(folder), "bare:app"]
    env = environment(folder / "bare", IMG_BIND=f"127.0.0.1:{port}", IMG_LOG_LEVEL="warning", **settings)
    process = subprocess.Popen([sys.executable, *words], env=env)
    try:
        for _ in range(600):
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/x", timeout=5):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def measured() -> list[Line]:
    """Requests a second of ours by the bare responder's."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "var") as server:
        (base,) = server.put(PHOTO)
        name = base.removesuffix(".jpg") + "-640x480.jpg"
        server.get(f"/{name}")
        file = server.data / "cache" / str(EDITION) / name[:2] / name[2:4] / name
        with bare(BARE, Path(folder), BARE_FILE=str(file)) as port:

            def ours() -> float:
                return requests_per_second(server.port, f"/{name}", SECONDS)

            def theirs() -> float:
                return requests_per_second(port, f"/{name}", SECONDS)

            found = ratios(ours, theirs, ROUNDS)
    return [at_least("hit on the local disk, requests a second by a bare falcon responder", found, 0.8)]
