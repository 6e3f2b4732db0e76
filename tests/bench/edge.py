"""The edge: hits and 304s through our nginx against a bare nginx and against gunicorn; and what nginx adds to a cold request."""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from imgproxy.edge import together
from imgproxy.picture import EDITION_TIME
from tests.bench.load import requests_per_second
from tests.bench.pictures import PHOTO
from tests.bench.ratio import Line, at_least, ratios
from tests.serving import Server, free_port, serving

ROUNDS = 9
SECONDS = 1
COLD = 60

BARE = """
worker_processes {workers};
pid {home}/pid;
error_log stderr warn;
events {{ }}
http {{
    types {{ image/jpeg jpg; }}
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_body_temp_path {home}/a;
    proxy_temp_path {home}/b;
    fastcgi_temp_path {home}/c;
    uwsgi_temp_path {home}/d;
    scgi_temp_path {home}/e;
    server {{
        listen 127.0.0.1:{port};
        root {home}/plain;
    }}
}}
"""


@contextmanager
def bare(name: str, data: bytes, home: Path) -> Iterator[int]:
    """The port of an nginx that knows a directory and nothing else; it writes no log, and ours does."""
    port = free_port()
    (home / "plain").mkdir(parents=True)
    (home / "plain" / name).write_bytes(data)
    os.utime(home / "plain" / name, (EDITION_TIME, EDITION_TIME))
    (home / "nginx.conf").write_text(BARE.format(workers=2, home=home, port=port))
    words = ["-e", "stderr", "-c", str(home / "nginx.conf"), "-g", "daemon off;" + " user root;" * (os.geteuid() == 0)]
    process = subprocess.Popen([together.nginx(), *words])
    try:
        for _ in range(600):
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/{name}", timeout=5):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def measured() -> list[Line]:
    """Requests a second by each other's, and milliseconds."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        alone = opened.enter_context(serving(folder / "alone"))
        edge = opened.enter_context(serving(folder / "edge", IMG_EDGE="nginx"))
        (base,) = {server.put(PHOTO)[0] for server in (edge, alone)}
        name = base.removesuffix(".jpg") + "-640x480.jpg"
        picture = edge.get(f"/{name}")
        alone.get(f"/{name}")
        port = opened.enter_context(bare(name, picture.body, folder / "bare"))
        lines = _hits(name, edge.port, port, alone.port)
        lines += _hits(name, edge.port, port, alone.port, f"If-None-Match: {picture.headers['etag']}")
        return [*lines, _cold(base.removesuffix(".jpg"), edge, alone)]


def _hits(name: str, ours: int, bare: int, gunicorn: int, *headers: str) -> list[Line]:
    def asked(port: int, seconds: int) -> Callable[[], float]:
        return lambda: requests_per_second(port, f"/{name}", seconds, *headers)

    what = "304" if headers else "hit"
    return [
        at_least(f"{what} through our nginx, by a bare nginx", ratios(asked(ours, SECONDS), asked(bare, SECONDS), ROUNDS), 0.95),
        at_least(f"{what} through our nginx, by gunicorn alone", ratios(asked(ours, SECONDS), asked(gunicorn, SECONDS), 3), 5.0),
    ]


def _cold(hash: str, edge: Server, alone: Server) -> Line:
    """One after the other, whoever is first: the same name, that neither has seen."""
    lines = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for server in (edge, alone)]
    more = []
    for number in range(COLD + 5):
        target = f"/{hash}-{300 + number}x{300 + number}.jpg"
        took = {which: _milliseconds(lines[which], target) for which in ((0, 1) if number % 2 else (1, 0))}
        more.append(took[0] - took[1])
    found = statistics.median(more[5:])
    spread = statistics.quantiles(more[5:], n=10)
    figure = f"{found:+.2f} ms (of ten, nine below {spread[-1]:+.2f}, {COLD} names)"
    return Line("a cold rendition behind nginx, more than by gunicorn alone", figure, "at most 3 ms", found <= 3.0)


def _milliseconds(line: http.client.HTTPConnection, target: str) -> float:
    began = time.perf_counter()
    line.request("GET", target)
    answer = line.getresponse()
    answer.read()
    assert answer.status == 200
    return (time.perf_counter() - began) * 1000
