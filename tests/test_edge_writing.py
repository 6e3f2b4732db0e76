"""Writing by way of nginx: uploads whole, in chunks, in parts; what is too large; and what is deleted is gone."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edging import edging
from tests.plain import png
from tests.readers import until
from tests.serving import Response, Server

TUS = {"Tus_Resumable": "1.0.0"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with edging(tmp_path_factory.mktemp("writing"), IMG_LIMITS_FILE_BYTES="1M") as server:
        yield server


def uploaded(server: Server, data: object) -> Response:
    return server.ask("POST", "/admin/images", data, Content_Type="application/octet-stream")


def named(answer: Response) -> str:
    return str(json.loads(answer.body)["hash"])


def test_an_upload_is_a_picture_at_once(server: Server) -> None:
    answer = uploaded(server, png(60, 40, 1))
    assert answer.status == 201
    assert answer.headers["cache-control"] == "no-store"
    assert named(answer) == hashlib.sha256(png(60, 40, 1)).hexdigest()
    assert server.get(f"/{named(answer)}-20x20.png").status == 200


def test_an_upload_in_chunks_goes_through_as_it_comes(server: Server) -> None:
    data = png(300, 200, 2)
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    assert uploaded(server, iter(pieces)).status in (201, 411)


def test_an_upload_is_not_kept_back_until_it_is_whole(server: Server) -> None:
    """gunicorn has the beginning while the rest is still to come: what is interrupted is not lost."""
    data = png(60, 40, 3) + bytes(900_000)
    created = server.ask("POST", "/admin/uploads", Upload_Length=str(len(data)), **TUS)
    assert created.status == 201
    url = created.headers["location"]
    path = url if url.startswith("/") else "/" + url.split("/", 3)[3]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        head = (
            f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            f"Content-Type: application/offset+octet-stream\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        sock.sendall(head.encode() + data[:800_000])

        def arrived() -> int:
            return sum(file.stat().st_size for file in (server.data / "uploads").rglob("*") if file.is_file())

        until(lambda: arrived() >= 200_000, "nothing arrives before it is whole")
    until(lambda: int(server.ask("HEAD", path, **TUS).headers.get("upload-offset", 0)) > 0, "what has arrived is forgotten")
    offset = int(server.ask("HEAD", path, **TUS).headers["upload-offset"])
    rest = server.ask("PATCH", path, data[offset:], Upload_Offset=str(offset), Content_Type="application/offset+octet-stream", **TUS)
    assert rest.status in (200, 204)
    assert server.get(f"/{hashlib.sha256(data).hexdigest()}-20x20.png").status == 200


def test_words_of_an_upload_go_through(server: Server) -> None:
    words = "title " + base64.b64encode("Zwölf Äpfel".encode()).decode()
    answer = server.ask("POST", "/admin/uploads", Upload_Length="10", Upload_Metadata=words, **TUS)
    assert answer.status == 201


@pytest.mark.parametrize("size", [2 * 2**20, 20 * 2**20])
def test_what_is_too_large_is_refused_in_our_form(server: Server, size: int) -> None:
    """The smaller one by gunicorn, which counts; the larger one by nginx, which lets nothing of it in."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", "/admin/images")
    for name, value in {"Authorization": f"Bearer {server.token}", "Content-Type": "image/png", "Content-Length": str(size)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status in (413, 422)
    assert answer.getheader("content-type") == "application/problem+json"
    connection.close()


def test_who_has_no_token_is_told_so(server: Server) -> None:
    assert server.ask("POST", "/admin/images", b"x", token="").status == 401
    assert server.get("/admin/status").status == 401


def test_what_is_deleted_is_gone_within_moments(server: Server) -> None:
    hash = named(uploaded(server, png(80, 40, 4)))
    target = f"/{hash}-30x30.png"
    for _ in range(3):
        assert server.get(target).status == 200
    assert server.ask("POST", "/admin/commit").status in (200, 201)
    assert server.ask("DELETE", f"/admin/images/{hash}").status in (200, 202, 204)
    assert server.ask("POST", "/admin/commit").status in (200, 201)
    deadline = time.monotonic() + 60
    while server.get(target).status != 404:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.get(f"/{hash}.png").status == 404


def test_nothing_climbs_to_the_writing_doors_past_their_guard(tmp_path: Path) -> None:
    with edging(tmp_path / "var", IMG_EDGE_ADMIN="10.1.2.3") as server:
        for target in ("/admin/status", "/adm%69n/status", "/admin%2Fstatus", "//admin/status", "/./admin/status", "/x/../admin/status"):
            answer = server.raw(
                f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nConnection: close\r\n\r\n".encode()
            )
            assert int(answer.split(b" ")[1]) in (400, 403, 404), target
            assert b"commit" not in answer
