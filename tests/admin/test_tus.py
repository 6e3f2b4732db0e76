"""Uploads that are interrupted, by the tus protocol: with the client that everybody uses, in node, and by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from imgproxy.tokens import TokenFile
from imgproxy.web.admin.tus import MEDIA, PATH
from tests import node
from tests.cutter import Cutter, Rule
from tests.plain import png, written
from tests.serving import COMMAND, Response, Server, serving

V = {"Tus_Resumable": "1.0.0"}
RETRIES = [0, 50, 100, 200, 400, 800, 1600, 3000, 3000, 3000]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("tus")) as server:
        _eventually(lambda: server.ask("OPTIONS", PATH).status == 204)  # pictures are served before writing is
        yield server


def picture(seed: int, size: int = 0) -> bytes:
    """A picture of its own, as large as is asked: bytes after its end are nobody's business."""
    small = png(60, 40, seed)
    return small + os.urandom(max(0, size - len(small)))


def spelled(**said: str) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in said.items())


def created(server: Server, length: int, body: bytes | None = None, **headers: str) -> Response:
    more = {"Content_Type": MEDIA} if body is not None else {}
    return server.ask("POST", PATH, body, Upload_Length=str(length), **{**V, **more, **headers})


def patched(server: Server, url: str, offset: int, body: bytes, **headers: str) -> Response:
    return server.ask("PATCH", url, body, Upload_Offset=str(offset), Content_Type=MEDIA, **{**V, **headers})


def head_of(server: Server, url: str, offset: int, length: int) -> bytes:
    """The head of a request that goes on with an upload."""
    head = f"PATCH {url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nTus-Resumable: 1.0.0\r\n"
    head += f"Upload-Offset: {offset}\r\nContent-Type: {MEDIA}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    return head.encode()


def spooled(server: Server) -> list[str]:
    return [path.name for path in (server.data / "uploads").iterdir() if path.name != "lock"]


class Node:
    """tus-js-client and a file."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server = server
        self.home = home

    def order(self, data: bytes, **more: Any) -> dict[str, Any]:
        path = written(self.home / "picture", data)
        headers = {"Authorization": f"Bearer {self.server.token}"}
        return {"endpoint": f"http://127.0.0.1:{self.server.port}{PATH}", "file": str(path), "headers": headers, **more}

    def run(self, data: bytes, **more: Any) -> list[dict[str, Any]]:
        with node.running("upload.cjs", self.order(data, **more)) as process:
            return list(node.events(process))


def test_what_is_no_base64_is_refused(server: Server) -> None:
    assert created(server, 100, Upload_Metadata="title \xe9").status == 400
    assert created(server, 100, b"x", Upload_Checksum="sha1 \xe9").status == 400


@pytest.fixture
def tus(server: Server, tmp_path: Path) -> Node:
    node.installed()
    return Node(server, tmp_path)


def last(told: list[dict[str, Any]], event: str) -> dict[str, Any]:
    return [one for one in told if one["event"] == event][-1]


# ---- tus-js-client


@pytest.mark.parametrize("how", [{}, {"chunkSize": 100_000}, {"buffer": True}, {"atOnce": True}, {"atOnce": True, "chunkSize": 150_000}])
def test_the_usual_client_uploads_a_picture_with_its_words(tus: Node, server: Server, how: dict[str, Any]) -> None:
    data = picture(1, 400_000)
    hash = hashlib.sha256(data).hexdigest()
    words = {
        "hints": "-20x.png",
        "filename": "sunset.png",
        "filetype": "image/png",
        "title": "Sönnenuntergang",
        "tags": "sun, sea",
        "sha256": hash,
    }
    told = tus.run(data, metadata=words, **how)
    assert told[-1]["event"] == "done", told
    headers = last(told, "answered")["headers"]
    assert (headers["image-hash"], headers["image-name"], headers["image-url"]) == (hash, f"{hash}.png", f"/{hash}.png")
    assert server.get(f"/{hash}.png").body == data
    record = server.ask("GET", f"/admin/images/{hash}?session=default").json
    assert (record["title"], record["tags"]) == ("Sönnenuntergang", ["sun", "sea"])


def test_the_usual_client_goes_on_where_the_line_was_cut(tus: Node, server: Server) -> None:
    data = picture(2, 3_000_000)
    hash = hashlib.sha256(data).hexdigest()
    with Cutter(server.port) as cutter:
        order = tus.order(data, retryDelays=RETRIES) | {"endpoint": f"http://127.0.0.1:{cutter.port}{PATH}"}
        cutter.misbehave(Rule("cut", after=1_200_000, way="up"), times=2)
        with node.running("upload.cjs", order) as process:
            told = list(node.events(process))
    assert told[-1]["event"] == "done", told
    offsets = [one["offset"] for one in told if one["event"] == "asked" and one["method"] == "PATCH"]
    assert offsets[0] == 0
    assert len(offsets) >= 3
    assert offsets == sorted(set(offsets))
    assert offsets[1] > 0
    assert server.get(f"/{hash}.png").body == data


def workers(server: Server) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()]


def test_the_usual_client_goes_on_when_the_worker_was_killed(tmp_path: Path) -> None:
    """The line hangs in the middle of the bytes; then every web process dies of kill -9, and others take their place."""
    node.installed()
    with serving(tmp_path / "data") as server, Cutter(server.port) as cutter:
        data = picture(3, 3_000_000)
        order = Node(server, tmp_path).order(data, retryDelays=RETRIES) | {"endpoint": f"http://127.0.0.1:{cutter.port}{PATH}"}
        cutter.misbehave(Rule("hang", after=1_500_000, way="up"), times=1)
        with node.running("upload.cjs", order) as process:
            told = node.events(process)
            heard = [next(told) for _ in range(3)]
            (part,) = _eventually(lambda: list((server.data / "uploads").glob("*.part")))
            _eventually(lambda: part.stat().st_size > 1_200_000)
            for pid in workers(server):
                os.kill(pid, signal.SIGKILL)
            heard += list(told)
        assert heard[-1]["event"] == "done", heard
        offsets = [one["offset"] for one in heard if one["event"] == "asked" and one["method"] == "PATCH"]
        assert offsets[0] == 0
        assert offsets[-1] > 1_200_000
        assert server.get(f"/{hashlib.sha256(data).hexdigest()}.png").body == data


def _eventually(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_the_usual_client_goes_on_another_day(tus: Node, server: Server) -> None:
    data = picture(4, 1_000_000)
    told = tus.run(data, chunkSize=200_000, stopAfter=400_000)
    stopped = last(told, "stopped")
    assert 400_000 <= stopped["accepted"] < 1_000_000
    again = tus.run(data, chunkSize=200_000, uploadUrl=stopped["url"])
    assert again[-1]["event"] == "done"
    assert [one["offset"] for one in again if one["event"] == "asked"][:2] == [-1, stopped["accepted"]]
    assert next(one["method"] for one in again if one["event"] == "asked") == "HEAD"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_the_usual_client_vouches_for_its_bytes(tus: Node, server: Server, algorithm: str) -> None:
    data = picture(5, 500_000)
    wrong = tus.run(data, checksum=algorithm, wrong=True, chunkSize=200_000)
    assert (wrong[-1]["event"], wrong[-1]["status"]) == ("failed", 460)
    right = tus.run(data, checksum=algorithm, chunkSize=200_000)
    assert right[-1]["event"] == "done"
    assert last(right, "answered")["headers"]["image-hash"] == hashlib.sha256(data).hexdigest()


def test_the_usual_client_ends_an_upload(tus: Node, server: Server) -> None:
    before = spooled(server)
    told = tus.run(picture(6, 1_000_000), chunkSize=200_000, stopAfter=400_000, terminate=True)
    assert [one["status"] for one in told if one["event"] == "answered" and one["method"] == "DELETE"] == [204]
    assert sorted(spooled(server)) == sorted(before)


def test_the_usual_client_begins_anew_when_an_upload_has_expired(tmp_path: Path) -> None:
    node.installed()
    with serving(tmp_path / "data", IMG_UPLOADS_KEPT="1s") as server:
        tus = Node(server, tmp_path)
        data = picture(7, 600_000)
        stopped = last(tus.run(data, chunkSize=200_000, stopAfter=200_000), "stopped")
        path = "/" + stopped["url"].split("/", 3)[3]
        _eventually(lambda: server.ask("HEAD", path, **V).status == 404)
        told = tus.run(data, uploadUrl=stopped["url"])
        assert told[-1]["event"] == "done"
        assert [one["method"] for one in told if one["event"] == "asked"] == ["HEAD", "POST", "PATCH"]
        _eventually(lambda: created(server, 5).status == 201 and stopped["url"].rpartition("/")[2] not in spooled(server))


def test_the_usual_client_is_told_what_is_no_picture_and_nothing_stays(tus: Node, server: Server) -> None:
    before = spooled(server)
    told = tus.run(b"no picture" * 1000, chunkSize=5_000)
    assert (told[-1]["event"], told[-1]["status"]) == ("failed", 415)
    assert sorted(spooled(server)) == sorted(before)


# ---- by hand


def test_what_is_spoken_here_is_told_to_everybody(server: Server) -> None:
    answer = server.ask("OPTIONS", PATH, token="")
    assert answer.status == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert set(answer.headers["tus-extension"].split(",")) == {"creation", "creation-with-upload", "termination", "expiration", "checksum"}
    assert set(answer.headers["tus-checksum-algorithm"].split(",")) == {"sha1", "sha256", "md5"}
    assert int(answer.headers["tus-max-size"]) == 64 * 2**20


def test_the_last_answer_says_what_it_has_become_and_says_it_again(server: Server) -> None:
    data = picture(8)
    begun = created(server, len(data))
    url = begun.headers["location"]
    assert (begun.status, begun.headers["upload-offset"]) == (201, "0")
    assert "GMT" in begun.headers["upload-expires"]
    assert patched(server, url, 0, data[:50]).headers["upload-offset"] == "50"
    head = server.ask("HEAD", url, **V)
    assert (head.status, head.headers["upload-offset"], head.headers["upload-length"]) == (200, "50", str(len(data)))
    assert (head.headers["cache-control"], head.headers["tus-resumable"]) == ("no-store", "1.0.0")
    done = patched(server, url, 50, data[50:], Accept="application/json")
    hash = hashlib.sha256(data).hexdigest()
    assert done.status == 200
    assert (done.json["hash"], done.json["name"], done.json["url"], done.json["new"]) == (hash, f"{hash}.png", f"/{hash}.png", True)
    assert done.json["image"]["bytes"] == len(data)
    again = patched(server, url, len(data), b"")
    assert (again.status, again.body, again.headers["image-hash"], again.headers["image-new"]) == (204, b"", hash, "true")
    assert server.ask("HEAD", url, **V).headers["image-hash"] == hash
    assert server.ask("DELETE", url, **V).status == 204
    assert server.ask("HEAD", url, **V).status == 404
    second = created(server, len(data), data, Accept="application/json")
    assert (second.status, second.json["new"]) == (201, False)


def test_who_looks_is_told_what_was_said_at_the_beginning(server: Server) -> None:
    data, said = picture(17), "filename YSBiLnBuZw==, title U8O2bm5l,description"
    url = created(server, len(data), Upload_Metadata=said).headers["location"]
    assert server.ask("HEAD", url, **V).headers["upload-metadata"] == said
    assert "upload-metadata" not in patched(server, url, 0, data).headers
    assert server.ask("HEAD", url, **V).headers["upload-metadata"] == said


@pytest.mark.parametrize("said", ["", spelled(description="word " * 400)])
def test_who_said_nothing_or_much_is_told_nothing_of_it(server: Server, said: str) -> None:
    url = created(server, 5, Upload_Metadata=said).headers["location"]
    looked = server.ask("HEAD", url, **V)
    assert (looked.status, "upload-metadata" in looked.headers) == (200, False)


def test_an_upload_begun_by_an_older_server_can_be_looked_at(server: Server) -> None:
    url = created(server, 5, Upload_Metadata=spelled(title="old")).headers["location"]
    note = server.data / "uploads" / url.rpartition("/")[2]
    told = json.loads(note.read_bytes())
    del told["said"]["metadata"]
    note.write_text(json.dumps(told))
    assert server.ask("HEAD", url, **V).status == 200


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"Upload_Length": "5", "Tus_Resumable": "0.2.2"}, 412),
        ("POST", {"Upload_Length": "5", "Tus_Resumable": ""}, 412),
        ("POST", {}, 400),
        ("POST", {"Upload_Length": "-1"}, 400),
        ("POST", {"Upload_Length": "²"}, 400),
        ("POST", {"Upload_Length": "1e3"}, 400),
        ("POST", {"Upload_Defer_Length": "1"}, 400),
        ("POST", {"Upload_Length": str(2**40)}, 413),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": "title !!!"}, 400),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": "\xa0,title YQ=="}, 422),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": "title /w=="}, 422),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": "titel YQ=="}, 422),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": "title YQ==,title YQ=="}, 422),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": spelled(domain="a")}, 422),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": spelled(sha256="x")}, 422),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": spelled(user="{")}, 422),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": spelled(hints="-0x.png")}, 422),
        ("POST", {"Upload_Length": "5", "Upload_Metadata": spelled(session="nowhere")}, 404),
        ("PATCH", {"Content_Type": "image/png", "Upload_Offset": "0"}, 415),
        ("PATCH", {"Upload_Offset": "x"}, 400),
        ("PATCH", {}, 400),
        ("PATCH", {"Upload_Offset": "3"}, 409),
        ("PATCH", {"Upload_Offset": "0", "Upload_Checksum": "crc32 AAAA"}, 400),
        ("PATCH", {"Upload_Offset": "0", "Upload_Checksum": "sha1 ???"}, 400),
        ("PATCH", {"Upload_Offset": "0", "Upload_Checksum": "sha1 AAAA"}, 460),
        ("PATCH", {"Upload_Offset": "0", "Tus_Resumable": "2.0.0"}, 412),
        ("HEAD", {"Tus_Resumable": "2.0.0"}, 412),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(server: Server, method: str, headers: dict[str, str], status: int) -> None:
    url = created(server, 10).headers["location"]
    before = sorted(spooled(server))
    said = {**V, "Content_Type": MEDIA, **headers}
    answer = server.ask(method, PATH if method == "POST" else url, b"abc" if method == "PATCH" else None, **said)
    assert answer.status == status
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert (answer.headers.get("tus-version") == "1.0.0") == (status == 412)
    assert server.ask("HEAD", url, **V).headers["upload-offset"] == "0"
    assert sorted(spooled(server)) == before


def test_too_many_bytes_are_refused(server: Server) -> None:
    url = created(server, 5).headers["location"]
    assert patched(server, url, 0, b"abcdef").status == 413
    assert created(server, 5, b"abcdef").status == 413


def test_bytes_that_are_not_those_that_were_announced_leave_nothing(server: Server) -> None:
    data = picture(9)
    begun = created(server, len(data), Upload_Metadata=spelled(sha256="0" * 64))
    assert patched(server, begun.headers["location"], 0, data).status == 460
    assert server.ask("HEAD", begun.headers["location"], **V).status == 404
    assert server.get(f"/{hashlib.sha256(data).hexdigest()}.png").status == 404


def test_a_truncated_part_counts_as_far_as_it_came(server: Server) -> None:
    """`Content-Length` says more than comes before the client hangs up its side."""
    data = picture(10, 300_000)
    url = created(server, len(data)).headers["location"]
    assert server.half(head_of(server, url, 0, len(data)) + data[:200_000]).startswith(b"HTTP/1.1 400 ")
    assert server.ask("HEAD", url, **V).headers["upload-offset"] == "200000"
    assert patched(server, url, 200_000, data[200_000:]).status == 204


def test_however_little_comes_before_a_line_is_cut_the_upload_goes_on(server: Server) -> None:
    data = picture(13, 100_000)
    url = created(server, len(data)).headers["location"]

    def cut(offset: int, end: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
            line.sendall(head_of(server, url, offset, len(data) - offset) + data[offset:end])
        _eventually(lambda: server.ask("HEAD", url, **V).headers["upload-offset"] == str(end))

    for offset in range(0, 90_000, 30_000):
        cut(offset, offset + 30_000)
    assert patched(server, url, 90_000, data[90_000:]).headers["image-hash"] == hashlib.sha256(data).hexdigest()


def test_of_two_who_send_the_same_the_second_is_out_of_step(server: Server) -> None:
    """One sends its head and waits; the other sends all; then the bytes of the first come."""
    data = picture(12)
    url = created(server, len(data)).headers["location"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(head_of(server, url, 0, len(data)))
        time.sleep(0.5)
        assert patched(server, url, 0, data).headers["image-new"] == "true"
        line.sendall(data)
        assert line.recv(2**16).startswith(b"HTTP/1.1 409 ")
    assert server.ask("HEAD", url, **V).headers["upload-offset"] == str(len(data))


def meant(server: Server, method: str, url: str, body: bytes | None = None, *, token: str | None = None, **headers: str) -> Response:
    return server.ask("POST", url, body, token=token, X_HTTP_Method_Override=method, **{**V, **headers})


def test_who_can_only_post_says_which_method_is_meant(server: Server) -> None:
    data = picture(18)
    url = meant(server, "POST", PATH, Upload_Length=str(len(data))).headers["location"]
    assert meant(server, "PATCH", url, data[:50], Upload_Offset="0", Content_Type=MEDIA).headers["upload-offset"] == "50"
    looked = meant(server, "HEAD", url)
    assert (looked.status, looked.body, looked.headers["upload-offset"]) == (200, b"", "50")
    assert meant(server, "PATCH", url, data[50:], Upload_Offset="50", Content_Type=MEDIA).headers["image-new"] == "true"
    looked = meant(server, "HEAD", url, Accept="application/json")
    assert (looked.status, looked.body, looked.headers["content-length"]) == (200, b"", "0")
    assert meant(server, "DELETE", url).status == 204
    gone = meant(server, "HEAD", url)
    assert (gone.status, gone.body, gone.headers["tus-resumable"]) == (404, b"", "1.0.0")
    assert meant(server, "OPTIONS", PATH, token="").headers["tus-version"] == "1.0.0"


@pytest.mark.parametrize("method", ["GET", "PUT", "patch", "WEBSOCKET", "BREW", "\xe9"])
def test_a_method_that_is_not_there_cannot_be_meant(server: Server, method: str) -> None:
    url = created(server, 5).headers["location"]
    assert meant(server, method, url).status in (400, 405)
    assert server.ask("HEAD", url, **V).headers["upload-offset"] == "0"


def test_another_method_can_be_meant_by_a_post_to_uploads_alone(server: Server) -> None:
    url = created(server, 5).headers["location"]
    assert server.ask("GET", url, X_HTTP_Method_Override="DELETE", **V).status == 405
    assert server.ask("HEAD", url, X_HTTP_Method_Override="DELETE", **V).status == 200
    session = server.ask("POST", "/admin/sessions", {"name": "meant"}).json["id"]
    assert meant(server, "DELETE", f"/admin/sessions/{session}").status == 405
    assert server.ask("GET", f"/admin/sessions/{session}").status == 200


def test_what_is_meant_needs_the_scope_that_it_needs_otherwise(server: Server) -> None:
    url = created(server, 5).headers["location"]
    assert meant(server, "DELETE", url, token="").status == 401
    tokens = TokenFile(server.data)
    token = tokens.add("means-well", ["write"])
    assert [meant(server, method, url, token=token).status for method in ("DELETE", "HEAD")] == [403, 403]
    tokens.revoke("means-well")
    assert server.ask("HEAD", url, **V).status == 200


@pytest.mark.parametrize(("token", "status"), [("", 401), ("img_wrong", 401), (None, 403)])
def test_who_may_not_upload_may_not_look_either(server: Server, token: str | None, status: int) -> None:
    url = created(server, 5).headers["location"]
    if token is None:
        name = "no-uploader"
        tokens = TokenFile(server.data)
        token = tokens.add(name, ["write"])
        answers = [server.ask("POST", PATH, token=token, Upload_Length="5", **V), server.ask("HEAD", url, token=token, **V)]
        answers += [server.ask("DELETE", url, token=token, **V)]
        tokens.revoke(name)
    else:
        answers = [server.ask("POST", PATH, token=token, Upload_Length="5", **V), server.ask("HEAD", url, token=token, **V)]
    assert {answer.status for answer in answers} == {status}
    assert server.ask("HEAD", url, **V).status == 200


def test_so_many_may_be_under_way(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_UPLOADS="2") as server:
        assert [created(server, 5).status for _ in range(2)] == [201, 201]
        refused = created(server, 5)
        assert (refused.status, refused.headers["retry-after"]) == (503, "30")


def test_those_that_are_finished_are_not_under_way(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_UPLOADS="2") as server:
        done = [created(server, len(data), data) for data in map(picture, range(20, 25))]
        assert [(answer.status, "image-hash" in answer.headers) for answer in done] == [(201, True)] * 5
        assert server.ask("HEAD", done[-1].headers["location"], **V).headers["image-hash"] == hashlib.sha256(picture(24)).hexdigest()


def test_a_session_that_is_gone_at_the_end_takes_nothing(server: Server) -> None:
    """The session is looked at when the upload begins, and again at its end."""
    typed(server, "session", "open", "short")
    data = picture(11)
    url = created(server, len(data), Upload_Metadata=spelled(session="short")).headers["location"]
    assert patched(server, url, 0, data[:50]).status == 204
    typed(server, "session", "discard", "short")
    assert patched(server, url, 50, data[50:]).status == 404
    assert server.ask("HEAD", url, **V).status == 404


def test_a_session_that_was_committed_meanwhile_takes_nothing_either(server: Server) -> None:
    data, session = picture(14), server.ask("POST", "/admin/sessions", {}).json["id"]
    url = created(server, len(data), Upload_Metadata=spelled(session=session)).headers["location"]
    assert patched(server, url, 0, data[:50]).status == 204
    assert server.ask("POST", f"/admin/images?session={session}", picture(15), Content_Type="image/png").status == 201
    n = server.ask("POST", f"/admin/commit?session={session}").json["n"]
    refused = patched(server, url, 50, data[50:])
    assert (refused.status, refused.json["detail"]) == (404, f"session {session} was closed by commit {n}")
    assert server.ask("HEAD", url, **V).status == 404
    assert not [name for name in spooled(server) if name.startswith(url.rpartition("/")[2])]


def test_while_its_session_is_being_committed_an_upload_stays(server: Server) -> None:
    """The commit may fail, and the session go on."""
    data, session = picture(16), server.ask("POST", "/admin/sessions", {"name": "busy"}).json["id"]
    url = created(server, len(data), Upload_Metadata=spelled(session="busy")).headers["location"]
    with closing(sqlite3.connect(server.data / "words" / "words.db", isolation_level=None)) as words:
        words.execute("UPDATE sessions SET committing = 1 WHERE id = ?", (session,))
        assert patched(server, url, 0, data).status == 423
        assert server.ask("HEAD", url, **V).status == 423
        words.execute("UPDATE sessions SET committing = NULL WHERE id = ?", (session,))
    assert server.ask("HEAD", url, **V).headers["image-hash"] == hashlib.sha256(data).hexdigest()


def typed(server: Server, *words: str) -> None:
    subprocess.run([COMMAND, *words], env=dict(server.env), check=True, capture_output=True, timeout=60)
