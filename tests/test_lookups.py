"""Look-ups over real sockets: by hash, checksum and alias, with the database there, away, and followed by another node."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest
from falcon import testing

from imgproxy import wiring
from imgproxy.meta.finding import Finder
from imgproxy.web import read
from imgproxy.web.lookups import LookUps
from tests.meta.making import commit, place, record
from tests.plain import png, png_size, written
from tests.serving import COMMAND, Response, Server, environment, serving

SHOP = {"domain": "shop.example", "dkey": "art/42 ü"}
ABSENT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
PICTURE = png(60, 40, 1)
HASH, MD5 = hashlib.sha256(PICTURE).hexdigest(), hashlib.md5(PICTURE).hexdigest()
HIDDEN = png(60, 40, 2)


def typed(server: Server, *words: str) -> str:
    return subprocess.run([COMMAND, *words], env=dict(server.env), capture_output=True, text=True, timeout=100, check=True).stdout


def said(server: Server, hash: str, **words: str) -> None:
    typed(server, "set", hash, *(f"{name}={value}" for name, value in words.items()))
    typed(server, "commit")


@dataclass(frozen=True)
class Asker:
    """Asks a server for look-ups."""

    server: Server

    def read(self, query: str, method: str = "GET") -> Response:
        return self.server.get(f"/image/read?{query}", method)

    def goal(self, path: str) -> str:
        answer = self.server.get(path)
        assert (answer.status, answer.body) == (302, b"")
        return answer.headers["location"]


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    home = tmp_path_factory.mktemp("lookups")
    logo = written(home / "logo.png", png(10, 10))
    with serving(home / "var", IMG_MARKS=f"logo={logo}?size=200", IMG_ADMIN="off") as server:
        server.put(written(home / "a.png", PICTURE))
        said(server, HASH, **SHOP)
        yield Asker(server)


@pytest.mark.parametrize("query", [f"id={HASH}", f"sum={HASH}", f"sum={MD5}"])
def test_hash_and_checksums_lead_to_the_original(asker: Asker, query: str) -> None:
    goal = asker.goal(f"/image/read?{query}")
    assert goal == f"/{HASH}.png"
    assert asker.server.get(goal).body == PICTURE


@pytest.mark.parametrize(
    ("fields", "suffix"),
    [
        ("width=30", "-30x.png"),
        ("height=20", "-x20.png"),
        ("width=30&height=30", "-30x30.png"),
        ("width=30&watermark=logo", "-30x-mark_logo.png"),
        ("watermark=logo", "-full-mark_logo.png"),
    ],
)
def test_size_and_watermark_lead_to_a_rendition_that_is_there(asker: Asker, fields: str, suffix: str) -> None:
    goal = asker.goal(f"/image/read?{fields}&sum={MD5}")
    assert goal == f"/{HASH}{suffix}"
    answer = asker.server.get(goal)
    assert answer.status == 200
    assert png_size(answer.body)[1] in (20, 40)


@pytest.mark.parametrize("dkey", [quote(SHOP["dkey"]), quote(SHOP["dkey"], safe=""), "%61rt/42%20%C3%BC"])
def test_an_alias_leads_to_the_original_however_its_dkey_is_encoded(asker: Asker, dkey: str) -> None:
    assert asker.goal(f"/shop.example/{dkey}") == f"/{HASH}.png"


@pytest.mark.parametrize("path", [f"/image/read?id={HASH}", f"/shop.example/{quote(SHOP['dkey'])}"])
def test_head_says_what_get_would_and_the_answer_is_kept_for_a_minute(asker: Asker, path: str) -> None:
    get, head = asker.server.get(path), asker.server.get(path, "HEAD")
    assert (get.status, head.status, head.body) == (302, 302, b"")
    for answer in (get, head):
        assert answer.headers["cache-control"] == "public, max-age=60, stale-while-revalidate=60"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["content-length"] == "0"
    assert get.headers["location"] == head.headers["location"]


def test_an_alias_is_whose_it_was_made_by_the_last_commit(asker: Asker) -> None:
    said(asker.server, HASH, domain="moved", dkey="one")
    assert asker.goal("/moved/one") == f"/{HASH}.png"
    assert asker.server.get(f"/shop.example/{quote(SHOP['dkey'])}").status == 404
    said(asker.server, HASH, **SHOP)
    assert asker.server.get("/moved/one").status == 404


def test_what_is_not_committed_is_not_found(asker: Asker) -> None:
    hidden, md5 = hashlib.sha256(HIDDEN).hexdigest(), hashlib.md5(HIDDEN).hexdigest()
    session = typed(asker.server, "session", "open").strip()
    typed(asker.server, "put", str(written(asker.server.data / "hidden.png", HIDDEN)), "--session", session)
    typed(asker.server, "set", hidden, "domain=hidden", "dkey=1", "--session", session)
    paths = [f"/image/read?id={hidden}", f"/image/read?sum={md5}", "/hidden/1"]
    assert [asker.server.get(path).status for path in paths] == [404] * 3
    typed(asker.server, "commit", "--session", session)
    assert [asker.goal(path) for path in paths] == [f"/{hidden}.png"] * 3


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("id=", 422),
        (f"id={HASH.upper()}", 422),
        (f"id={MD5}", 422),
        (f"id={HASH}&sum={MD5}", 422),
        (f"id={HASH}&id={HASH}", 422),
        (f"id={HASH}&size=3", 422),
        (f"id={HASH}&width=", 422),
        (f"id={HASH}&width=0", 422),
        (f"id={HASH}&width=030", 422),
        (f"id={HASH}&width=16384", 422),
        (f"id={HASH}&width=%D9%A3", 422),
        (f"id={HASH}&height=-1", 422),
        (f"id={HASH}&height=1e3", 422),
        (f"id={HASH}&watermark=../x", 422),
        (f"id={HASH}&watermark=", 422),
        (f"id={HASH}&watermark=other", 404),
        (f"id={HASH}&&", 422),
        (f"id={HASH}&width=%ff", 422),
        ("sum=abc", 422),
        ("sum=%00", 422),
        ("&".join(f"a{n}=1" for n in range(300)), 422),
        (f"id={ABSENT}", 404),
        (f"sum={'0' * 32}", 404),
    ],
)
def test_what_cannot_be_looked_up_is_refused_with_a_reason(asker: Asker, query: str, status: int) -> None:
    answer = asker.read(query)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/shop.example/",
        "/shop.example/none",
        "/shop.example/art%2F42",
        f"/shop.example/{quote(SHOP['dkey'])}?width=3",
        f"/shop.example/{quote(SHOP['dkey'])}?",
        f"/shop%2Eexample/{quote(SHOP['dkey'])}",
        "/shop.example/%ff",
        "/shop.example/%00",
        "/shop.example/%ed%a0%80",
        f"/shop.example/{'a' * 251}",
        f"/{'d' * 101}/a",
        "/../a",
        "//a",
        "/image%2Fread?id=1",
        "/image/read/",
        "/v1/images",
        "/admin/images",
        "/auto/x",
    ],
)
def test_what_is_no_alias_is_404(asker: Asker, path: str) -> None:
    assert asker.server.get(path).status == 404


@pytest.mark.parametrize("path", [f"/image/read?id={HASH}", "/shop.example/a"])
def test_look_ups_are_for_reading(asker: Asker, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert asker.server.get(path, method, Content_Length="0").status == 405
    greeting = asker.server.get(path, "OPTIONS")
    assert (greeting.status, greeting.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


def test_without_the_database_pictures_go_on_and_with_a_new_one_look_ups_do_too(tmp_path: Path) -> None:
    with serving(tmp_path / "var", IMG_ADMIN="off") as server:
        (name,) = server.put(written(tmp_path / "a.png", PICTURE))
        said(server, HASH, **SHOP)
        assert server.get(f"/image/read?sum={MD5}").status == 302
        words, away = server.data / "words", server.data / "away"
        words.rename(away)
        answer = server.get(f"/image/read?sum={MD5}")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert server.get("/shop.example/x").status == 503
        assert server.get(f"/{name}").status == 200
        assert server.get(f"/{HASH}-20x.png").status == 200
        ready = json.loads(server.get("/readyz").body)
        assert ready["ready"] is True
        assert ready["dependencies"]["words"] != "ok"
        typed(server, "restore")
        assert server.get(f"/image/read?sum={MD5}").status == 302


def test_a_damaged_database_is_told_and_pictures_go_on(tmp_path: Path) -> None:
    with serving(tmp_path / "var", IMG_ADMIN="off") as server:
        (name,) = server.put(written(tmp_path / "a.png", PICTURE))
        words = server.data / "words" / "words.db"
        for part in words.parent.glob("words.db-*"):
            part.unlink()
        words.write_bytes(b"no database at all" * 1000)
        assert server.get(f"/image/read?sum={MD5}").status == 503
        assert server.get(f"/{name}").status == 200


@pytest.mark.parametrize(
    ("settings", "statuses"),
    [
        ({"IMG_POLICY": "signed"}, {"": 302, "&width=30": 403}),
        ({"IMG_POLICY": "listed", "IMG_LISTED": "-30x.png"}, {"": 302, "&width=30": 302, "&width=31": 403}),
        ({"IMG_ORIGINALS": "signed"}, {"": 403, "&width=30": 302}),
        ({"IMG_ORIGINALS": "private"}, {"": 403, "&width=30": 302}),
    ],
)
def test_the_way_leads_only_where_its_asker_may_go(tmp_path: Path, settings: dict[str, str], statuses: dict[str, int]) -> None:
    with serving(tmp_path / "var", IMG_WORKERS="1", IMG_KEYS="00112233445566778899aabbccddeeff", **settings) as server:
        server.put(written(tmp_path / "a.png", PICTURE))
        said(server, HASH, domain="d", dkey="k")
        answers = {fields: server.get(f"/image/read?id={HASH}{fields}") for fields in statuses}
        assert {fields: answer.status for fields, answer in answers.items()} == statuses
        for answer in answers.values():
            assert answer.status == 403 or server.get(answer.headers["location"]).status == 200
        assert server.get("/d/k").status == statuses[""]


def test_a_reading_node_follows_the_writer(tmp_path: Path) -> None:
    with serving(tmp_path / "writer", IMG_WORKERS="1", IMG_ADMIN="off") as writer:
        store = f"fs://{writer.data / 'store'}"
        with serving(tmp_path / "reader", IMG_WORKERS="1", IMG_STORE=store, IMG_ADMIN="off") as reader:
            assert reader.get(f"/image/read?sum={MD5}").status == 503
            writer.put(written(tmp_path / "a.png", PICTURE))
            said(writer, HASH, domain="d", dkey="1")
            command = [COMMAND, "follow", "--every", "0.1"]
            env = environment(reader.data, IMG_STORE=store)
            with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as follower:
                try:
                    assert follower.stdout is not None
                    assert follower.stdout.readline() == "1\n"
                    assert reader.get("/d/1").headers["location"] == f"/{HASH}.png"
                    said(writer, HASH, dkey="2")
                    assert follower.stdout.readline() == "2\n"
                    assert (reader.get("/d/1").status, reader.get("/d/2").status) == (404, 302)
                finally:
                    follower.terminate()


def test_of_two_with_one_md5_the_first_is_found(tmp_path: Path) -> None:
    here = place(tmp_path)
    here.keep(1, 2)
    words = here.node()
    first, second = (replace(record(number), md5="0" * 32) for number in (2, 1))
    commit(words, first)
    commit(words, second)
    finder = Finder(words.database.path.parent)
    found = finder.by_md5("0" * 32)
    assert found is not None
    assert found.hash == first.hash
    finder.close()
    words.close()


def test_below_a_mount_the_way_leads_below_it(tmp_path: Path) -> None:
    env = environment(tmp_path)
    picture = written(tmp_path / "a.png", PICTURE)
    for words in (["put", str(picture)], ["set", HASH, "domain=d", "dkey=k"], ["commit"]):
        subprocess.run([COMMAND, *words], env=env, capture_output=True, timeout=100, check=True)
    house = wiring.build(wiring.settings_of(env), env)
    manner = replace(house.manner, mount="/img")
    lookups = LookUps(house.finder, house.guards, manner, frozenset())
    app = read.application(house.images, house.guards, {}, manner, lookups)
    try:
        for path in ("/img/d/k", f"/img/image/read?id={HASH}"):
            answer = testing.simulate_get(app, path, extras={"RAW_URI": path})
            assert (answer.status_code, answer.headers["location"]) == (302, f"/img/{HASH}.png")
        for path in ("/d/k", f"/image/read?id={HASH}", "/img/d", "/img/img/d/k"):
            assert testing.simulate_get(app, path, extras={"RAW_URI": path}).status_code == 404
    finally:
        house.close()
