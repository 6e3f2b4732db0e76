"""Uploads over HTTP: what is kept, and everything that is not."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.plain import png
from tests.readers import until
from tests.serving import Response, Server, serving

IMAGES = Path(__file__).parents[1] / "images"
_seeds = itertools.count(1000)


def fresh() -> bytes:
    """A picture that nobody has uploaded yet."""
    return png(40, 30, next(_seeds))


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def form(*files: tuple[str, bytes], end: str = "--") -> bytes:
    parts = b"".join(
        f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    )
    return parts + f"--limit{end}\r\n".encode()


def upload_form(server: Server, *files: tuple[str, bytes], query: str = "") -> Response:
    return upload(server, form(*files), query, Content_Type="multipart/form-data; boundary=limit")


def upload(server: Server, body: bytes, query: str = "", **headers: str) -> Response:
    return server.ask("POST", f"/admin/images{query}", body, **headers)


def nothing_is_left(server: Server, data: bytes) -> bool:
    """Whether neither the store nor the spool has anything of these bytes."""
    stored = list((server.data / "store" / "base").glob(f"*/*/{hash_of(data)}"))
    return not stored and list((server.data / "spool").iterdir()) == []


def test_a_body_is_kept_and_known_the_second_time(server: Server) -> None:
    data = fresh()
    answer = upload(server, data, Content_Type="image/png")
    assert answer.status == 201
    said = answer.json
    assert (said["hash"], said["name"], said["url"], said["new"]) == (hash_of(data), f"{hash_of(data)}.png", f"/{hash_of(data)}.png", True)
    assert server.get(said["url"]).body == data
    again = upload(server, data)
    assert (again.status, again.json["new"]) == (200, False)
    record = server.ask("GET", f"/admin/images/{said['hash']}?session=default").json
    assert (record["width"], record["height"], record["bytes"], record["md5"]) == (40, 30, len(data), hashlib.md5(data).hexdigest())


def test_what_is_said_stands_in_the_record(server: Server) -> None:
    query = urlencode(
        {"title": "A fön", "tags": "red, blue", "domain": "shop", "dkey": "a/1", "user": '{"rating": 5}', "taken_at": "2024-05-17"}
    )
    image = upload(server, fresh(), f"?{query}").json["image"]
    assert (image["title"], image["tags"], image["domain"], image["dkey"]) == ("A fön", ["red", "blue"], "shop", "a/1")
    assert (image["user"], image["taken_at"]) == ({"rating": 5}, "2024-05-17T00:00:00")


def test_renditions_that_are_hinted_at_are_made_ahead(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_PRESETS="thumb=-20x.webp") as server:
        answer = upload(server, fresh(), "?hints=thumb&hints=-10x10.jpg")
        assert answer.status == 201
        names = [f"{answer.json['hash']}{suffix}" for suffix in ("-20x.webp", "-10x10.jpg")]
        assert answer.json["hints"] == [f"/{name}" for name in names]


def test_several_files_come_in_a_form_and_each_has_its_outcome(server: Server) -> None:
    one, other = fresh(), fresh()
    answer = upload_form(server, ("one.png", one), ("other.png", other))
    assert answer.status == 201
    assert [(said["file"], said["hash"], said["status"], said["new"]) for said in answer.json] == [
        ("one.png", hash_of(one), 201, True),
        ("other.png", hash_of(other), 201, True),
    ]
    mixed = upload_form(server, ("one.png", one), ("text.png", b"no picture"), ("x.jpg", fresh()))
    assert mixed.status == 207
    assert [said["status"] for said in mixed.json] == [200, 415, 415]
    assert mixed.json[1]["problem"]["title"] == "Not an image"
    assert "is called jpg, and is png" in mixed.json[2]["problem"]["detail"]


def test_one_file_in_a_form_is_answered_like_a_body(server: Server) -> None:
    data = fresh()
    answer = upload_form(server, ("one.png", data))
    assert (answer.status, answer.json["hash"]) == (201, hash_of(data))
    assert upload_form(server, ("one.png", b"no picture")).status == 415


def test_a_body_in_chunks_is_kept(server: Server) -> None:
    data = fresh()
    assert server.ask("POST", "/admin/images", iter([data[:100], data[100:]])).status in (200, 201)
    assert server.get(f"/{hash_of(data)}.png").body == data


@pytest.mark.parametrize("header", ["Repr_Digest", "Content_Digest"])
def test_a_right_digest_is_taken_and_a_wrong_one_is_not(server: Server, header: str) -> None:
    data = fresh()
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    wrong = upload(server, fresh(), **{header: f"sha-256=:{digest}:"})
    assert wrong.status == 400
    assert upload(server, data, **{header: f"sha-512=:AAAA:, sha-256=:{digest}:"}).status == 201
    assert upload(server, fresh(), **{header: "sha-256=:AAAA:"}).status == 422
    assert upload(server, fresh(), **{header: "sha-256=:\xe9:"}).status == 422


def test_an_upload_that_outlasts_the_default_session_is_said_of_in_the_next(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_AUTOCOMMIT="0.2") as server:
        slow, quick = fresh(), fresh()

        def dripping() -> Iterator[bytes]:
            yield slow[:100]
            assert upload(server, quick).status == 201
            until(lambda: server.ask("GET", "/admin/commits").json["commits"], "nothing is committed")
            yield slow[100:]

        assert server.ask("POST", "/admin/images?title=Slow", dripping()).status == 201
        until(lambda: len(server.ask("GET", "/admin/commits").json["commits"]) == 2, "the slow one is not committed")
        assert server.ask("GET", f"/admin/images/{hash_of(slow)}").json["title"] == "Slow"


@pytest.mark.parametrize(
    ("data", "status", "headers"),
    [
        (b"no picture at all", 415, {}),
        (b"", 415, {}),
        (png(10, 10, 1)[:30], 422, {}),
        ((IMAGES / "good" / "sharp__2569067123_aca715a2ee_o.jpg").read_bytes()[:100_000], 422, {}),
        (png(41, 31, 7), 415, {"Content_Type": "image/jpeg"}),
        (png(41, 31, 7), 415, {"Content_Disposition": 'attachment; filename="a.webp"'}),
        (png(41, 31, 7), 415, {"Content_Type": "text/html"}),
        (png(41, 31, 7), 415, {"Content_Type": "application/json"}),
    ],
)
def test_what_is_no_picture_or_not_what_it_says_is_refused(server: Server, data: bytes, status: int, headers: dict[str, str]) -> None:
    answer = upload(server, data, **headers)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert nothing_is_left(server, data)


@pytest.mark.parametrize("name", sorted(path.name for path in (IMAGES / "bad").iterdir()))
def test_hostile_pictures_are_refused_and_leave_nothing(server: Server, name: str) -> None:
    data = (IMAGES / "bad" / name).read_bytes()
    assert upload(server, data).status in (415, 422)
    assert nothing_is_left(server, data)


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("?session=nowhere", 404, None),
        ("?dkey=x", 422, "domain"),
        ("?taken_at=now", 422, "taken_at"),
        ("?user=5", 422, "user"),
        ("?user={", 422, "user"),
        ("?hints=-10x", 422, "hints"),
        ("?hints=nothing", 422, "hints"),
        ("?colour=red", 422, "colour"),
        ("?title=a%00b", 422, "title"),
    ],
)
def test_what_is_said_wrongly_is_refused_before_anything_is_kept(server: Server, query: str, status: int, field: str | None) -> None:
    data = fresh()
    answer = upload(server, data, query)
    assert (answer.status, answer.json.get("field")) == (status, field)
    assert nothing_is_left(server, data)


def test_an_alias_is_for_one_image(server: Server) -> None:
    answer = upload_form(server, ("a.png", fresh()), ("b.png", fresh()), query="?domain=a&dkey=b")
    assert (answer.status, answer.json["field"]) == (422, "domain")


@pytest.mark.parametrize("many", [65, 1000])
def test_too_many_parts_are_refused(server: Server, many: int) -> None:
    data = fresh()
    assert upload_form(server, *[("a.png", data)] * many).status == 400
    assert nothing_is_left(server, data)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(("a.png", png(20, 20, 5)), end=""), "multipart/form-data; boundary=limit"),
        (form(("a.png", png(20, 20, 5))), "multipart/form-data; boundary=other"),
        (form(("a.png", png(20, 20, 5))), "multipart/form-data"),
        (form(("a.png", png(20, 20, 5))), f"multipart/form-data; boundary={'x' * 80}"),
        (b"", "multipart/form-data; boundary=limit"),
    ],
)
def test_a_broken_form_is_refused(server: Server, body: bytes, kind: str) -> None:
    assert upload(server, body, Content_Type=kind).status == 400
    assert nothing_is_left(server, png(20, 20, 5))


def test_a_form_without_a_file_is_refused(server: Server) -> None:
    answer = upload(server, b"--limit--\r\n", Content_Type="multipart/form-data; boundary=limit")
    assert (answer.status, answer.json["detail"]) == (422, "the form has no file")


def test_fields_of_a_form_are_no_files(server: Server) -> None:
    body = b'--limit\r\nContent-Disposition: form-data; name="title"\r\n\r\nA title\r\n--limit--\r\n'
    answer = upload(server, body, Content_Type="multipart/form-data; boundary=limit")
    assert (answer.status, answer.json["field"]) == (422, "title")


def request(server: Server, length: int | str, more: str = "") -> bytes:
    size = f"Content-Length: {length}\r\n" if isinstance(length, int) else f"{length}\r\n"
    return f"POST /admin/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n{size}{more}\r\n".encode()


@pytest.mark.parametrize("length", [10_000, "Transfer-Encoding: chunked"])
def test_a_body_that_ends_too_early_is_refused(server: Server, length: int | str) -> None:
    data = fresh()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        sock.sendall(request(server, length) + (b"" if isinstance(length, int) else f"{len(data) + 1:x}\r\n".encode()) + data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65_536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert nothing_is_left(server, data)


def test_what_is_too_large_is_refused_however_it_comes(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_LIMITS_FILE_BYTES="20K", IMG_WORKERS="1") as server:
        large = png(40, 30) + os.urandom(30_000)
        assert upload(server, large).status == 413
        assert server.ask("POST", "/admin/images", iter([large])).status == 413
        answer = upload_form(server, ("large.png", large), ("small.png", png(40, 30)))
        assert (answer.status, [said["status"] for said in answer.json]) == (207, [413, 201])
        assert nothing_is_left(server, large)


def test_a_slow_drip_is_cut_off_and_holds_no_thread(tmp_path: Path) -> None:
    """Eight threads, sixteen that drip: others are served meanwhile, and in the end everybody who dripped was told."""
    with serving(tmp_path, IMG_WORKERS="1", IMG_THREADS="32", IMG_BODY_SECONDS="2") as server:
        with ThreadPoolExecutor(16) as pool:
            dripping = [pool.submit(drip, server) for _ in range(16)]
            assert upload(server, fresh()).status == 201
            answers = [one.result() for one in dripping]
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
        assert list((tmp_path / "spool").iterdir()) == []


def drip(server: Server) -> bytes:
    """Send a byte now and then, until there is an answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        sock.sendall(request(server, 1_000_000))
        sock.settimeout(0.2)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                return sock.recv(65_536)
            except TimeoutError:
                sock.sendall(b"x")
    return b""


def test_many_who_upload_the_same_keep_it_once(server: Server) -> None:
    data = fresh()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: upload(server, data), range(8)))
    assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
    assert {answer.json["hash"] for answer in answers} == {hash_of(data)}


def test_uploading_needs_its_scope(server: Server) -> None:
    from imgproxy.tokens import TokenFile

    token = TokenFile(server.data).add("writer", ["write", "commit", "sync"])
    data = fresh()
    assert server.ask("POST", "/admin/images", data, token=token).status == 403
    assert server.ask("POST", "/admin/images", data, token="").status == 401
    assert nothing_is_left(server, data)
