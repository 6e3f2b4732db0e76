"""One container: how large it is, how soon it is there, how it ends, and what it may."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from tests.containers.engine import IMAGE, ROOT, address_of, answers, built, container, docker
from tests.plain import png
from tests.readers import ask, until

TOKEN = "a-token-of-thirty-two-characters-or-more"
SAID = f"Bearer {TOKEN}"
OPEN: dict[str, str] = {"IMG_ADMIN_TOKEN": TOKEN, "IMG_EDGE_ADMIN": "0.0.0.0/0"}


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    built()


def put(address: str, picture: bytes) -> str:
    """Keep a picture; its hash."""
    kept = ask(address, "POST", "/admin/images", picture, Authorization=SAID, Content_Type="image/png")
    assert kept.status == 201, kept.body
    hash: str = kept.json["hash"]
    return hash


def test_the_image_is_small_and_says_what_it_is() -> None:
    told = json.loads(docker("image", "inspect", "imgproxy"))[0]
    print(f"\n{told['Size'] / 1e6:.0f} MB")
    assert told["Size"] < 250e6
    assert told["Config"]["User"] == "10001:10001"
    assert told["Config"]["Labels"]["org.opencontainers.image.licenses"] == "MIT"
    assert set(told["Config"]["Volumes"]) == {"/var/lib/imgproxy"}


def test_nothing_of_the_builder_is_in_it() -> None:
    with container({}, "work") as id:
        found = docker("exec", id, "sh", "-c", "ls -A /run/secrets /etc/pip.conf /src /wheels 2>/dev/null || true")
    assert [line for line in found.splitlines() if not line.endswith(":")] == []
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", "imgproxy")
    assert "BEGIN CERTIFICATE" not in history


def test_it_is_ready_within_three_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    took = []
    for _ in range(5):
        began = time.monotonic()
        with container(OPEN) as id:
            address = address_of(id)
            until(lambda: answers(address), "it is not ready")  # noqa: B023
            took.append(time.monotonic() - began)
    with capsys.disabled():
        print(f"\nready after {', '.join(f'{one:.2f}' for one in took)} s; load {os.getloadavg()[0]:.1f}")
    assert min(took) < 3  # the others say how busy this machine is


def test_nothing_is_compiled_when_it_starts() -> None:
    ask = """
import os, sys, gunicorn.app.wsgiapp, gunicorn.workers.gthread, imgproxy.cli, imgproxy.jobs.worker, imgproxy.pool.keeper, imgproxy.wsgi
made = [module.__cached__ for module in list(sys.modules.values()) if getattr(module, "__cached__", None)]
print(len(made) > 200, [path for path in made if not os.path.exists(path)])
"""
    assert docker("run", "--rm", "--entrypoint", "python", IMAGE, "-c", ask) == "True []"


def test_it_writes_nowhere_but_in_its_volume_and_feels_well() -> None:
    with container(OPEN) as id:
        address = address_of(id)
        until(lambda: answers(address), "it is not ready")
        hash = put(address, png(400, 300))
        assert ask(address, "GET", f"/{hash}-100x.webp").headers["content-type"] == "image/webp"
        assert docker("exec", id, "id", "-u") == "10001"
        assert docker("diff", id) == ""
        until(lambda: docker("inspect", "-f", "{{.State.Health.Status}}", id) == "healthy", "it does not feel well")


def test_jemalloc_and_the_jail_of_renderers_are_there() -> None:
    with container(OPEN) as id:
        address = address_of(id)
        until(lambda: answers(address), "it is not ready")
        hash = put(address, png(400, 300))
        assert ask(address, "GET", f"/{hash}-100x.webp").status == 200
        maps = docker("exec", id, "sh", "-c", "grep -l jemalloc /proc/[0-9]*/maps 2>/dev/null | wc -l")
        assert int(maps) >= 3
        # Nobody but a renderer may write no file at all; and what it has in its memory is shown to nobody.
        jailed = docker("exec", id, "sh", "-c", "grep -lE '^Max file size +0 +0 ' /proc/[0-9]*/limits | cut -d/ -f3").split()
        assert jailed
        for pid in jailed:
            assert "Permission denied" in docker("exec", id, "sh", "-c", f"cat /proc/{pid}/maps 2>&1 || true")
            assert docker("exec", id, "sh", "-c", f"grep NoNewPrivs /proc/{pid}/status").split() == ["NoNewPrivs:", "1"]


@pytest.mark.parametrize("command", [("serve", "--edge"), ("serve",)])
def test_what_is_in_flight_is_finished_when_it_is_stopped(command: tuple[str, ...]) -> None:
    with container(OPEN, *command) as id:
        address = address_of(id)
        until(lambda: answers(address), "it is not ready")
        hash = put(address, png(3000, 2000))
        told: list[int] = []
        targets = [f"/{hash}-{1500 + side}x-blur_300.avif" for side in range(3)]
        threads = [threading.Thread(target=lambda target=target: told.append(ask(address, "GET", target).status)) for target in targets]
        for thread in threads:
            thread.start()
        until(lambda: docker("exec", id, "sh", "-c", "grep -c OFDLCK /proc/locks || true") != "0", "nobody renders")
        docker("stop", "-t", "60", id)
        for thread in threads:
            thread.join(60)
        assert told == [200] * 3
        assert docker("inspect", "-f", "{{.State.ExitCode}}", id) == "0"


def test_one_image_is_a_writer_a_follower_and_a_worker() -> None:
    name = f"imgproxy-shared-{time.time_ns()}"
    shared = (f"{name}:/store",)
    docker("run", "--rm", "--user", "0", "--entrypoint", "chown", "-v", *shared, "imgproxy", "10001:10001", "/store")
    try:
        settings = {**OPEN, "IMG_STORE": "fs:///store"}
        with (
            container(settings, "admin", volumes=shared) as writer,
            container(settings, "serve", "--edge", "--read-only", volumes=shared) as reader,
            container(settings, "work", volumes=shared) as worker,
        ):
            here, there = address_of(writer), address_of(reader)
            until(lambda: answers(here), "the doors do not open")
            until(lambda: answers(there), "the follower is not ready")
            until(lambda: "ok" in docker("exec", worker, "imgproxy", "health", "--worker", check=False), "the worker is not well")
            hash = put(here, png(60, 40))
            alias = b'{"domain": "a", "dkey": "b"}'
            assert ask(here, "PATCH", f"/admin/images/{hash}", alias, Authorization=SAID, Content_Type="application/json").status == 200
            assert ask(here, "POST", "/admin/commit", Authorization=SAID).status == 201
            assert ask(here, "GET", f"/{hash}.png").status == 404
            assert ask(there, "GET", f"/{hash}.png").status == 200
            assert ask(there, "GET", "/admin/status", Authorization=SAID).status == 404
            until(lambda: ask(there, "GET", "/a/b").status == 302, "the follower does not follow")
            for id in (writer, reader, worker):
                docker("stop", "-t", "45", id)
                assert docker("inspect", "-f", "{{.State.ExitCode}}", id) == "0"
    finally:
        docker("volume", "rm", name)


def test_the_dockerfiles_have_no_line_that_fetches_a_frontend() -> None:
    assert "# syntax" not in (ROOT / "Dockerfile").read_text() + (ROOT / "conf/swift/Dockerfile").read_text()
