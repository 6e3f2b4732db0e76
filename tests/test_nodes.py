"""Several nodes without containers: two of them and a worker over one Swift, behind an nginx that spreads names over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.album import swift_settings
from tests.edging import nginx
from tests.jobs.conftest import redis_url
from tests.plain import png
from tests.readers import Readers, until
from tests.serving import Server, free_port
from tests.swift_fixtures import swift_box_1
from tests.swiftbox import SwiftBox
from tests.test_edge_together import children, is_alive
from tests.test_front import running, well

__all__ = ["redis_url", "swift_box_1"]

TOKEN = "a-token-of-thirty-two-characters-or-more"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The edge, its nodes, and how another of them is started over the data of one that is gone."""

    edge: Server
    nodes: dict[str, Server]
    start: Callable[[str], Server]


@pytest.fixture
def cluster(swift_box_1: SwiftBox, redis_url: str, tmp_path: Path) -> Iterator[Cluster]:
    nginx()
    far = swift_settings(swift_box_1, "nodes") | {"IMG_JOBS": redis_url, "IMG_ADMIN_TOKEN": TOKEN, "IMG_WORKERS": "1"}
    ports = {"one": free_port(), "two": free_port()}
    with ExitStack() as stack:

        def start(name: str) -> Server:
            node = stack.enter_context(running(tmp_path / name, "serve", "--edge", **far, IMG_BIND=f"127.0.0.1:{ports[name]}"))
            until(well(node, "--ready"), f"{name} is not ready")
            return node

        nodes = {name: start(name) for name in ports}
        worker = stack.enter_context(running(tmp_path / "worker", "work", **far))
        until(well(worker, "--worker"), "no worker")
        among = ",".join(f"127.0.0.1:{port}" for port in ports.values())
        edge = stack.enter_context(running(tmp_path / "edge", "edge", IMG_EDGE_NODES=among, IMG_WORKERS="1"))
        until(well(edge, "--ready"), "no edge")
        yield Cluster(edge, nodes, start)


def put(node: Server, picture: bytes) -> str:
    kept = node.ask("POST", "/admin/images", picture, token=TOKEN, Content_Type="image/png")
    assert kept.status == 201, kept.body
    hash: str = kept.json["hash"]
    return hash


def committed(node: Server) -> Callable[[], bool]:
    return lambda: node.ask("POST", "/admin/commit", token=TOKEN).status in (200, 201)


def test_nodes_over_one_store_stand_in_for_each_other(cluster: Cluster) -> None:
    edge, nodes = cluster.edge, cluster.nodes
    hashes = [put(at, png(120, 80, seed=n)) for n, at in enumerate((edge, *nodes.values()))]
    for hash in hashes:
        for at in (edge, *nodes.values()):
            assert at.get(f"/{hash}.png").status == 200
            assert at.get(f"/{hash}-60x.webp").status == 200
    ordered = edge.ask("POST", "/admin/derive", {"hashes": hashes, "suffixes": ["-77x.jpg"]}, token=TOKEN)
    assert ordered.status == 202, ordered.body
    task = f"/admin/tasks/{ordered.json['id']}"
    until(lambda: edge.ask("GET", task, token=TOKEN).json["state"] == "succeeded", "nobody derives")
    until(committed(edge), "not committed")

    with Readers(edge.address, hashes[0]) as readers:
        readers.more(30)
        lost = children(nodes["two"].process.pid)
        nodes["two"].process.kill()
        readers.more(60)
        until(lambda: not any(map(is_alive, lost)), "something of it lives on")
        two = cluster.start("two")
        readers.more(30)
    assert set(readers.answers) == {"200"}

    deleted = edge.ask("DELETE", f"/admin/images/{hashes[0]}", token=TOKEN)
    assert deleted.status in (200, 204)
    until(committed(edge), "not committed")
    for at in (nodes["one"], two):
        until(lambda: at.get(f"/{hashes[0]}-60x.webp").status == at.get(f"/{hashes[0]}.png").status == 404, "still there")  # noqa: B023
