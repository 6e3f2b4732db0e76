"""nginx in front of gunicorn: whoever of the two answers, the answer is the same; and what could be read in two ways is refused."""

from __future__ import annotations

import hashlib
import io
import json
import pkgutil
import re
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from imgproxy import wiring
from imgproxy.edge import configuration
from imgproxy.edge.expressions import door
from imgproxy.errors import BadSettings
from imgproxy.picture import EDITION, EDITION_TIME
from imgproxy.stores.fs import FsStore
from imgproxy.web.entrance import TRIES
from tests.edging import behind, edging, nginx, raw
from tests.plain import png, png_size, written
from tests.serving import COMMAND, Response, Server, environment

ROOT = Path(__file__).parent.parent
ABSENT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
KEY = "00112233445566778899aabbccddeeff"
WHO = {"date", "server", "connection", "x-request-id", "server-timing"}
"""Headers that tell when and by whom an answer was given."""
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with edging(tmp_path_factory.mktemp("edge"), IMG_LIMITS_SVG="true") as server:
        yield server


@pytest.fixture(scope="module")
def hash(server: Server) -> str:
    (name,) = server.put(written(server.data / "quarters.png", png(400, 200)))
    return name.removesuffix(".png")


@pytest.fixture(scope="module")
def svg(server: Server) -> str:
    hash = hashlib.sha256(SVG).hexdigest()
    FsStore(server.data / "store" / "base").put(hash, io.BytesIO(SVG))
    return hash


def published(server: Server, name: str) -> Path:
    return server.data / "cache" / str(EDITION) / name[:2] / name[2:4] / name


def settings_of(**settings: str) -> str:
    return configuration(wiring.settings_of({"IMG_CONFIG": "/dev/null", "IMG_DATA": "/var/lib/imgproxy", **settings}))


def words(answer: Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in WHO}


# ---- the same answer


SUFFIXES = ["-90x90.jpg", "-91x91.png", "-92x92.webp", "-93x93.gif", "-94x94.avif"]
ASKED: dict[str, dict[str, str]] = {
    "whole": {},
    "its beginning": {"Range": "bytes=0-9"},
    "its end": {"Range": "bytes=-7"},
    "its middle": {"Range": "bytes=5-9"},
    "the rest": {"Range": "bytes=20-"},
    "outside": {"Range": "bytes=9999999-"},
    "several parts": {"Range": "bytes=0-1,4-5"},
    "no range": {"Range": "lines=1-2"},
    "garbage": {"Range": "bytes=x"},
    "if it has this tag": {"Range": "bytes=0-9", "If-Range": "{etag}"},
    "if it has another tag": {"Range": "bytes=0-9", "If-Range": '"other"'},
    "if not this tag": {"If-None-Match": "{etag}"},
    "if not this weak tag": {"If-None-Match": "W/{etag}"},
    "if none of several": {"If-None-Match": '"other", {etag}'},
    "if there is none": {"If-None-Match": "*"},
    "if not another tag": {"If-None-Match": '"other"'},
    "if newer": {"If-Modified-Since": "{modified}"},
    "if newer than long ago": {"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
    "if neither": {"If-None-Match": "{etag}", "If-Modified-Since": "{modified}"},
    "if not this tag, or newer than long ago": {"If-None-Match": "{etag}", "If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
    "if there is none, or newer than long ago": {"If-None-Match": "*", "If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
    "if not another tag, or newer": {"If-None-Match": '"other|"', "If-Modified-Since": "{modified}"},
    "if not another tag, or newer than long ago": {"If-None-Match": '"other|"', "If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
    "if newer than garbage": {"If-Modified-Since": "a|b|c"},
    "if still this": {"If-Match": "{etag}"},
    "if still this or another": {"If-Match": '"other", {etag}', "If-None-Match": '"other"'},
    "if still anything": {"If-Match": "*", "Range": "bytes=0-9"},
    "if still another": {"If-Match": '"other"', "If-None-Match": "{etag}"},
    "if still weakly this": {"If-Match": "W/{etag}"},
    "if unchanged since": {"If-Unmodified-Since": "{modified}"},
    "if unchanged since, and it is known": {"If-Unmodified-Since": "{modified}", "If-None-Match": "{etag}"},
    "if unchanged since long ago": {"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
    "if unchanged since whenever": {"If-Unmodified-Since": "whenever"},
    "if unchanged since beyond all time": {"If-Unmodified-Since": f"Mon, 01 Jan 2024 00:00:00 +{'9' * 20}"},
    "by a page elsewhere": {"Origin": "https://example.org"},
    "in any encoding": {"Accept-Encoding": "gzip, br"},
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
@pytest.mark.parametrize("asked", ASKED)
def test_both_say_the_same_of_a_rendition(server: Server, hash: str, asked: str, method: str) -> None:
    for suffix in SUFFIXES:
        first = behind(server, f"/{hash}{suffix}")
        filled = {"etag": first.headers["etag"], "modified": first.headers["last-modified"]}
        headers = {name: value.format(**filled) for name, value in ASKED[asked].items()}
        ours, theirs = server.get(f"/{hash}{suffix}", method, **headers), behind(server, f"/{hash}{suffix}", method, **headers)
        assert (ours.status, ours.body) == (theirs.status, theirs.body)
        if asked == "if newer" and ours.status == 304:  # by the time alone gunicorn, which looks nothing up, cannot tell the size
            assert words(ours) == {**words(theirs), "etag": first.headers["etag"]}
        else:
            assert words(ours) == words(theirs)


@pytest.mark.parametrize("header", ["If-Match", "If-Unmodified-Since"])
def test_an_empty_condition_is_refused_by_both(server: Server, hash: str, header: str) -> None:
    """Which nginx alone can tell from none: it cannot hand it on."""
    for suffix in SUFFIXES:
        behind(server, f"/{hash}{suffix}")
        ours, theirs = server.get(f"/{hash}{suffix}", **{header: ""}), behind(server, f"/{hash}{suffix}", **{header: ""})
        assert (ours.status, json.loads(ours.body)) == (412, json.loads(theirs.body))
        assert {**words(ours), "content-length": ""} == {**words(theirs), "content-length": ""}
        assert (ours.headers["cache-control"], ours.headers["cache-tag"]) == ("no-store", hash)
    assert server.get(f"/{hash}{SUFFIXES[0]}").status == 200


def test_it_is_really_nginx_that_answers(server: Server, hash: str) -> None:
    name = f"{hash}-95x95.png"
    first = server.get(f"/{name}")
    assert (first.status, first.tier) == (200, "render")
    path = published(server, name)
    other = bytes(reversed(first.body))
    path.unlink()
    path.write_bytes(other)
    assert server.get(f"/{name}").body == other
    assert server.get(f"/{name}", Range="bytes=0-4").body == other[:5]
    assert server.get(f"/{name}").tier == "disk"


@pytest.mark.parametrize(
    ("status", "title"),
    {
        ".png": (200, ""),
        ".svg": (404, "Not here"),
        "-90x90-mark_nobody.jpg": (404, "Not here"),
        "-900x-fill.jpg": (404, "Not a name"),
        "-full-crop_300x0x200x100.png": (422, "Not in this original"),
        "-90x90.jxl": (501, "Format not built in"),
    }.items(),
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_both_say_the_same_of_what_is_no_rendition_on_the_disk(
    server: Server, hash: str, status: str, title: tuple[int, str], method: str
) -> None:
    suffix, (number, word) = status, title
    ours, theirs = server.get(f"/{hash}{suffix}", method), behind(server, f"/{hash}{suffix}", method)
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
    assert ours.status == number
    assert words(ours) == words(theirs)
    if word and method == "GET":
        assert json.loads(ours.body)["title"] == word


def test_an_svg_comes_with_its_policy_and_as_it_is(server: Server, svg: str) -> None:
    ours, theirs = server.get(f"/{svg}.svg", Accept_Encoding="gzip"), behind(server, f"/{svg}.svg", Accept_Encoding="gzip")
    assert (ours.status, ours.body, words(ours)) == (200, SVG, words(theirs))
    assert "default-src 'none'" in ours.headers["content-security-policy"]
    assert words(server.get(f"/{svg}-10x10.png")) == words(behind(server, f"/{svg}-10x10.png"))


@pytest.mark.parametrize(
    "target",
    [
        "/image/read?id={hash}",
        "/image/read?id={hash}&width=90&height=90",
        "/image/read?id=nonsense",
        "/shop.example/42%2Fa%20b",
        "/shop/a/b//c",
        "/healthz",
        "/healthz?x=1",
        "/s/" + "A" * 43 + "/{hash}-90x90.jpg",
        "/s/" + "A" * 43 + "/1900000000/{hash}-90x90.jpg",
    ],
)
def test_every_other_door_is_asked_as_it_was_meant(server: Server, hash: str, target: str) -> None:
    target = target.format(hash=hash)
    ours, theirs = server.get(target), behind(server, target)
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
    assert words(ours) == words(theirs)


def test_every_header_that_a_picture_needs_is_there(server: Server, hash: str) -> None:
    for suffix, type in [("-96x.jpg", "image/jpeg"), ("-96x.avif", "image/avif"), ("-96x.webp", "image/webp")]:
        for answer in (server.get(f"/{hash}{suffix}"), server.get(f"/{hash}{suffix}")):
            assert words(answer) == {
                "content-type": type,
                "content-length": str(len(answer.body)),
                "etag": f'"{EDITION_TIME:x}-{len(answer.body):x}"',
                "last-modified": "Tue, 14 Nov 2023 22:13:21 GMT",
                "cache-control": "public, max-age=31536000, immutable",
                "accept-ranges": "bytes",
                "access-control-allow-origin": "*",
                "cross-origin-resource-policy": "cross-origin",
                "x-content-type-options": "nosniff",
                "cache-tag": hash,
                "surrogate-key": hash,
            }


def test_what_is_no_name_is_refused_at_the_edge_in_the_same_form(server: Server, hash: str) -> None:
    for target in ("/junk.jpg", f"/{hash}-1024X512.jpg", "/wp-login.php", f"/{hash}-90x90.jpg?", "/"):
        ours, theirs = server.get(target), behind(server, target)
        assert (ours.status, theirs.status) == (404, 404)
        assert {**words(ours), "content-length": ""} == {**words(theirs), "content-length": ""}
        ours_said, theirs_said = json.loads(ours.body), json.loads(theirs.body)
        assert {key: ours_said[key] for key in ("type", "title", "status")} == {
            key: theirs_said[key] for key in ("type", "title", "status")
        }


def test_every_answer_has_an_id_and_a_callers_own_is_kept(server: Server, hash: str) -> None:
    for target in (f"/{hash}-90x90.jpg", f"/{hash}-97x97.jpg", f"/{hash}.png", "/junk"):
        first, second = server.get(target), server.get(target)
        assert first.headers["x-request-id"] != second.headers["x-request-id"]
        assert server.get(target, X_Request_Id="mine-1").headers["x-request-id"] == "mine-1"
        assert server.get(target, X_Request_Id="not mine").headers["x-request-id"] != "not mine"


def test_the_log_tells_of_both_by_one_id(server: Server, hash: str) -> None:
    server.get(f"/{hash}-98x98.jpg", X_Request_Id="cold-one")
    server.get(f"/{hash}-98x98.jpg", X_Request_Id="hit-one")
    server.get(f'/{hash}-98x98.jpg?"\\', X_Request_Id="odd-one")
    mine = logged(server, "odd-one")
    assert [line["status"] for line in mine] == [404]
    cold, hit = logged(server, "cold-one"), logged(server, "hit-one")
    assert sorted(str(line["event"]) for line in cold) == ["answered", "answered at the edge"]
    assert [(line["status"], line["behind"]) for line in hit] == [(200, "")]


def logged(server: Server, id: str) -> list[dict[str, object]]:
    """The lines of a request, when nginx has written them."""
    import time

    deadline = time.monotonic() + 60
    while True:
        lines = [json.loads(line) for line in (server.data / "server.log").read_text().splitlines() if line.startswith("{")]
        mine = [line for line in lines if line.get("request") == id]
        if any(line["event"] == "answered at the edge" for line in mine) or time.monotonic() > deadline:
            return mine
        time.sleep(0.05)


def test_evicted_between_the_word_and_the_look_is_still_answered(server: Server, hash: str) -> None:
    """gunicorn names a file, and nginx does not find it: the directory is closed to nginx alone, by a mode of the file."""
    name = f"{hash}-99x99.png"
    body = server.get(f"/{name}").body
    path = published(server, name)
    path.unlink()
    path.symlink_to("nowhere-at-all")  # nginx finds nothing; gunicorn, which looks the picture up, publishes it again
    answer = server.get(f"/{name}")
    assert (answer.status, answer.body) == (200, body)


def test_a_full_or_missing_tier_keeps_nobody_from_pictures(server: Server, hash: str) -> None:
    tier = server.data / "cache"
    name = f"{hash}-89x89.png"
    expected = server.get(f"/{name}").body
    tier.rename(server.data / "away")
    tier.write_text("no directory")
    try:
        for suffix in ("-89x89.png", "-88x88.png"):
            answer = server.get(f"/{hash}{suffix}", Cache_Control="no-cache")
            assert answer.status == 200
        assert server.get(f"/{name}").body == expected
    finally:
        tier.unlink()
        (server.data / "away").rename(tier)


# ---- refused


TRICKS = {
    "a directory above": b"GET /../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "the same, escaped": b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "the same, slashes escaped": b"GET /..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: x\r\n\r\n",
    "the same, escaped twice": b"GET /%252e%252e%252fetc%252fpasswd HTTP/1.1\r\nHost: x\r\n\r\n",
    "out of the tier": b"GET /~tier/../../run/nginx/nginx.conf HTTP/1.1\r\nHost: x\r\n\r\n",
    "the tier by its inner name": b"GET /~tier/{aa}/{bb}/{name} HTTP/1.1\r\nHost: x\r\n\r\n",
    "a problem by its inner name": b"GET /~problem/404 HTTP/1.1\r\nHost: x\r\n\r\n",
    "two slashes": b"GET //{name} HTTP/1.1\r\nHost: x\r\n\r\n",
    "a slash behind": b"GET /{name}/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "here": b"GET /./{name} HTTP/1.1\r\nHost: x\r\n\r\n",
    "there and back": b"GET /x/../{name} HTTP/1.1\r\nHost: x\r\n\r\n",
    "an escaped letter": b"GET /{escaped} HTTP/1.1\r\nHost: x\r\n\r\n",
    "an escaped slash before": b"GET /%2f{name} HTTP/1.1\r\nHost: x\r\n\r\n",
    "an escaped NUL": b"GET /{name}%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a NUL": b"GET /{name}\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an escaped newline": b"GET /{name}%0a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a backslash": b"GET /x\\..\\{name} HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /{name}#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a query": b"GET /{name}?w=5 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bare question mark": b"GET /{name}? HTTP/1.1\r\nHost: x\r\n\r\n",
    "parameters": b"GET /{name};v=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a whole URL": b"GET http://127.0.0.1/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a whole URL of another host": b"GET http://elsewhere/{name} HTTP/1.1\r\nHost: x\r\n\r\n",
    "no slash": b"GET {name} HTTP/1.1\r\nHost: x\r\n\r\n",
    "a star": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a place to connect to": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "8 KB": b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a name and 8 KB": b"GET /{name}?" + b"a" * 8192 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header of 64 KB": b"GET /{name} HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 65536 + b"\r\n\r\n",
    "a space in the target": b"GET /{name} x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before the colon": b"GET /{name} HTTP/1.1\r\nHost : x\r\n\r\n",
    "length and chunks": b"POST /{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "a length that is none": b"POST /{name} HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
    "a strange coding": b"POST /{name} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks named twice": b"POST /{name} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "another version": b"GET /{name} HTTP/3.7\r\nHost: x\r\n\r\n",
    "a lower-case method": b"get /{name} HTTP/1.1\r\nHost: x\r\n\r\n",
    "to the writing door by a detour": b"GET /x/../admin/images HTTP/1.1\r\nHost: x\r\n\r\n",
    "the same, escaped otherwise": b"GET /x/%2e%2e/admin/images HTTP/1.1\r\nHost: x\r\n\r\n",
    "an alias that climbs out": b"GET /shop/%2e%2e/%2e%2e/admin HTTP/1.1\r\nHost: x\r\n\r\n",
}


def spelled(request: bytes, name: str) -> bytes:
    words = {"name": name, "escaped": name.replace("-", "%2D", 1), "aa": name[:2], "bb": name[2:4]}
    for word, value in words.items():
        request = request.replace(f"{{{word}}}".encode(), value.encode())
    return request


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3}) ", answer, re.MULTILINE)]


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_refused_by_both(server: Server, hash: str, trick: str) -> None:
    name = f"{hash}-90x90.jpg"
    body = server.get(f"/{name}").body
    request = spelled(TRICKS[trick], name)
    for front in (True, False):
        answer = raw(server, request, front=front)
        assert body[:64] not in answer
        assert b"root:" not in answer
        assert b"worker_processes" not in answer
        assert all(400 <= status < 600 and status != 500 for status in statuses(answer)), answer[:200]
        assert len(statuses(answer)) <= 1


@pytest.mark.parametrize(
    "smuggled",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_no_request_is_hidden_in_another(server: Server, hash: str, smuggled: bytes) -> None:
    """Whatever the two make of the first request, nothing of it is taken for a second one that only one of them sees."""
    name = f"{hash}-90x90.jpg"
    hidden = b"GET /healthz HTTP/1.1\r\nHost: hidden\r\nX-Request-Id: hidden-one\r\n\r\n"
    request = f"POST /{name} HTTP/1.1\r\nHost: x\r\n".encode() + smuggled + hidden
    front, back = raw(server, request, front=True), raw(server, request, front=False)
    assert 200 not in statuses(front)[:1]
    assert 200 not in statuses(back)[:1]
    assert len(statuses(front)) <= len(statuses(back)) or statuses(front) == [400]


def test_a_host_that_is_none_is_refused_and_any_other_is_welcome(server: Server, hash: str) -> None:
    name = f"{hash}-90x90.jpg"
    assert server.get(f"/{name}", Host_="x").status == 200
    for line in (b"", b"Host: a b\r\n", b"Host: x\r\nHost: y\r\n", b"Host: x/../y\r\n"):
        answer = raw(server, f"GET /{name} HTTP/1.1\r\n".encode() + line + b"\r\n", front=True)
        assert statuses(answer) == [400]
        assert b"application/problem+json" in answer


def test_a_second_header_changes_nothing_for_the_worse(server: Server, hash: str) -> None:
    name = f"{hash}-90x90.jpg"
    body = server.get(f"/{name}").body
    for lines in (b"Range: bytes=0-1\r\nRange: bytes=2-3\r\n", b'If-None-Match: "a"\r\nIf-None-Match: "b"\r\n'):
        for front in (True, False):
            request = f"GET /{name} HTTP/1.1\r\nHost: x\r\nX-Edge: bytes\r\nConnection: close\r\n".encode() + lines + b"\r\n"
            head, _, got = raw(server, request, front=front).partition(b"\r\n\r\n")
            assert statuses(head) in ([200], [206], [416], [400])
            assert statuses(head) != [200] or got == body


def test_a_stranger_cannot_ask_for_files_by_headers(server: Server, hash: str) -> None:
    answer = server.get(f"/{hash}.png", X_Accel_Redirect="/~tier/x", X_Edge="nothing", X_Original_URL="/admin", X_Rewrite_URL="/admin")
    assert (answer.status, answer.body) == (200, png(400, 200))
    assert "x-accel-redirect" not in answer.headers


# ---- who may


def test_a_signature_is_looked_at_before_a_file_is_given(tmp_path: Path) -> None:
    with edging(tmp_path / "var", IMG_KEYS=KEY, IMG_POLICY="signed", IMG_ORIGINALS="private") as server:
        (base,) = server.put(written(tmp_path / "a.png", png(40, 40)))
        name = f"{base.removesuffix('.png')}-20x20.png"
        path = signed(server, name)
        for tier in ("render", "disk"):
            answer = server.get(path)
            assert (answer.status, png_size(answer.body), answer.tier) == (200, (20, 20), tier)
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert words(answer) == words(behind(server, path))
        assert published(server, name).exists()
        assert server.get(f"/{name}").status == 403
        assert server.get(f"/{name}", "HEAD").status == 403
        assert server.get(path.replace("20x20", "21x21")).status == 403
        assert server.get(f"/{base}").status == server.get(signed(server, base)).status == 403
        short = server.get(signed(server, name, "--expires", "100"))
        assert 90 <= int(short.headers["cache-control"].removeprefix("public, max-age=")) <= 100
        assert server.get(signed(server, name, "--expires", "-1")).status == 403


def test_only_what_is_listed_comes_from_the_disk(tmp_path: Path) -> None:
    listed = {"IMG_POLICY": "listed", "IMG_LISTED": "-20x20.png", "IMG_PRESETS": "thumb=-10x10-fill.webp"}
    with edging(tmp_path / "var", IMG_KEYS=KEY, **listed) as server:
        (base,) = server.put(written(tmp_path / "a.png", png(40, 40)))
        hash = base.removesuffix(".png")
        for suffix in ("-20x20.png", "-10x10-fill.webp"):
            assert [server.get(f"/{hash}{suffix}").tier for _ in range(2)] == ["render", "disk"]
        assert server.get(signed(server, f"{hash}-30x30.png")).status == 200
        assert published(server, f"{hash}-30x30.png").exists()
        assert server.get(f"/{hash}-30x30.png").status == 403


def test_the_writing_doors_and_the_figures_open_for_some_addresses_alone(tmp_path: Path) -> None:
    with edging(tmp_path / "var", IMG_EDGE_ADMIN="10.1.2.3", IMG_EDGE_PROXIES="127.0.0.1") as server:
        for path in ("/admin/images", "/v1/upload/", "/metrics", "/admin"):
            assert server.get(path).status == 403
            assert json.loads(server.get(path).body)["title"] == "Forbidden"
            assert server.get(path, X_Forwarded_For="10.1.2.4").status == 403
            assert server.get(path, X_Forwarded_For="10.1.2.3").status != 403
        for path in ("/admin.example.org/42", "/v1beta/42", "/metrics.d/42"):
            assert server.get(path).status == 404
        assert server.get("/metrics", X_Forwarded_For="10.1.2.3").status == 200
        assert server.get("/healthz").status == server.get("/readyz").status == 200


def test_who_tries_wrong_tokens_locks_out_nobody_else(tmp_path: Path) -> None:
    settings = {"IMG_EDGE_ADMIN": "10.0.0.0/8", "IMG_EDGE_PROXIES": "127.0.0.1", "IMG_WORKERS": "1"}
    with edging(tmp_path / "var", **settings) as server:
        tried = [server.ask("GET", "/admin/status", token=f"img_{n}", X_Forwarded_For="10.1.2.3").status for n in range(TRIES + 10)]
        assert set(tried) == {401, 429}
        assert server.ask("GET", "/admin/status", X_Forwarded_For="10.1.2.4").status == 200
        assert '"address":"10.1.2.3"' in (server.data / "server.log").read_text()


def signed(server: Server, name: str, *options: str) -> str:
    done = subprocess.run([COMMAND, "sign", name, *options], env=dict(server.env), capture_output=True, check=True, timeout=60)
    return done.stdout.decode().strip()


# ---- the configuration


def test_the_file_in_conf_is_what_is_written_for_the_defaults() -> None:
    assert (ROOT / "conf" / "nginx.conf").read_text() == settings_of()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"IMG_POLICY": "signed", "IMG_KEYS": KEY},
        {"IMG_POLICY": "listed", "IMG_LISTED": ",".join(f"-{side}x{side}-fill_smart.webp" for side in range(1, 800))},
        {"IMG_CACHE": "memory://"},
        {"IMG_LIMITS_FILE_BYTES": "1K"},
        {"IMG_CORS": "", "IMG_TAGS": ""},
        {"IMG_EDGE_NODES": "127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083"},
        {"IMG_BIND": "127.0.0.1:8080,unix:/tmp/x.sock,:8081,[::1]:8082", "IMG_LOG_LEVEL": "error"},
    ],
)
def test_nginx_takes_what_is_written(tmp_path: Path, settings: dict[str, str]) -> None:
    program = nginx()
    env = environment(tmp_path / "var", **settings)
    done = subprocess.run([COMMAND, "nginx"], env=env, capture_output=True, check=True, timeout=60)
    (tmp_path / "var" / "run" / "nginx").mkdir(parents=True)
    written(tmp_path / "nginx.conf", done.stdout)
    checked = subprocess.run(
        [program, "-t", "-e", "stderr", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr


def test_no_slow_reader_takes_more_of_the_disk_than_an_original_is_large() -> None:
    assert f"proxy_max_temp_file_size {64 * 2**20};" in settings_of()
    assert f"proxy_max_temp_file_size {5 * 2**20};" in settings_of(IMG_LIMITS_FILE_BYTES="5M")
    assert f"proxy_max_temp_file_size {2**20};" in settings_of(IMG_LIMITS_FILE_BYTES="1K")


def test_every_public_door_is_known_at_the_edge() -> None:
    import imgproxy.web

    modules = [import_module(f"imgproxy.web.{found.name}") for found in pkgutil.iter_modules(imgproxy.web.__path__)]
    paths = [path for module in modules for path, _ in getattr(module, "ROUTES", ())]
    assert len(paths) >= 8
    for path in paths:
        assert door(path) in settings_of(), path


def test_a_path_that_nginx_would_misread_is_a_mistake() -> None:
    with pytest.raises(BadSettings, match="nginx cannot be told"):
        settings_of(IMG_DATA='/tmp/a"; }')


def test_a_mark_that_is_no_more_is_none_for_nginx_either(tmp_path: Path) -> None:
    written(tmp_path / "m.png", png(4, 4))
    assert "-mark_" in settings_of(IMG_MARKS=f"logo={tmp_path}/m.png")
    picture = next(line for line in settings_of().splitlines() if "(?<name>" in line)
    assert "-mark_" not in picture
