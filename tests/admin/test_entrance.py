"""Who comes in by the doors for writing, and who does not."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgproxy import wiring
from imgproxy.errors import TooManyTries
from imgproxy.tokens import TokenFile
from imgproxy.web.entrance import _ADDRESSES, SECONDS, TRIES, Tries
from tests.plain import png, written
from tests.serving import Server, free_port, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("entrance")) as server:
        yield server


def test_the_first_start_makes_a_token_and_says_where_it_is(server: Server) -> None:
    assert f"with the token in {server.data}/admin.token" in (server.data / "server.log").read_text()
    answer = server.ask("GET", "/admin/status")
    assert answer.status == 200
    assert (answer.json["commit"], answer.json["records"]) == (0, 0)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic {token}", "Bearer x{token}", "Bearer {token}x", "{token}"])
def test_without_a_right_token_nothing_is_told(tmp_path: Path, header: str) -> None:
    with serving(tmp_path, IMG_WORKERS="1") as server:
        said = {"Authorization": header.format(token=server.token)} if header else {}
        for path in ("/admin/status", f"/admin/images/{'0' * 64}", "/admin/images/x"):
            answer = server.get(path, **said)
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["cache-control"] == "no-store"
            assert answer.json["status"] == 401
            assert server.token not in answer.body.decode()


def test_a_token_opens_what_its_scope_says_until_it_is_revoked(server: Server) -> None:
    tokens = TokenFile(server.data)
    token = tokens.add("uploader", ["upload"])
    path = f"/admin/images/{'0' * 64}"
    assert server.ask("GET", "/admin/status", token=token).status == 200
    refused = server.ask("GET", path, token=token)
    assert (refused.status, refused.json["detail"]) == (403, "this token is not for that")
    assert server.ask("GET", path).status == 404
    tokens.revoke("uploader")
    assert {server.ask("GET", "/admin/status", token=token).status for _ in range(8)} == {401}


def test_an_expired_token_opens_nothing(server: Server) -> None:
    token = TokenFile(server.data).add("late", ["admin"], expires=1.0)
    assert server.ask("GET", "/admin/status", token=token).status == 401


def test_a_token_of_the_environment_opens_everything(tmp_path: Path) -> None:
    given = "img_" + "Zq8RkV3nXw7LbT1cYs5HgJ9mPd2FvA6e"
    with serving(tmp_path, IMG_ADMIN_TOKEN=given) as server:
        assert server.ask("GET", "/admin/status", token=given).status == 200
        assert not (tmp_path / "admin.token").exists()


def test_who_tries_too_often_is_told_to_wait_and_who_was_right_before_is_not(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_WORKERS="1") as server:
        assert server.ask("GET", "/admin/status").status == 200
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: server.ask("GET", "/admin/status", token=f"img_{n}"), range(TRIES * 4)))
        refused = [answer for answer in answers if answer.status == 429]
        assert len(answers) - len(refused) >= TRIES
        assert {answer.status for answer in answers} == {401, 429}
        assert {int(answer.headers["retry-after"]) for answer in refused} <= {1, round(SECONDS)}
        assert server.ask("GET", "/admin/status").status == 200
        log = (tmp_path / "server.log").read_text()
        assert "a wrong token" in log
        assert "img_1" not in log


def test_tries_come_back_with_time_and_are_forgotten_in_the_end() -> None:
    now = [0.0]
    tries = Tries(lambda: now[0])
    for _ in range(TRIES):
        tries.check("a", "x")
        tries.failed("a")
    with pytest.raises(TooManyTries):
        tries.check("a", "x")
    tries.check("b", "x")
    now[0] += SECONDS
    tries.check("a", "x")
    for n in range(_ADDRESSES * 2):
        tries.failed(str(n))
        tries.succeeded(str(n), "x")
    assert len(tries._failed) == len(tries._right) == _ADDRESSES


def test_an_image_is_shown_live_and_in_its_session(server: Server) -> None:
    (name,) = server.put(written(server.data / "a.png", png(60, 40)))
    hash = name.removesuffix(".png")
    assert server.ask("GET", f"/admin/images/{hash}").status == 404
    answer = server.ask("GET", f"/admin/images/{hash}?session=default")
    assert answer.status == 200
    assert answer.headers["etag"]
    image = answer.json
    assert (image["hash"], image["name"], image["url"], image["width"], image["height"]) == (hash, name, f"/{name}", 60, 40)


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/admin/images/xyz", 404, None),
        (f"/admin/images/{'0' * 64}?session=nowhere", 404, None),
        (f"/admin/images/{'0' * 64}?sesion=x", 422, "sesion"),
        (f"/admin/images/{'0' * 64}?session=a&session=b", 422, "session"),
        (f"/admin/images/{'0' * 64}?session=%ff", 422, ""),
        ("/admin/nothing", 404, None),
        ("/admin", 404, None),
    ],
)
def test_what_cannot_be_asked_is_told_apart(server: Server, path: str, status: int, field: str | None) -> None:
    answer = server.ask("GET", path)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json.get("field") == field


def test_another_method_is_refused(server: Server) -> None:
    answer = server.ask("PUT", "/admin/status")
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]


def test_the_doors_for_writing_may_be_apart_or_off(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path / "apart", IMG_ADMIN=f"127.0.0.1:{port}") as server:
        assert server.ask("GET", "/admin/status").status == 404
        beside = Server(port, server.process, server.env, server.data)
        assert beside.ask("GET", "/admin/status").status == 200
        assert beside.get("/healthz").status == 200
        assert beside.get("/" + "0" * 64 + ".jpg").status == 404
    with serving(tmp_path / "off", IMG_ADMIN="off") as server:
        assert server.get("/admin/status", Authorization="Bearer x").status == 404
        assert not (tmp_path / "off" / "admin.token").exists()


def test_reading_does_not_wait_for_words(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "words").write_text("no directory")
    with serving(tmp_path / "var") as server:
        (name,) = written_original(server)
        assert server.get(f"/{name}").status == 200
        answer = server.ask("GET", "/admin/status")
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        (tmp_path / "var" / "words").unlink()
        deadline = time.monotonic() + 60
        while server.ask("GET", "/admin/status").status != 200:
            assert time.monotonic() < deadline


def written_original(server: Server) -> list[str]:
    """An original in the store, without words."""
    data = png(50, 50)
    house = wiring.build(wiring.settings_of(server.env), server.env)
    try:
        with written(server.data / "b.png", data).open("rb") as file:
            house.images.add(file)
    finally:
        house.close()
    return [f"{hashlib.sha256(data).hexdigest()}.png"]
