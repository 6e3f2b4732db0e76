"""Uploads: 8 clients with files of 5 MB, against the same bytes hashed and written with fsync; and the memory that a file of 2 GB takes.

What hashes takes what a record needs: the SHA-256 that names a picture, and the MD5 by which old addresses look it up. Where the disk
is quick, what sends and receives the bytes weighs more than the SHA-256 and the writing. So there are further lines: against both sums,
and against a bare application on the same gunicorn, which hashes and writes what it is sent, and nothing else.
"""

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

from tests.bench.hits import bare
from tests.bench.memory import Watch
from tests.bench.pictures import PHOTO
from tests.bench.ratio import Line, at_least, ratios, told
from tests.serving import Server, serving

CLIENTS = 8
FILES = 64
SIZE = 5_000_000
ROUNDS = 5
GIGABYTES = 2
MOST = 200

BARE = """
import hashlib, os, secrets
def app(environ, start_response):
    left = int(environ.get("CONTENT_LENGTH") or 0)
    sums = [hashlib.new(sum) for sum in environ["PATH_INFO"][1:].split("+")] if left else []
    with open(os.path.join(os.environ["BARE_FOLDER"], secrets.token_hex(8)), "wb", buffering=0) as file:
        while left:
            data = environ["wsgi.input"].read(min(left, 2**18))
            left -= len(data)
            for sum in sums:
                sum.update(data)
            file.write(data)
        os.fsync(file.fileno())
    start_response("201 Created", [("Content-Length", "0")])
    return []
"""

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


def hashed_and_written(folder: Path, *sums: str) -> Callable[[bytes], object]:
    """What no upload can do without."""

    def one(data: bytes) -> None:
        for sum in sums:
            hashlib.new(sum, data, usedforsecurity=False).hexdigest()
        with (folder / f"{next(_serial)}").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    return one


def received(port: int, *sums: str) -> Callable[[bytes], object]:
    """The same, sent over a connection."""

    def one(data: bytes) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        line.request("POST", f"/{'+'.join(sums)}", data)
        answer = line.getresponse()
        answer.read()
        line.close()
        if answer.status != 201:
            raise RuntimeError(answer.status)

    return one


def uploaded(server: Server) -> Callable[[bytes], object]:
    """An upload, answered."""

    def one(data: bytes) -> None:
        answer = server.ask("POST", "/admin/images", data)
        if answer.status != 201:
            raise RuntimeError(answer.body.decode())

    return one


def measured() -> Iterator[Line]:
    """The rate by the rates of the bare work, and the largest process while 2 GB come in."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        plain = Path(folder) / "plain"
        plain.mkdir()
        with serving(Path(folder) / "var") as server, bare(BARE, Path(folder), BARE_FOLDER=str(plain)) as port:
            what = f"{CLIENTS} clients uploading 5 MB files"
            both = "sha256", "md5"
            found = against(uploaded(server), hashed_and_written(plain, "sha256"))
            yield at_least(f"{what}, by what hashes (SHA-256) and writes them with fsync", found, 0.7)
            found = against(uploaded(server), hashed_and_written(plain, *both))
            yield Line("the same, by what takes the MD5, too", told(found), "", holds=True)
            found = against(uploaded(server), received(port, *both))
            yield at_least(f"{what}, by a bare application that does no more than that", found, 0.7)
            found = against(received(port, "sha256"), hashed_and_written(plain, "sha256"))
            yield Line("that bare application without MD5, by what takes no MD5 either", told(found), "", holds=True)
        with serving(Path(folder) / "large", IMG_LIMITS_FILE_BYTES="3G") as server, Watch(server) as watch:
            status, body = large(server)
        figure = f"{watch.most:.0f} MB" + (f", {status} {body.decode()}" if status != 201 else "")
        yield Line(f"largest process while {GIGABYTES} GB come in", figure, f"at most {MOST} MB", status == 201 and watch.most <= MOST)


def against(ours: Callable[[bytes], object], theirs: Callable[[bytes], object]) -> list[float]:
    """Our rate by theirs, a round each in turn."""
    return ratios(lambda: per_second(ours), lambda: per_second(theirs), ROUNDS)


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
