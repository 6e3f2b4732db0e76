"""The versioned interface: every route of it, by a real server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from imgproxy.tokens import TokenFile
from tests.jobs.farm import soon
from tests.plain import jpeg_size, png, png_size
from tests.serving import Response, Server, serving
from tests.strange import Asked, Stranger, stranger

ABSENT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
PRESETS = "thumbnail=-20x20.png,full-size=-full.jpg"


FAR = {"/a.png": png(60, 40, 140), "/b.png": png(60, 40, 141), "/c.png": png(60, 40, 142)}


def shown(asked: Asked) -> None:
    asked.answer(200, FAR[asked.path], Content_Type="image/png")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Stranger]:
    with stranger({"a.png": shown, "b.png": shown, "c.png": shown, "ear": lambda asked: asked.answer(204, asked.body[:0])}) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, elsewhere: Stranger) -> Iterator[Server]:
    asking = {"IMG_FETCH_NETWORKS": "127.0.0.1/32", "IMG_FETCH_PORTS": str(elsewhere.port), "IMG_JOB_WORKERS": "2"}
    with serving(tmp_path_factory.mktemp("v1"), IMG_PRESETS=PRESETS, **asking) as server:
        yield server


def uploaded(server: Server, seed: int, query: str = "") -> str:
    answer = server.ask("POST", f"/v1/upload/{query}", png(60, 40, seed), Content_Type="image/png")
    assert answer.status in (200, 201), answer.body
    return str(answer.json["hash"])


def committed(server: Server, *seeds: int) -> list[str]:
    hashes = [uploaded(server, seed) for seed in seeds]
    assert server.ask("POST", "/admin/commit").status in (200, 201)
    return hashes


def public(server: Server, path: str) -> Response:
    return server.ask("GET", path, token="")


def test_what_is_uploaded_is_answered_with_its_name_and_whether_it_is_new(server: Server) -> None:
    body = png(60, 40, 100)
    answers = [server.ask("POST", "/v1/upload/", body, Content_Type="image/png") for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 200]
    hash = hashlib.sha256(body).hexdigest()
    for answer, new in zip(answers, (True, False), strict=True):
        said = answer.json
        assert (said["hash"], said["name"], said["url"], said["new"]) == (hash, f"{hash}.png", f"/{hash}.png", new)
    assert public(server, f"/{hash}.png").body == body


def test_several_files_of_a_form_are_answered_with_a_list(server: Server) -> None:
    files = [png(60, 40, seed) for seed in (101, 102)]
    edge = b"--edge"
    parts = [
        b'%b\r\nContent-Disposition: form-data; name="f"; filename="%d.png"\r\nContent-Type: image/png\r\n\r\n%b\r\n' % (edge, place, file)
        for place, file in enumerate(files)
    ]
    body = b"".join(parts) + edge + b"--\r\n"
    answer = server.ask("POST", "/v1/upload/", body, Content_Type="multipart/form-data; boundary=edge")
    assert answer.status == 201
    assert [one["hash"] for one in answer.json] == [hashlib.sha256(file).hexdigest() for file in files]


def test_an_upload_is_refused_as_it_should_be(server: Server) -> None:
    assert server.ask("POST", "/v1/upload/", b"no picture at all", Content_Type="image/png").status == 415
    assert server.ask("POST", "/v1/upload/", png(60, 40, 103), token="", Content_Type="image/png").status == 401
    token = TokenFile(server.data).add("only-writes", ["write"])
    assert server.ask("POST", "/v1/upload/", png(60, 40, 103), token=token, Content_Type="image/png").status == 403
    assert server.ask("POST", "/v1/upload/?session=nobody", png(60, 40, 103), Content_Type="image/png").status == 404


def test_a_search_finds_ids_page_by_page_and_only_what_is_committed(server: Server) -> None:
    hashes = {uploaded(server, seed, f"?title=gondola+{seed}&tags=venice&taken_at=2024-05-{seed - 100}") for seed in range(110, 115)}
    path = "/v1/images?words=gondola&tags=venice&type=png&orientation=landscape&min_width=60&max_width=60"
    assert public(server, path).json == {"ids": [], "cursor": "", "total": 0, "exact": True}
    assert server.ask("POST", "/admin/commit").status == 201
    first = public(server, f"{path}&most=3").json
    rest = public(server, f"{path}&most=3&cursor={quote(first['cursor'])}").json
    assert (len(first["ids"]), len(rest["ids"]), first["total"], rest["cursor"]) == (3, 2, 5, "")
    assert {*first["ids"], *rest["ids"]} == hashes
    days = public(server, f"{path}&taken_from=2024-05-11&taken_to=2024-05-12&oldest=true").json
    assert len(days["ids"]) == 2
    body = png(60, 40, 111)
    assert public(server, f"/v1/images?md5={hashlib.md5(body).hexdigest()}").json["ids"] == [hashlib.sha256(body).hexdigest()]


@pytest.mark.parametrize(
    "query", ["no=1", "most=0", "most=1001", "most=x", "type=exe", "taken_from=yesterday", "cursor=x", "words=%00", "oldest=7"]
)
def test_what_a_search_does_not_know_is_refused(server: Server, query: str) -> None:
    answer = public(server, f"/v1/images?{query}")
    assert answer.status == 422
    assert answer.json["detail"]


def test_metadata_is_what_was_said_without_where_the_picture_was_taken(server: Server) -> None:
    hash = uploaded(server, 120, "?title=A+title&domain=d&dkey=k")
    assert public(server, f"/v1/images/{hash}/metadata").status == 404
    server.ask("POST", "/admin/commit")
    said = public(server, f"/v1/images/{hash}/metadata").json
    assert (said["hash"], said["title"], said["width"], said["height"], said["url"]) == (hash, "A title", 60, 40, f"/{hash}.png")
    assert "gps" not in said["image"]


def test_original_thumbnail_and_full_size_are_where_the_answer_says(server: Server) -> None:
    (hash,) = committed(server, 121)
    bodies = {}
    for word, suffix in {"original": ".png", "thumbnail": "-20x20.png", "full-size": "-full.jpg"}.items():
        answer = public(server, f"/v1/images/{hash}/{word}")
        assert (answer.status, answer.headers["location"]) == (302, f"/{hash}{suffix}")
        bodies[word] = public(server, answer.headers["location"]).body
    assert bodies["original"] == png(60, 40, 121)
    assert png_size(bodies["thumbnail"]) == (20, 13)
    assert jpeg_size(bodies["full-size"]) == (60, 40)


@pytest.mark.parametrize("word", ["original", "thumbnail", "full-size", "metadata"])
def test_of_what_is_not_there_nothing_is_told(server: Server, word: str) -> None:
    for id in (ABSENT, "x", ABSENT.upper(), ABSENT[:-1]):
        assert public(server, f"/v1/images/{id}/{word}").status == 404
    assert server.ask("POST", f"/v1/images/{ABSENT}/{word}").status == 405


@pytest.mark.parametrize("word", ["thumbnail", "full-size"])
def test_a_rendition_that_is_deleted_is_made_again_when_it_is_asked_for(server: Server, word: str) -> None:
    (hash,) = committed(server, 122)
    where = public(server, f"/v1/images/{hash}/{word}").headers["location"]
    assert [public(server, where).tier for _ in range(2)] == ["render", "disk"]
    assert server.ask("DELETE", f"/v1/images/{hash}/{word}", token="").status == 401
    assert server.ask("DELETE", f"/v1/images/{hash}/{word}").status == 204
    assert [public(server, where).tier for _ in range(2)] == ["render", "disk"]
    assert server.ask("DELETE", f"/v1/images/{ABSENT}/{word}").status == 204


def test_an_original_that_is_deleted_goes_with_the_commit(server: Server) -> None:
    (hash,) = committed(server, 123)
    assert server.ask("DELETE", f"/v1/images/{hash}/original", token="").status == 401
    answer = server.ask("DELETE", f"/v1/images/{hash}/original")
    assert (answer.status, bool(answer.json["session"])) == (202, True)
    assert public(server, f"/v1/images/{hash}/original").status == 302
    assert public(server, f"/{hash}.png").status == 200
    assert server.ask("POST", "/admin/commit").status == 201
    assert public(server, f"/v1/images/{hash}/original").status == 404
    assert public(server, f"/{hash}.png").status == 404
    assert server.ask("DELETE", f"/v1/images/{hash}/original").status == 404


def test_what_is_missing_is_told_and_generated(server: Server, elsewhere: Stranger) -> None:
    hashes = sorted(committed(server, *range(130, 134)))

    def missing() -> list[str]:
        found: list[str] = []
        after = ""
        while True:
            page = server.ask("GET", f"/v1/operations/thumbnails/missing?most=3&after={after}").json
            found += page["ids"]
            after = page["after"]
            if not after:
                return found

    for hash in hashes:
        server.ask("DELETE", f"/v1/images/{hash}/thumbnail")
    lacking = missing()
    assert set(hashes) <= set(lacking)
    assert lacking == sorted(lacking)
    public(server, f"/{hashes[0]}-20x20.png")
    assert hashes[0] not in missing()
    assert server.ask("POST", "/v1/operations/thumbnails/generate?callback=http://x.test/").status == 422  # it would stand in logs
    assert server.ask("POST", "/v1/operations/thumbnails/generate", {"callback": "gopher://x.test/"}).status == 422
    answer = server.ask("POST", "/v1/operations/thumbnails/generate", Content_Type="application/json")
    assert answer.status == 202
    where = answer.headers["location"]
    assert where == f"/v1/tasks/{answer.json['id']}"
    done = server.ask("GET", f"{where}?wait=60").json
    assert done["state"] == "succeeded", done
    assert missing() == []
    assert public(server, f"/{hashes[1]}-20x20.png").tier == "disk"
    told = server.ask("POST", "/v1/operations/thumbnails/generate", {"callback": elsewhere.url("/ear")}).json
    assert soon(lambda: server.ask("GET", f"/v1/tasks/{told['id']}").json["delivery"]["state"] == "delivered", 60)
    assert server.ask("POST", "/v1/operations/thumbnails/generate", iter([])).status == 202
    chunked = iter([b'{"callback": "gopher://x.test/"}'])
    assert server.ask("POST", "/v1/operations/thumbnails/generate", chunked, Content_Type="application/json").status == 422


@pytest.mark.parametrize(("word", "preset"), [("thumbnails", "thumbnail"), ("full-size", "full-size")])
def test_a_preset_says_what_it_does(server: Server, word: str, preset: str) -> None:
    said = public(server, f"/v1/operations/{word}").json
    assert (said["preset"], said["suffix"]) == (preset, dict(pair.split("=") for pair in PRESETS.split(","))[preset])
    assert said["images"] >= 0
    for path in (f"/v1/operations/{word}/missing", f"/v1/operations/{word}/generate"):
        assert server.ask("GET" if path.endswith("missing") else "POST", path, token="").status == 401
    assert public(server, "/v1/operations/others").status == 404
    assert server.ask("GET", "/v1/operations/others/missing").status == 404


def test_a_picture_from_elsewhere_is_waited_for_or_asked_after(server: Server, elsewhere: Stranger) -> None:
    said = {"url": elsewhere.url("/a.png"), "domain": "far", "dkey": "a", "page_url": elsewhere.url("/"), "metadata": {"rating": 5}}
    done = server.ask("POST", "/v1/fetch?wait=60", {**said, "callback": elsewhere.url("/ear")})
    assert (done.status, done.json["state"]) == (200, "succeeded"), done.body
    hash = hashlib.sha256(FAR["/a.png"]).hexdigest()
    assert done.json["result"]["hash"] == hash
    later = server.ask("POST", "/v1/fetch", {"url": elsewhere.url("/b.png")})
    assert (later.status, later.headers["location"]) == (202, f"/v1/tasks/{later.json['id']}")
    task = server.ask("GET", f"{later.headers['location']}?wait=60").json
    assert (task["state"], task["kind"]) == ("succeeded", "fetch")
    server.ask("POST", "/admin/commit")
    record = public(server, f"/v1/images/{hash}/metadata").json
    assert (record["domain"], record["dkey"], record["user"]["rating"]) == ("far", "a", 5)
    assert public(server, "/far/a").headers["location"] == f"/{hash}.png"
    failed = server.ask("POST", "/v1/fetch?wait=60", {"url": elsewhere.url("/none.png")})
    assert (failed.status, failed.json["state"]) == (200, "failed")
    assert failed.json["error"]


def test_who_may_only_upload_says_nothing_of_a_picture_that_has_a_record(server: Server, elsewhere: Stranger) -> None:
    data, url = FAR["/c.png"], elsewhere.url("/c.png")
    tokens = TokenFile(server.data)
    uploader, writer = tokens.add("uploader", ["upload"]), tokens.add("both", ["upload", "write"])

    def told(answer: Response) -> tuple[int, bool, str | None]:
        """With the title, where the record is shown."""
        one = answer.json[0] if isinstance(answer.json, list) else answer.json
        return answer.status, one["said"], (one.get("image") or {}).get("title")

    def by_parts(title: str, token: str) -> Response:
        said = f"title {base64.b64encode(title.encode()).decode()}"
        headers = {"Tus_Resumable": "1.0.0", "Upload_Length": str(len(data)), "Upload_Metadata": said, "Accept": "application/json"}
        return server.ask("POST", "/admin/uploads", data, token=token, Content_Type="application/offset+octet-stream", **headers)

    def upload(path: str, title: str, token: str) -> Response:
        return server.ask("POST", f"{path}?title={title}", data, token=token, Content_Type="image/png")

    def form(title: str, token: str) -> Response:
        parts = "".join(f'--b\r\nContent-Disposition: form-data; name="f"; filename="{n}.png"\r\n\r\n%s\r\n' for n in range(2))
        body = parts.encode().replace(b"%s", data) + b"--b--\r\n"
        return server.ask("POST", f"/admin/images?title={title}", body, token=token, Content_Type="multipart/form-data; boundary=b")

    def fetched(path: str, said: dict[str, object], token: str) -> tuple[str, object]:
        order = server.ask("POST", path, {"url": url, **said}, token=token)
        assert order.status == 202, order.body
        task = server.ask("GET", f"/v1/tasks/{order.json['id']}?wait=60", token=token).json
        return task["state"], task["result"].get("warnings")

    assert told(upload("/admin/images", "first", uploader)) == (201, True, "first")
    for committed in (False, True):
        if committed:
            assert server.ask("POST", "/admin/commit").status == 201
        assert told(upload("/admin/images", "first", uploader)) == (200, True, None)
        assert told(upload("/admin/images", "other", uploader)) == (200, False, None)
        assert told(upload("/v1/upload/", "other", uploader)) == (200, False, None)
        assert told(form("other", uploader)) == (200, False, None)
        assert told(by_parts("other", uploader))[1:] == (False, None)
        why = ["it has a record, and who ordered this may not change what that says"]
        assert fetched("/admin/fetch", {"title": "other"}, uploader) == ("warning", why)
        assert fetched("/admin/fetch", {"title": "first"}, uploader) == ("succeeded", [])
        assert fetched("/v1/fetch", {"page_url": "http://x.test/"}, uploader) == ("warning", why)
    assert told(upload("/v1/upload/", "last", writer)) == (200, True, "last")
    assert told(by_parts("very last", writer))[1:] == (True, "very last")
    assert fetched("/v1/fetch", {"domain": "said", "dkey": "again"}, writer) == ("succeeded", [])
    assert server.ask("POST", "/admin/commit").status == 201
    hash = hashlib.sha256(data).hexdigest()
    assert server.ask("DELETE", f"/admin/images/{hash}").status in (200, 202, 204)
    for title in ("other", "very%20last"):
        assert told(upload("/admin/images", title, uploader)) == (200, False, None)  # which keeps no writer from deleting it
    assert server.ask("POST", "/admin/commit").status == 201
    assert public(server, f"/v1/images/{hash}/metadata").status == 404


@pytest.mark.parametrize(
    "body",
    [{}, {"url": ""}, {"url": "file:///etc/passwd"}, {"url": "http://169.254.169.254/"}, {"url": "http://x.test/", "other": 1}, []],
)
def test_a_fetch_that_makes_no_sense_is_refused(server: Server, body: object) -> None:
    assert server.ask("POST", "/v1/fetch", body).status == 422
    assert server.ask("POST", "/v1/fetch", body, token="").status == 401


def test_a_task_that_nobody_knows_is_404(server: Server) -> None:
    for id in ("0" * 16, "x", "0" * 15):
        assert server.ask("GET", f"/v1/tasks/{id}").status == 404
    assert server.ask("GET", f"/v1/tasks/{'0' * 16}?wait=1").status == 404
    assert server.ask("GET", f"/v1/tasks/{'0' * 16}?wait=61").status == 422
    assert server.ask("GET", f"/v1/tasks/{'0' * 16}", token="").status == 401


def test_where_originals_are_private_the_way_to_them_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_WORKERS="1", IMG_ORIGINALS="private", IMG_POLICY="listed", IMG_PRESETS="thumbnail=-20x20.png") as server:
        (hash,) = committed(server, 1)
        assert public(server, f"/v1/images/{hash}/original").status == 403
        assert public(server, f"/v1/images/{hash}/thumbnail").status == 302
        # A default is no word of the settings: what nobody has listed is not for everybody.
        assert public(server, f"/v1/images/{hash}/full-size").status == 403
        assert server.ask("GET", "/v1/operations/full-size").json["suffix"] == "-full.jpg"


def test_who_never_heard_of_sessions_puts_and_takes_away_where_commits_come_by_themselves(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_WORKERS="1", IMG_AUTOCOMMIT="0.1") as server:
        hash = uploaded(server, 1)
        assert soon(lambda: public(server, f"/v1/images/{hash}/original").status == 302, 60)
        assert server.ask("DELETE", f"/v1/images/{hash}/original").status == 202
        assert soon(lambda: public(server, f"/v1/images/{hash}/original").status == 404, 60)
        assert soon(lambda: public(server, f"/{hash}.png").status == 404, 60)
