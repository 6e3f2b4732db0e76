"""What stands before the nodes: an nginx that spreads names over them, and Varnish with the settings of conf/."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.edging import edging, nginx
from tests.plain import png, written
from tests.readers import Readers, until
from tests.serving import COMMAND, Response, Server, environment, free_port

VCL = Path(__file__).parent.parent / "conf" / "varnish.vcl"


def answers(front: Server, status: int) -> bool:
    try:
        return front.get("/healthz").status == status
    except OSError:
        return False


@contextmanager
def running(words: list[str], server: Server, port: int, status: int = 200) -> Iterator[Server]:
    """The same server, asked by way of what these words start, and which says at first how the server is."""
    said = server.data / f"front-{port}.log"
    with said.open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    front = replace(server, port=port)
    try:
        until(lambda: answers(front, status) or process.poll() is not None, "nobody stands in front")
        assert process.poll() is None, said.read_text()
        yield front
    finally:
        process.terminate()
        process.wait(60)


# ---- several nodes


@contextmanager
def alone(data: Path, server: Server, status: int = 200, **settings: str) -> Iterator[Server]:
    """The same server, asked by way of an nginx of one's own with these settings."""
    port = free_port()
    env = environment(data, IMG_BIND=f"127.0.0.1:{port}", **settings)
    conf = subprocess.run([COMMAND, "nginx"], env=env, capture_output=True, check=True, timeout=60).stdout
    (data / "run" / "nginx").mkdir(parents=True)
    own = str(written(data / "nginx.conf", conf))
    words = [nginx(), "-e", "stderr", "-c", own, "-g", "daemon off;" + " user root;" * (os.geteuid() == 0)]
    with running(words, server, port, status) as front:
        yield front


@contextmanager
def spread(folder: Path, nodes: list[Server]) -> Iterator[Server]:
    """Nodes behind an nginx that spreads names over them."""
    with alone(folder / "front", nodes[0], IMG_EDGE_NODES=",".join(f"127.0.0.1:{node.port}" for node in nodes)) as front:
        yield front


def test_names_are_spread_over_nodes_and_a_node_that_dies_costs_no_read(tmp_path: Path) -> None:
    with ExitStack() as opened:
        store = f"fs://{tmp_path}/store"
        nodes = [opened.enter_context(edging(tmp_path / f"node{number}", IMG_STORE=store)) for number in range(2)]
        front = opened.enter_context(spread(tmp_path, nodes))
        (name,) = nodes[1].put(written(tmp_path / "a.png", png(900, 900)))
        hash = name.removesuffix(".png")
        for side in range(20, 50):
            assert [front.get(f"/{hash}-{side}x{side}.png").tier for _ in range(2)] == ["render", "disk"]
        lying = [len(list((node.data / "cache").rglob(f"{hash}-*.png"))) for node in nodes]
        assert sum(lying) == 30
        assert min(lying) >= 3
        assert front.get("/junk").status == 404
        with Readers(front.address, hash) as readers:
            readers.more(20)
            nodes[1].process.send_signal(signal.SIGKILL)
            readers.more(100)
        assert set(readers.answers) == {"200"}


def test_a_node_with_nobody_behind_its_nginx_costs_no_read(tmp_path: Path) -> None:
    with ExitStack() as opened:
        node = opened.enter_context(edging(tmp_path / "node"))
        hollow = opened.enter_context(alone(tmp_path / "hollow", node, 503))
        front = opened.enter_context(spread(tmp_path, [hollow, node]))
        (name,) = node.put(written(tmp_path / "a.png", png(900, 900)))
        hash = name.removesuffix(".png")
        told = hollow.get(f"/{name}")
        assert (told.status, told.headers["retry-after"], told.json["title"]) == (503, "1", "Cannot answer")
        with pytest.raises(ConnectionResetError):
            hollow.get(f"/{name}", X_Edge="spreading")
        for side in range(20, 60):
            assert front.get(f"/{hash}-{side}x{side}.png").status == 200
        until(lambda: '"status":444' in (node.data / f"front-{hollow.port}.log").read_text(), "the hollow node was not asked")


# ---- Varnish


@pytest.fixture
def varnish(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """A server, and the same by way of Varnish, which is told of deletions."""
    program = shutil.which("varnishd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("varnishd is not installed")
    port = free_port()
    told = {"IMG_PURGE": f"PURGE http://127.0.0.1:{port}/", "IMG_PURGE_HEADERS": "Surrogate-Key={hash}"}
    with edging(tmp_path / "var", **told) as server:
        vcl = written(tmp_path / "v.vcl", VCL.read_bytes().replace(b'.port = "8080"', f'.port = "{server.port}"'.encode()))
        place = ["-n", str(tmp_path / "varnish"), "-a", f"127.0.0.1:{port}", "-f", str(vcl), "-s", "malloc,64m"]
        with running([program, "-F", "-j", "none", *place], server, port) as front:
            yield server, front


def is_hit(answer: Response) -> bool:
    return len(answer.headers["x-varnish"].split()) == 2


def eventually(front: Server, target: str, status: int) -> None:
    def there() -> bool:
        return front.get(target).status == status

    check: Callable[[], bool] = there
    until(check, f"{target} is not {status}")


def test_varnish_keeps_pictures_and_forgets_what_is_deleted(varnish: tuple[Server, Server], tmp_path: Path) -> None:
    server, front = varnish
    (name, other) = server.put(written(tmp_path / "a.png", png(400, 200)), written(tmp_path / "b.png", png(400, 200, seed=1)))
    hash, kept = name.removesuffix(".png"), other.removesuffix(".png")
    targets = [f"/{hash}-100x100.jpg", f"/{hash}-50x50.webp", f"/{hash}.png", f"/{kept}-100x100.jpg"]
    for target in targets:
        first, second = front.get(target), front.get(target)
        assert (first.status, second.status, first.body) == (200, 200, second.body)
        assert not is_hit(first)
        assert is_hit(second)
        for header in ("etag", "cache-control", "content-type", "last-modified", "access-control-allow-origin", "surrogate-key"):
            assert second.headers[header] == server.get(target).headers[header]
    etag = front.get(targets[0]).headers["etag"]
    assert front.get(targets[0], If_None_Match=etag).status == 304
    assert front.get(targets[0], Range="bytes=3-9").body == front.get(targets[0]).body[3:10]
    run = {"env": dict(server.env), "check": True, "timeout": 60}
    subprocess.run([COMMAND, "commit"], **run)  # type: ignore[call-overload]
    subprocess.run([COMMAND, "remove", hash], **run)  # type: ignore[call-overload]
    assert all(is_hit(front.get(target)) for target in targets)
    subprocess.run([COMMAND, "commit"], **run)  # type: ignore[call-overload]
    for target in targets[:3]:
        eventually(front, target, 404)
    assert is_hit(front.get(targets[3]))


def test_varnish_keeps_no_trouble_and_a_404_not_for_long(varnish: tuple[Server, Server], tmp_path: Path) -> None:
    server, front = varnish
    hash = "70" * 32
    assert front.get(f"/{hash}-20x20.png").status == 404
    assert is_hit(front.get(f"/{hash}-20x20.png"))
    assert front.get("/healthz").status == 200
    assert not is_hit(front.get("/healthz"))
    stranger = front.get("/", "PURGE")
    assert stranger.status == 400
    picture = png(60, 60, seed=5)
    target = f"/{hashlib.sha256(picture).hexdigest()}-20x20.png"
    assert front.get(target).status == 404
    server.put(written(tmp_path / "later.png", picture))
    began = time.monotonic()
    eventually(front, target, 200)
    assert time.monotonic() - began < 60
