"""The public door, over real sockets: gunicorn with two workers, over a directory of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgproxy.picture import EDITION, EDITION_TIME, etag
from imgproxy.stores.fs import FsStore
from tests.plain import jpeg_size, png, png_size, written
from tests.serving import Server, serving

ABSENT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
KEY = "00112233445566778899aabbccddeeff"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("read")) as server:
        yield server


@pytest.fixture(scope="module")
def hash(server: Server) -> str:
    (name,) = server.put(written(server.data / "quarters.png", png(400, 200)))
    assert name == hashlib.sha256(png(400, 200)).hexdigest() + ".png"
    return name.removesuffix(".png")


def stored(server: Server, data: bytes) -> str:
    """The hash of bytes that were put past every check."""
    hash = hashlib.sha256(data).hexdigest()
    FsStore(server.data / "store" / "base").put(hash, io.BytesIO(data))
    return hash


def published(server: Server, name: str) -> Path:
    """Where the local tier shows a rendition to nginx."""
    return server.data / "cache" / str(EDITION) / name[:2] / name[2:4] / name


def test_a_rendition_is_made_once_and_then_comes_from_the_disk(server: Server, hash: str) -> None:
    name = f"{hash}-100x100.jpg"
    cold, warm = server.get(f"/{name}"), server.get(f"/{name}")
    assert (cold.status, cold.tier) == (200, "render")
    assert (warm.status, warm.tier) == (200, "disk")
    assert cold.body == warm.body
    assert jpeg_size(cold.body) == (100, 50)


def test_both_answers_carry_the_same_headers(server: Server, hash: str) -> None:
    cold, warm = server.get(f"/{hash}-101x.jpg"), server.get(f"/{hash}-101x.jpg")
    for answer in (cold, warm):
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["content-length"] == str(len(cold.body))
        assert answer.headers["etag"] == etag(len(cold.body))
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["accept-ranges"] == "bytes"
        assert "vary" not in answer.headers
    told = ("date", "server-timing", "x-request-id")
    assert {k: v for k, v in cold.headers.items() if k not in told} == {k: v for k, v in warm.headers.items() if k not in told}


def test_the_file_of_the_tier_has_the_time_that_nginx_makes_the_tag_of(server: Server, hash: str) -> None:
    answer = server.get(f"/{hash}-102x.jpg")
    stat = published(server, f"{hash}-102x.jpg").stat()
    assert (stat.st_mtime, stat.st_size) == (EDITION_TIME, len(answer.body))
    assert answer.headers["etag"] == f'"{int(stat.st_mtime):x}-{stat.st_size:x}"'


def test_an_original_comes_byte_for_byte(server: Server, hash: str) -> None:
    answer = server.get(f"/{hash}.png")
    assert (answer.status, answer.body, answer.tier) == (200, png(400, 200), "base")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"] == f'"{hash}"'


def test_an_original_has_one_type(server: Server, hash: str) -> None:
    assert server.get(f"/{hash}.jpg").status == 404


@pytest.mark.parametrize("suffix", [".png", "-103x.jpg", "-104x.png"])
def test_head_says_what_get_would(server: Server, hash: str, suffix: str) -> None:
    head, get = server.get(f"/{hash}{suffix}", "HEAD"), server.get(f"/{hash}{suffix}")
    assert (head.status, head.body) == (200, b"")
    for header in ("content-length", "content-type", "etag", "cache-control"):
        assert head.headers[header] == get.headers[header]


def test_a_304_needs_no_original_and_no_store(server: Server) -> None:
    tag = etag(12345)
    answer = server.get(f"/{ABSENT}-100x100.jpg", If_None_Match=tag)
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert server.get(f"/{ABSENT}.png", If_None_Match=f'"{ABSENT}"').status == 304


@pytest.mark.parametrize("tags", [f"W/{etag(5)}", f'"other", {etag(5)}', f'{etag(5)},"z"'])
def test_a_tag_among_others_is_found(server: Server, tags: str) -> None:
    assert server.get(f"/{ABSENT}-100x100.jpg", If_None_Match=tags).status == 304


@pytest.mark.parametrize("tag", ['"5"', f'"{EDITION_TIME - 1:x}-5"', f'"{EDITION_TIME:x}-"', "garbage", f'"{EDITION_TIME:x}-5'])
def test_the_tag_of_another_edition_is_none_of_ours(server: Server, hash: str, tag: str) -> None:
    assert server.get(f"/{hash}-100x100.jpg", If_None_Match=tag).status == 200


def test_a_date_that_we_gave_is_recognised(server: Server, hash: str) -> None:
    date = server.get(f"/{hash}-100x100.jpg").headers["last-modified"]
    assert server.get(f"/{ABSENT}-100x100.jpg", If_Modified_Since=date).status == 304
    assert server.get(f"/{hash}-100x100.jpg", If_Modified_Since="Sat, 01 Jan 2000 00:00:00 GMT").status == 200


def test_any_tag_at_all_is_a_match_for_what_is_there(server: Server, hash: str) -> None:
    assert server.get(f"/{hash}-100x100.jpg", If_None_Match="*").status == 304
    assert server.get(f"/{ABSENT}-100x100.jpg", If_None_Match="*").status == 404


@pytest.mark.parametrize("suffix", [".png", "-106x.png"])
def test_what_is_meant_for_another_state_is_refused(server: Server, hash: str, suffix: str) -> None:
    first = server.get(f"/{hash}{suffix}")
    tag, date = first.headers["etag"], first.headers["last-modified"]
    for right in ({"If_Match": tag}, {"If_Match": f'"x", {tag}'}, {"If_Match": "*"}, {"If_Unmodified_Since": date}):
        assert server.get(f"/{hash}{suffix}", **right).body == first.body
    for wrong in ({"If_Match": '"x"'}, {"If_Match": f"W/{tag}"}, {"If_Unmodified_Since": "Sat, 01 Jan 2000 00:00:00 GMT"}):
        for more in ({}, {"If_None_Match": tag}, {"Range": "bytes=0-1"}):
            answer = server.get(f"/{hash}{suffix}", **wrong, **more)
            assert (answer.status, answer.headers["cache-control"]) == (412, "no-store")
    assert server.get(f"/{hash}{suffix}", If_Unmodified_Since="whenever").status == 200
    assert server.get(f"/{hash}{suffix}", If_Match=tag, If_None_Match=tag).status == 304


@pytest.mark.parametrize("suffix", [".png", "-105x.png"])
def test_a_range_gives_a_part(server: Server, hash: str, suffix: str) -> None:
    part = server.get(f"/{hash}{suffix}", Range="bytes=10-19")
    whole = server.get(f"/{hash}{suffix}")
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.body)}"
    assert part.headers["content-length"] == "10"
    again = server.get(f"/{hash}{suffix}", Range="bytes=-7")
    assert (again.status, again.body) == (206, whole.body[-7:])


def test_a_range_of_what_has_changed_is_not_served(server: Server, hash: str) -> None:
    whole = server.get(f"/{hash}.png")
    assert server.get(f"/{hash}.png", Range="bytes=0-9", If_Range=whole.headers["etag"]).status == 206
    other = server.get(f"/{hash}.png", Range="bytes=0-9", If_Range='"other"')
    assert (other.status, other.body) == (200, whole.body)


def test_a_range_is_for_get_alone(server: Server, hash: str) -> None:
    head = server.get(f"/{hash}.png", "HEAD", Range="bytes=0-9")
    assert (head.status, head.headers["content-length"]) == (200, str(len(png(400, 200))))
    assert server.get(f"/{hash}.png", "HEAD", Range="bytes=999999-").status == 200


@pytest.mark.parametrize("range", ["", "Range: bytes=10-\r\n"], ids=["whole", "part"])
def test_what_is_cut_while_it_is_sent_ends_the_connection(server: Server, range: str) -> None:
    size = 30_000_000
    hash = stored(server, png(1, 1) + os.urandom(size))
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        sock.sendall(f"GET /{hash}.png HTTP/1.1\r\nHost: x\r\n{range}\r\n".encode())
        received = len(sock.recv(1000))
        os.truncate(next((server.data / "store" / "base").rglob(hash)), 1000)
        sock.sendall(f"GET /{hash}-9x9.png HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                received += len(data)
                assert b"HTTP/1.1" not in data
    assert received < size


@pytest.mark.parametrize(("method", "headers"), [("GET", {"Range": "bytes=999999-"}), ("POST", {}), ("TRACE", {})])
def test_what_one_request_has_done_wrong_is_stored_for_nobody_else(server: Server, hash: str, method: str, headers: dict[str, str]) -> None:
    answer = server.get(f"/{hash}.png", method, **headers)
    assert answer.status in (405, 416)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_head_is_answered_wherever_get_is(server: Server, path: str) -> None:
    assert server.get(path, "HEAD").status == server.get(path).status == 200


@pytest.mark.parametrize("wanted", ["bytes=999999-", "bytes=0-1,3-4"])
def test_a_range_outside_or_more_than_one_is_416(server: Server, hash: str, wanted: str) -> None:
    answer = server.get(f"/{hash}.png", Range=wanted)
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(png(400, 200))}"


def test_what_is_no_name_is_told_where(server: Server) -> None:
    answer = server.get(f"/{ABSENT}-1024X512.jpg")
    problem = json.loads(answer.body)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert (problem["status"], problem["title"], problem["at"]) == (404, "Not a name", 65)
    lines = problem["detail"].splitlines()
    assert lines[0].startswith("expected a width")
    assert lines[1][lines[2].index("^")] == "1"
    assert answer.headers["cache-control"] == "public, max-age=60, stale-while-revalidate=60"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//{name}",
        "/./{name}",
        "/x/../{name}",
        "/{name}?",
        "/{name}?w=5",
        "/{name}%0A",
        "/{name}%00",
        "/{name}/",
        "/{percent}",
        "/{upper}",
        "http://127.0.0.1/{name}",
        "/s/{name}",
        "/s//{name}",
        "/x/{name}",
        "/" + "a" * 3000,
    ],
)
def test_another_spelling_is_no_name(server: Server, hash: str, target: str) -> None:
    name = f"{hash}-100x100.jpg"
    assert server.get(f"/{name}").status == 200
    spelled = target.format(name=name, percent=name.replace("-", "%2D"), upper=name.upper())
    answer = server.raw(f"GET {spelled} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert int(answer.split(b" ")[1]) in (403, 404)


def test_an_unknown_original_is_not_here_for_a_short_while(server: Server) -> None:
    for suffix in ("-100x100.jpg", ".png"):
        answer = server.get(f"/{ABSENT}{suffix}")
        assert (answer.status, json.loads(answer.body)["title"]) == (404, "Not here")
        assert answer.headers["cache-control"] == "public, max-age=5, stale-while-revalidate=60"


def test_an_unknown_watermark_is_not_here(server: Server, hash: str) -> None:
    assert server.get(f"/{hash}-100x100-mark_nobody.jpg").status == 404


def test_a_format_that_is_not_built_in_is_501(server: Server, hash: str) -> None:
    assert server.get(f"/{hash}-100x100.jxl").status == 501


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"no image at all", 415),
        (b"%PDF-1.4 no picture", 415),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00heicmif1", 415),
        (png(100, 100)[:80], 422),
        (b"\xff\xd8\xff\xe0 lies", 422),
    ],
)
def test_what_cannot_be_rendered_says_why_and_is_never_kept(server: Server, data: bytes, status: int) -> None:
    name = f"{stored(server, data)}-50x50.jpg"
    for _ in range(2):
        answer = server.get(f"/{name}")
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
    assert not published(server, name).exists()


def test_beyond_a_limit_names_the_limit(server: Server) -> None:
    answer = server.get(f"/{stored(server, png(20001, 1))}-50x50.jpg")
    assert answer.status == 422
    assert "limits.side" in json.loads(answer.body)["detail"]


def test_a_rectangle_outside_the_original_is_422(server: Server, hash: str) -> None:
    assert server.get(f"/{hash}-full-crop_300x0x200x100.png").status == 422


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_rotten_rendition_is_made_anew(server: Server, hash: str, damage: str) -> None:
    name = f"{hash}-{110 + len(damage)}x-q_{50 + len(damage)}.jpg"
    good = server.get(f"/{name}").body
    assert server.get(f"/{name}").tier == "disk"
    path = published(server, name)
    if damage == "flip":
        with path.open("r+b") as file:
            file.seek(len(good) // 2)
            file.write(bytes([good[len(good) // 2] ^ 1]))
    elif damage == "truncate":
        os.truncate(path, len(good) // 2)
    elif damage == "empty":
        os.truncate(path, 0)
    else:
        path.unlink()
    for _ in range(8):
        answer = server.get(f"/{name}")
        assert (answer.status, answer.body) == (200, good)


def test_a_rotten_original_is_502_and_never_rendered(server: Server) -> None:
    hash = stored(server, png(60, 60, seed=7))
    path = next((server.data / "store" / "base").rglob(hash))
    with path.open("r+b") as file:
        file.seek(30)
        file.write(b"x")
    for suffix in ("-30x30.jpg", ".png"):
        assert server.get(f"/{hash}{suffix}").status == 502


def test_many_clients_at_once_make_one_picture(server: Server) -> None:
    (name,) = server.put(written(server.data / "big.png", png(3000, 2000, seed=3)))
    target = f"/{name.removesuffix('.png')}-900x600.webp"
    with ThreadPoolExecutor(200) as threads:
        answers = [answer.result() for answer in [threads.submit(server.get, target) for _ in range(200)]]
    assert {answer.status for answer in answers} == {200}
    assert [answer.tier for answer in answers].count("render") == 1
    assert len({answer.body for answer in answers}) == 1


def test_the_one_origin_that_may_read_is_told_to_everybody_and_so_varies_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "var", IMG_CORS="https://example.org") as server:
        (name,) = server.put(written(tmp_path / "a.png", png(40, 40)))
        for origin in ("https://example.org", "https://example.com"):
            answer = server.get(f"/{name}", Origin=origin)
            assert answer.headers["access-control-allow-origin"] == "https://example.org"
            assert "vary" not in answer.headers


def test_a_preflight_is_answered(server: Server, hash: str) -> None:
    answer = server.get(f"/{hash}-100x100.jpg", "OPTIONS", Origin="https://example.org", Access_Control_Request_Method="GET")
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "*")
    assert "GET" in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written_here(server: Server, hash: str, method: str) -> None:
    answer = server.get(f"/{hash}-100x100.jpg", method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_svg_may_run_nothing(server: Server) -> None:
    hash = stored(server, b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>')
    answer = server.get(f"/{hash}.svg")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/svg+xml")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert server.get(f"/{hash}-10x10.png").status == 415


def test_every_answer_has_an_id_and_a_callers_own_is_kept(server: Server, hash: str) -> None:
    first, second = server.get(f"/{hash}-100x100.jpg"), server.get("/nothing")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert server.get("/nothing", X_Request_Id="mine-1").headers["x-request-id"] == "mine-1"
    assert server.get("/nothing", X_Request_Id="not mine").headers["x-request-id"] != "not mine"


def test_the_log_is_one_json_object_a_line(server: Server, hash: str) -> None:
    server.get(f"/{hash}-100x100.jpg")
    server.get(f"/{hash}-100x100.jpg", X_Request_Id="find-me")
    deadline = time.monotonic() + 30
    while True:
        lines = [json.loads(line) for line in (server.data / "server.log").read_text().splitlines() if line.startswith("{")]
        mine = [line for line in lines if line.get("request") == "find-me"]
        if mine or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert len(mine) == 1
    assert (mine[0]["status"], mine[0]["origin"]) == (200, "disk")


def test_the_figures_of_all_workers_add_up(server: Server, hash: str) -> None:
    def count() -> float:
        lines = server.get("/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("imgproxy_answers_total") and 'origin="disk"' in line)

    server.get(f"/{hash}-100x100.jpg")
    before = count()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: server.get(f"/{hash}-100x100.jpg"), range(100)))
    assert count() == before + 100


def test_it_is_alive_and_ready(server: Server) -> None:
    assert server.get("/healthz").status == 200
    answer = server.get("/readyz")
    assert answer.status == 200
    told = json.loads(answer.body)
    assert told["ready"] is True
    assert {"base": "ok", "renderers": "ok", "disk": "ok"}.items() <= told["dependencies"].items()


def test_what_is_down_is_named_and_what_is_near_is_still_served(tmp_path: Path) -> None:
    with serving(tmp_path / "var") as server:
        (name,) = server.put(written(tmp_path / "a.png", png(40, 40)))
        hash = name.removesuffix(".png")
        assert server.get(f"/{hash}-20x20.png").status == 200
        (server.data / "store").rename(server.data / "elsewhere")
        (server.data / "store").write_text("no directory")
        ready = server.get("/readyz")
        assert ready.status == 503
        dependencies = json.loads(ready.body)["dependencies"]
        assert dependencies["base"] != "ok"
        assert dependencies["disk"] == dependencies["renderers"] == "ok"
        assert server.get(f"/{hash}-20x20.png").tier == "disk"
        cold = server.get(f"/{hash}-21x21.png")
        assert cold.status == 503
        assert cold.headers["retry-after"]
        (server.data / "store").unlink()
        (server.data / "elsewhere").rename(server.data / "store")
        assert server.get(f"/{hash}-21x21.png").status == 200


def test_the_death_of_a_worker_is_not_the_end(tmp_path: Path) -> None:
    with serving(tmp_path / "var") as server:
        (name,) = server.put(written(tmp_path / "a.png", png(40, 40)))
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if server.get(f"/{name.removesuffix('.png')}-20x20.png").status == 200:
                    break
            except OSError:
                time.sleep(0.05)
        assert png_size(server.get(f"/{name.removesuffix('.png')}-20x20.png").body) == (20, 20)


def test_only_signed_names_are_opened_where_the_policy_says_so(tmp_path: Path) -> None:
    keys = {"IMG_KEYS": KEY, "IMG_POLICY": "signed", "IMG_ORIGINALS": "private"}
    with serving(tmp_path / "var", **keys) as server:
        (base,) = server.put(written(tmp_path / "a.png", png(40, 40)))
        name = f"{base.removesuffix('.png')}-20x20.png"
        path = _signed(server, name)
        assert path.startswith("/s/")
        assert path.endswith(f"/{name}")
        answer = server.get(path)
        assert (answer.status, png_size(answer.body)) == (200, (20, 20))
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert server.get(f"/{name}").status == 403
        assert server.get(path.replace("20x20", "21x21")).status == 403
        assert server.get(f"/{base}").status == 403
        assert server.get(_signed(server, base)).status == 403
        short = server.get(_signed(server, name, "--expires", "100"))
        assert short.status == 200
        assert 90 <= int(short.headers["cache-control"].removeprefix("public, max-age=")) <= 100
        assert server.get(_signed(server, name, "--expires", "-1")).status == 403


def test_only_listed_renditions_are_opened_where_the_policy_says_so(tmp_path: Path) -> None:
    listed = {"IMG_POLICY": "listed", "IMG_LISTED": "-20x20.png", "IMG_PRESETS": "thumb=-10x10-fill.webp"}
    with serving(tmp_path / "var", IMG_ORIGINALS="signed", IMG_KEYS=KEY, **listed) as server:
        (base,) = server.put(written(tmp_path / "a.png", png(40, 40)))
        hash = base.removesuffix(".png")
        assert server.get(f"/{hash}-20x20.png").status == 200
        assert server.get(f"/{hash}-10x10-fill.webp").status == 200
        began = time.monotonic()
        assert {server.get(f"/{hash}-{side}x.png").status for side in range(30, 60)} == {403}
        assert time.monotonic() - began < 30
        assert server.get(f"/{base}").status == 403


def _signed(server: Server, name: str, *options: str) -> str:
    import subprocess

    from tests.serving import COMMAND

    done = subprocess.run([COMMAND, "sign", name, *options], env=dict(server.env), capture_output=True, check=True, timeout=60)
    return done.stdout.decode().strip()
