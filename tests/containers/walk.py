"""All of compose.yaml, in one long walk: write, derive, read, delete, lose a node, begin anew, restart without a lost request."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from tests.containers.engine import Stack, answers, built, stack
from tests.plain import png
from tests.readers import Readers, ask, until

RESTARTS = int(os.environ.get("RESTARTS", "3"))
NODES = ("node1", "node2")


@pytest.fixture(scope="module")
def all_of_it() -> Iterator[Stack]:
    built()
    began = time.monotonic()
    with stack() as one:
        print(f"\nup after {time.monotonic() - began:.1f} s")
        yield one


def put(one: Stack, picture: bytes, at: str = "") -> str:
    """Keep a picture in the default session of whoever is asked; its hash."""
    kept = one.write("POST", "/admin/images", picture, at, "image/png")
    assert kept.status == 201, kept.body
    hash: str = kept.json["hash"]
    return hash


def commit(one: Stack, at: str = "") -> None:
    """Commit it; a node that is not the writer waits until the other one lets it."""
    until(lambda: one.write("POST", "/admin/commit", at=at).status in (200, 201), "it is not committed", 300)


def knows(one: Stack, service: str, hash: str) -> bool:
    return one.write("GET", f"/admin/images/{hash}", at=one.node(service)).status == 200


def test_what_is_uploaded_through_any_is_derived_and_read_through_any(all_of_it: Stack) -> None:
    one = all_of_it
    pictures = {"": put(one, png(300, 200)), **{name: put(one, png(300, 200, seed=n + 1), one.node(name)) for n, name in enumerate(NODES)}}
    for hash in pictures.values():
        for at in (one.edge, *map(one.node, NODES)):
            assert ask(at, "GET", f"/{hash}.png").status == 200
            assert ask(at, "GET", f"/{hash}-100x.webp").status == 200
    commit(one)
    commit(one, one.node("node2"))
    for service in NODES:
        for hash in pictures.values():
            until(lambda: knows(one, service, hash), f"{service} does not follow")  # noqa: B023
    ordered = one.write("POST", "/admin/derive", {"hashes": list(pictures.values()), "suffixes": ["-123x.avif"]})
    assert ordered.status == 202, ordered.body
    task = ordered.json["id"]
    until(lambda: one.write("GET", f"/admin/tasks/{task}").json["state"] == "succeeded", "nobody derives")
    for hash in pictures.values():
        assert ask(one.edge, "GET", f"/{hash}-123x.avif").tier != "render"


def test_what_is_deleted_on_one_node_is_gone_on_the_other(all_of_it: Stack) -> None:
    one = all_of_it
    hash = put(one, png(200, 200, seed=9), one.node("node2"))
    commit(one, one.node("node2"))
    until(lambda: knows(one, "node1", hash), "node1 does not follow")
    for service in NODES:
        assert ask(one.node(service), "GET", f"/{hash}-50x.webp").status == 200
    assert one.write("DELETE", f"/admin/images/{hash}").status in (200, 204)
    commit(one)
    began = time.monotonic()
    for service in NODES:
        for name in (f"{hash}.png", f"{hash}-50x.webp"):
            at = one.node(service)
            until(lambda: ask(at, "GET", f"/{name}").status == 404, f"{service} still has {name}", 60)  # noqa: B023
    print(f"\ngone everywhere after {time.monotonic() - began:.1f} s")


def test_a_node_that_is_killed_is_missed_by_nobody_who_reads(all_of_it: Stack) -> None:
    one = all_of_it
    hash = put(one, png(900, 900, seed=20))
    with Readers(one.edge, hash) as readers:
        readers.more(100)
        for service in NODES:
            one.compose("kill", service)
            readers.more(200)
            one.compose("start", service)
            until(lambda: answers(one.node(service)), f"{service} does not come back")  # noqa: B023
            readers.more(100)
    print(f"\n{dict(readers.answers)}, the slowest {readers.slowest:.1f} s")
    assert set(readers.answers) == {"200"}


def test_an_empty_node_comes_back_out_of_swift(all_of_it: Stack) -> None:
    one = all_of_it
    hash = put(one, png(210, 140, seed=30))
    assert one.write("PATCH", f"/admin/images/{hash}", {"title": "Out of nothing", "domain": "from", "dkey": "nothing"}).status == 200
    commit(one)
    one.compose("rm", "-sfv", "node1")
    one.compose("rm", "-sfv", "node2")
    for service in NODES:
        docker_volume = f"{one.name}_{service}"
        one.compose(
            "run", "--rm", "--no-deps", "--entrypoint", "sh", "-v", f"{docker_volume}:/old", "secrets", "-c", "rm -rf /old/* /old/.[!.]*"
        )
    one.compose("up", "-d", "--wait", *NODES)
    until(lambda: answers(one.edge), "the edge does not find them")
    for service in NODES:
        at = one.node(service)
        until(lambda: ask(at, "GET", "/from/nothing").status == 302, f"{service} does not know its aliases")  # noqa: B023
        assert one.write("GET", f"/admin/images/{hash}", at=at).json["title"] == "Out of nothing"
        assert ask(at, "GET", f"/{hash}-70x.webp").status == 200


@contextmanager
def writing(one: Stack) -> Iterator[Counter[str]]:
    """Uploads through the edge, one after the other and none of them twice, while the block runs; what they were answered."""
    answers: Counter[str] = Counter()
    done = threading.Event()

    def write() -> None:
        for seed in count(1000):
            if done.wait(0.1):
                return
            try:
                told = str(one.write("POST", "/admin/images", png(60, 40, seed=seed), type="image/png").status)
            except (OSError, http.client.HTTPException) as error:
                told = repr(error)
            answers[told] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join(150)


def test_nodes_are_restarted_one_by_one_without_a_lost_request(all_of_it: Stack) -> None:
    one = all_of_it
    hash = put(one, png(900, 900, seed=40))
    with Readers(one.edge, hash) as readers, writing(one) as writes:
        readers.more(50)
        for number in range(RESTARTS):
            service = NODES[number % len(NODES)]
            one.compose("restart", "-t", "45", service)
            until(lambda: answers(one.node(service)), f"{service} does not come back")  # noqa: B023
            readers.more(20)
            print(number + 1, dict(readers.answers), dict(writes), flush=True)
    print(f"\n{RESTARTS} restarts, read {dict(readers.answers)}, wrote {dict(writes)}, the slowest {readers.slowest:.1f} s")
    assert set(readers.answers) == {"200"}
    assert set(writes) == {"201"}
