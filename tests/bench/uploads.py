"""Uploads: 8 clients with files of 5 MB, against the same bytes hashed and written with fsync; and the memory that a file of 2 GB takes."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.memory import Watch
from tests.bench.pictures import PHOTO
from tests.bench.ratio import Line, at_least, ratios
from tests.serving import Server, serving

CLIENTS = 8
FILES = 64
SIZE = 5_000_000
ROUNDS = 5
GIGABYTES = 2
MOST = 200

_serial = itertools.count()


def files() -> list[bytes]:
    """Photographs of 5 MB that nobody has seen: what a photo program wrote behind the end of the picture makes them large and different."""
    photo = PHOTO.read_bytes()
    return [photo + os.urandom(SIZE - len(photo)) for _ in range(FILES)]


def per_second(one: Callable[[bytes], object]) -> float:
    """How many files a second get done, by all clients together."""
    data = files()
    with ThreadPoolExecutor(CLIENTS) as pool:
        began = time.perf_counter()
        list(pool.map(one, data))
        return FILES / (time.perf_counter() - began)


def hashed_and_written(folder: Path) -> Callable[[bytes], object]:
    """What no upload can do without."""

    def one(data: bytes) -> None:
        hashlib.sha256(data).hexdigest()
        with (folder / f"{next(_serial)}").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    return one


def uploaded(server: Server) -> Callable[[bytes], object]:
    """An upload, answered."""

    def one(data: bytes) -> None:
        answer = server.ask("POST", "/admin/images", data)
        if answer.status != 201:
            raise RuntimeError(answer.body.decode())

    return one


def measured() -> Iterator[Line]:
    """The rate by the rate of the bare work, and the largest process while 2 GB come in."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        plain = Path(folder) / "plain"
        plain.mkdir()
        with serving(Path(folder) / "var") as server:
            ours, theirs = uploaded(server), hashed_and_written(plain)
            found = ratios(lambda: per_second(ours), lambda: per_second(theirs), ROUNDS)
        yield at_least(f"{CLIENTS} clients uploading 5 MB files, by what hashes and writes them with fsync", found, 0.7)
        with serving(Path(folder) / "large", IMG_LIMITS_FILE_BYTES="3G") as server, Watch(server) as watch:
            status, body = large(server)
        told = f"{watch.most:.0f} MB" + (f", {status} {body.decode()}" if status != 201 else "")
        yield Line(f"largest process while {GIGABYTES} GB come in", told, f"at most {MOST} MB", status == 201 and watch.most <= MOST)


def large(server: Server) -> tuple[int, bytes]:
    """Upload a photograph with very much behind its end; the status and the body of the answer."""
    photo, rest = PHOTO.read_bytes(), os.urandom(2**20)
    length = int(GIGABYTES * 2**30)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.putrequest("POST", "/admin/images")
    connection.putheader("Authorization", f"Bearer {server.token}")
    connection.putheader("Content-Length", str(length))
    connection.endheaders(photo)
    left = length - len(photo)
    while left:
        piece = rest[: min(left, len(rest))]
        connection.send(piece)
        left -= len(piece)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()
