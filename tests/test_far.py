"""The whole walk over stores on the network: two nodes over one Swift, S3, a shared Redis, and what happens when they are away."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from imgproxy.stores.swift import Container, Swift, SwiftStore
from tests.plain import jpeg_size, png, written
from tests.serving import COMMAND, Server, environment, serving
from tests.swift_fixtures import PATIENCE, account_of, swift_box
from tests.swift_fixtures import swift_box_1 as swift_box_1
from tests.swiftbox import Shape, SwiftBox


def swift_settings(box: SwiftBox, prefix: str) -> dict[str, str]:
    account = account_of(box)
    return {"IMG_STORE": f"swift://{prefix}", "ST_AUTH": account.auth_url, "ST_USER": account.user, "ST_KEY": account.key}


def container(box: SwiftBox, name: str) -> SwiftStore:
    return SwiftStore(Container(name), Swift(account_of(box), PATIENCE))


def until(wanted: object, ask: object) -> None:
    """Ask until the answer is the one that is wanted, or a generous while is over."""
    deadline = time.monotonic() + 30
    while ask() != wanted:  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, swift_box_1: SwiftBox) -> Iterator[tuple[Server, Server]]:
    """Two nodes, each with a disk of its own, over one Swift."""
    settings = swift_settings(swift_box_1, "two-nodes")
    with ExitStack() as stack:
        one, two = (stack.enter_context(serving(tmp_path_factory.mktemp(name), **settings)) for name in ("one", "two"))
        yield one, two


@pytest.fixture(scope="module")
def hash(nodes: tuple[Server, Server]) -> str:
    (name,) = nodes[0].put(written(nodes[0].data / "a.png", png(400, 200, seed=11)))
    return name.removesuffix(".png")


def test_an_original_put_on_one_node_is_served_by_the_other(nodes: tuple[Server, Server], hash: str) -> None:
    answer = nodes[1].get(f"/{hash}.png")
    assert (answer.status, answer.body) == (200, png(400, 200, seed=11))


def test_a_rendition_made_on_one_node_is_a_hit_on_the_other(nodes: tuple[Server, Server], swift_box_1: SwiftBox, hash: str) -> None:
    name = f"{hash}-100x.jpg"
    made = nodes[0].get(f"/{name}")
    assert (made.status, made.tier, jpeg_size(made.body)) == (200, "render", (100, 50))
    derived = container(swift_box_1, "two-nodes-derived")
    until(True, lambda: derived.head(name, fresh=True) is not None)
    far, near = nodes[1].get(f"/{name}"), nodes[1].get(f"/{name}")
    assert (far.tier, near.tier) == ("derived", "disk")
    assert far.body == near.body == made.body
    item = derived.head(name)
    assert item is not None
    assert (item.type, item.note["edition"]) == ("image/jpeg", "1")


def test_containers_were_made_and_what_is_in_them_is_named_for_itself(
    nodes: tuple[Server, Server], swift_box_1: SwiftBox, hash: str
) -> None:
    item = container(swift_box_1, "two-nodes-base").head(hash)
    assert item is not None
    assert (item.type, item.note["width"], item.note["height"], item.note["type"]) == ("image/png", "400", "200", "png")


def test_a_rotten_rendition_in_the_store_is_made_anew(nodes: tuple[Server, Server], swift_box_1: SwiftBox, hash: str) -> None:
    import io

    name = f"{hash}-90x.jpg"
    good = nodes[0].get(f"/{name}").body
    derived = container(swift_box_1, "two-nodes-derived")
    until(True, lambda: derived.head(name, fresh=True) is not None)
    item = derived.head(name)
    assert item is not None
    derived.put(name, io.BytesIO(good[:-1] + b"x"), type=item.type, note=item.note)
    answer = nodes[1].get(f"/{name}")
    assert (answer.tier, answer.body) == ("render", good)


def test_a_rotten_original_in_the_store_is_never_rendered(nodes: tuple[Server, Server], swift_box_1: SwiftBox) -> None:
    import hashlib
    import io

    hash = hashlib.sha256(png(50, 50, seed=12)).hexdigest()
    container(swift_box_1, "two-nodes-base").put(hash, io.BytesIO(png(50, 50, seed=13)))
    for suffix in ("-20x.jpg", ".png"):
        assert nodes[0].get(f"/{hash}{suffix}").status == 502


def test_many_who_ask_both_nodes_at_once_get_the_same_bytes(nodes: tuple[Server, Server], hash: str) -> None:
    with ThreadPoolExecutor(40) as threads:
        asked = [threads.submit(nodes[turn % 2].get, f"/{hash}-123x.webp") for turn in range(80)]
        answers = [answer.result() for answer in asked]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert [answer.tier for answer in answers].count("render") <= 2


def test_it_is_ready_and_says_of_what(nodes: tuple[Server, Server]) -> None:
    answer = nodes[0].get("/readyz")
    told = json.loads(answer.body)
    assert told["ready"] is True
    assert {"base": "ok", "renderers": "ok", "disk": "ok", "derived": "ok"}.items() <= told["dependencies"].items()


def test_without_swift_what_is_near_is_served_and_the_rest_fails_fast_and_comes_back(tmp_path: Path) -> None:
    with swift_box(Shape()) as box, serving(tmp_path / "var", **swift_settings(box, "away")) as server:
        (name,) = server.put(written(tmp_path / "a.png", png(300, 300, seed=14)))
        hash = name.removesuffix(".png")
        assert server.get(f"/{hash}-50x.png").status == 200
        assert server.get("/readyz").status == 200
        box.ctl("kill", "proxy")
        for side in range(60, 75):
            assert server.get(f"/{'0' * 64}-{side}x.png").status == 503
        assert server.get(f"/{hash}-50x.png").tier == "disk"
        assert server.get(f"/{hash}-51x.png").tier == "render", "the original was near already"
        ready = server.get("/readyz")
        assert (ready.status, json.loads(ready.body)["dependencies"]["base"] != "ok") == (503, True)
        began = time.monotonic()
        cold = server.get(f"/{'0' * 64}-80x.png")
        assert (cold.status, cold.headers["retry-after"], time.monotonic() - began < 5) == (503, "1", True)
        box.ctl("start", "proxy")
        until(404, lambda: server.get(f"/{'0' * 64}-81x.png").status)
        until(200, lambda: server.get("/readyz").status)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ST_KEY": "wrong"}, ["ST_KEY"]),
        ({"ST_USER": ""}, ["ST_USER"]),
        ({"ST_AUTH": "nonsense"}, ["ST_AUTH"]),
        ({"IMG_STORE": "swift://nobody-made?make=no"}, ["nobody-made-base", "does not exist"]),
        ({"IMG_STORE": "swift://no-policy?base_policy=platinum"}, ["no-policy-base", "platinum"]),
    ],
)
def test_what_is_wrong_with_the_store_is_said_at_once(
    tmp_path: Path, swift_box_1: SwiftBox, wrong: dict[str, str], said: list[str]
) -> None:
    env = environment(tmp_path / "var", **{**swift_settings(swift_box_1, "wrong"), **wrong}, IMG_BIND="127.0.0.1:1")
    picture = written(tmp_path / "a.png", png(4, 4))
    for words in (["serve"], ["put", str(picture)]):
        done = subprocess.run([COMMAND, *words], env=env, capture_output=True, timeout=60, check=False)
        assert done.returncode != 0
        assert b"Traceback" not in done.stderr
        for word in said:
            assert word.encode() in done.stderr


def test_the_same_over_s3(tmp_path: Path, swift_box_1: SwiftBox) -> None:
    info = swift_box_1.info
    swift = Swift(account_of(swift_box_1), PATIENCE)
    SwiftStore(Container("bucket"), swift).prepare()
    keys = {
        "IMG_STORE": "s3://bucket/photos",
        "AWS_ENDPOINT_URL": info["s3_endpoint"],
        "AWS_ACCESS_KEY_ID": info["s3_access_key"],
        "AWS_SECRET_ACCESS_KEY": info["s3_secret_key"],
        "AWS_REGION": "us-east-1",
    }
    with serving(tmp_path / "var", **keys) as server:
        (name,) = server.put(written(tmp_path / "a.png", png(300, 300, seed=15)))
        hash = name.removesuffix(".png")
        made = server.get(f"/{hash}-50x.png")
        assert (made.status, made.tier) == (200, "render")
        assert server.get(f"/{name}").body == png(300, 300, seed=15)
        stored = SwiftStore(Container("bucket"), swift)
        until(True, lambda: {f"photos/base/{hash}", f"photos/derived/{hash}-50x.png"} <= {item.key for item in stored.list()})
