"""A Swift that will not have us: who starts is told what to change, and who runs goes on by himself once it is changed."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from swiftclient import client  # type: ignore[import-untyped]

from tests.album import swift_settings
from tests.plain import png, written
from tests.serving import COMMAND, Server, environment, serving
from tests.swift_fixtures import account_of
from tests.swift_fixtures import swift_box_1 as swift_box_1
from tests.swiftbox import SwiftBox


class Owner:
    """Who may do everything with the containers."""

    def __init__(self, box: SwiftBox) -> None:
        account = account_of(box)
        self._url, self._token = client.get_auth(account.auth_url, account.user, account.key)

    def make(self, container: str, **headers: str) -> None:
        words = {name.replace("_", "-"): value for name, value in headers.items()}
        client.put_container(self._url, self._token, container, words)

    def change(self, container: str, header: str, value: str) -> None:
        client.post_container(self._url, self._token, container, {header: value})

    def remove(self, container: str) -> None:
        for row in client.get_container(self._url, self._token, container)[1]:
            client.delete_object(self._url, self._token, container, row["name"])
        client.delete_container(self._url, self._token, container)


@pytest.fixture
def owner(swift_box_1: SwiftBox) -> Owner:
    return Owner(swift_box_1)


def stranger(box: SwiftBox, prefix: str) -> dict[str, str]:
    """Settings of somebody with an account, who may do nothing with what is not opened to him."""
    return {**swift_settings(box, prefix), "ST_USER": "test:tester3", "ST_KEY": "testing3"}


def run(env: dict[str, str], *words: str) -> tuple[int, str]:
    done = subprocess.run([COMMAND, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def until(status: int, server: Server, path: str) -> float:
    """Ask until the answer has that status, or a generous while is over; how long it took."""
    began = time.monotonic()
    while server.get(path).status != status:
        assert time.monotonic() < began + 20
        time.sleep(0.1)
    return time.monotonic() - began


@pytest.mark.parametrize("words", [["serve"], ["put", "PICTURE"], ["get", f"{'0' * 64}.png"]], ids=lambda words: words[0])
def test_without_permission_every_command_says_where_and_leaves(tmp_path: Path, swift_box_1: SwiftBox, words: list[str]) -> None:
    picture = str(written(tmp_path / "a.png", png(4, 4)))
    env = environment(tmp_path / "var", **stranger(swift_box_1, "not-ours"), IMG_BIND="127.0.0.1:1")
    code, said = run(env, *[picture if word == "PICTURE" else word for word in words])
    assert code != 0
    assert "not-ours-base" in said
    assert "no permission" in said
    assert "ACL" in said


def test_beyond_a_quota_a_picture_is_refused_with_the_reason_and_taken_when_there_is_room(
    tmp_path: Path, swift_box_1: SwiftBox, owner: Owner
) -> None:
    owner.make("full-base", x_container_meta_quota_bytes="100")
    env = environment(tmp_path / "var", **swift_settings(swift_box_1, "full"))
    picture = str(written(tmp_path / "a.png", png(40, 40)))
    code, said = run(env, "put", picture)
    assert code != 0
    assert "full-base" in said
    assert "quota" in said
    owner.change("full-base", "X-Container-Meta-Quota-Bytes", "100000")
    assert run(env, "put", picture)[0] == 0


def test_a_server_whose_container_goes_away_says_so_and_goes_on_when_it_is_back(
    tmp_path: Path, swift_box_1: SwiftBox, owner: Owner
) -> None:
    with serving(tmp_path / "var", **swift_settings(swift_box_1, "gone")) as server:
        (name,) = server.put(written(tmp_path / "a.png", png(40, 40)))
        near = f"/{name.removesuffix('.png')}-20x.png"
        cold = f"/{'0' * 64}-20x.png"
        assert server.get(near).status == 200
        owner.remove("gone-base")
        until(503, server, cold)
        assert "gone-base does not exist" in json.loads(server.get("/readyz").body)["dependencies"]["base"]
        assert server.get(near).status == 200
        owner.make("gone-base")
        until(404, server, cold)
        until(200, server, "/readyz")


def test_a_server_that_loses_its_permission_says_so_and_goes_on_when_it_has_it_back(
    tmp_path: Path, swift_box_1: SwiftBox, owner: Owner
) -> None:
    ours = {"X_Container_Read": "test:tester3", "X_Container_Write": "test:tester3"}
    for container in ("lent-base", "lent-derived", "lent-meta"):
        owner.make(container, **ours)
    with serving(tmp_path / "var", **stranger(swift_box_1, "lent")) as server:
        cold = f"/{'0' * 64}-20x.png"
        until(404, server, cold)
        owner.change("lent-base", "X-Container-Read", "nobody")
        until(503, server, cold)
        assert "no permission" in json.loads(server.get(cold).body)["detail"]
        owner.change("lent-base", "X-Container-Read", "test:tester3")
        until(404, server, cold)
