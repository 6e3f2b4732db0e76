"""The local tier under hits that never pass through Python: within its size, and what is read often stays."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from imgproxy.picture import EDITION
from tests.edging import edging, nginx
from tests.plain import noise, written
from tests.serving import Server

ROOT = Path(__file__).parent.parent
SIZE = 3 * 2**20


def published(server: Server, name: str) -> Path:
    return server.data / "cache" / str(EDITION) / name[:2] / name[2:4] / name


def taken(folder: Path) -> int:
    """The bytes that a directory takes on the disk, each file counted once."""
    found: dict[int, int] = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            facts = path.lstat()
            found[facts.st_ino] = facts.st_blocks * 512
    return sum(found.values())


def test_what_nginx_gives_often_stays_and_the_tier_keeps_its_size(tmp_path: Path) -> None:
    with edging(tmp_path / "var", IMG_CACHE=f"disk://?size={SIZE}") as server:
        if os.statvfs(server.data).f_flag & os.ST_NOATIME:
            pytest.skip("this file system keeps no times of access")
        (base,) = server.put(written(tmp_path / "a.png", noise(200, 200, random.Random(1))))
        hash = base.removesuffix(".png")
        hot, cold = (f"{hash}-{side}x{side}.png" for side in (151, 152))
        server.get(f"/{cold}")
        server.get(f"/{hot}")
        inode = published(server, hot).stat().st_ino
        largest = evicted = 0
        for side in range(1, 141):
            assert server.get(f"/{hash}-{199 - side}x.png").status == 200
            answer = server.get(f"/{hot}")
            assert (answer.status, answer.tier) == (200, "disk")
            largest = max(largest, taken(server.data / "cache"))
            evicted += not published(server, cold).exists()
        assert published(server, hot).stat().st_ino == inode
        assert evicted > 20
        assert largest <= SIZE + 2 * 2**20  # SQLite's log, and what is just being written
        log = (server.data / "server.log").read_text()
        assert log.count(f'"target":"/{hot}","status":200,"origin"') == 1  # gunicorn has made it once, and was never asked again


def filled(folder: Path) -> Callable[[], None]:
    """Take all the room there is on a file system; returns how to give it back."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))
    return ballast.unlink


def test_on_a_full_disk_hits_and_renders_go_on(tmp_path: Path) -> None:
    """A small file system of its own for the tier, which nobody else sees."""
    nginx()
    alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    words = f"from pathlib import Path; from {__name__} import on_a_full_disk; on_a_full_disk(Path({str(tmp_path)!r})); print('held')"
    done = subprocess.run([*alone, sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert (done.stdout, done.stderr) == ("held\n", "")


def on_a_full_disk(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=True)
    with edging(folder / "var", IMG_CACHE=f"disk://{small}/tier?size=1G") as server:
        (base,) = server.put(written(folder / "a.png", noise(400, 400, random.Random(2))))
        hash = base.removesuffix(".png")
        bodies = {side: server.get(f"/{hash}-{side}x{side}.png").body for side in (10, 20, 30)}
        empty = filled(small)
        for side in range(300, 330):
            assert server.get(f"/{hash}-{side}x{side}.png").status == 200
        for side, body in bodies.items():
            assert server.get(f"/{hash}-{side}x{side}.png").body == body
        empty()
        for _ in range(2):
            last = server.get(f"/{hash}-299x299.png")
        assert (last.status, last.tier) == (200, "disk")
