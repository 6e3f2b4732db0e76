"""Records, sessions, commits and upkeep over HTTP."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from imgproxy.clerk import FOLLOW
from imgproxy.tokens import TokenFile
from tests.plain import png
from tests.readers import until
from tests.serving import Response, Server, serving

_seeds = itertools.count(5000)


def uploaded(server: Server, session: str = "", **said: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in {"session": session, **said}.items())
    answer = server.ask("POST", f"/admin/images?{query}", png(60, 40, next(_seeds)))
    assert answer.status == 201
    return str(answer.json["hash"])


def opened(server: Server, name: str = "") -> str:
    answer = server.ask("POST", "/admin/sessions", {"name": name})
    assert answer.status == 201
    return str(answer.json["id"])


def committed(server: Server, session: str = "") -> int:
    answer = server.ask("POST", f"/admin/commit?session={session}")
    assert answer.status == 201
    return int(answer.json["n"])


def live(server: Server, **said: str) -> str:
    hash = uploaded(server, **said)
    committed(server)
    return hash


def described(server: Server, hash: str, said: dict[str, Any], session: str = "", **headers: str) -> Response:
    return server.ask("PATCH", f"/admin/images/{hash}?session={session}", said, **headers)


def found(server: Server, query: str) -> list[str]:
    return [image["hash"] for image in server.ask("GET", f"/admin/images?{query}").json["images"]]


# ---- the walk


def test_what_is_said_in_a_session_is_seen_there_and_by_all_after_its_commit(server: Server) -> None:
    session = opened(server, "walk")
    hash = uploaded(server, session)
    assert described(server, hash, {"title": "Walking", "tags": ["walk"]}, session).json["title"] == "Walking"
    assert found(server, "words=walking") == []
    assert found(server, f"words=walking&session={session}") == [hash]
    assert server.ask("GET", f"/admin/images/{hash}").status == 404
    n = committed(server, session)
    assert found(server, "tags=walk") == [hash]
    answer = server.ask("GET", f"/admin/images/{hash}").json
    assert (answer["title"], answer["version"]) == ("Walking", n)
    assert server.ask("GET", "/admin/status").json["commit"] == n


def test_a_deleted_image_goes_with_its_commit(server: Server) -> None:
    hash = live(server)
    assert server.get(f"/{hash}-20x20.jpg").status == 200
    assert server.ask("DELETE", f"/admin/images/{hash}").status == 204
    assert server.get(f"/{hash}.png").status == 200
    assert server.ask("GET", f"/admin/images/{hash}?session=default").status == 404
    committed(server)
    assert server.get(f"/{hash}.png").status == 404
    assert server.get(f"/{hash}-20x20.jpg").status == 404
    assert server.ask("DELETE", f"/admin/images/{hash}").status == 404


# ---- records


def test_a_merge_patch_merges_and_takes_back(server: Server) -> None:
    hash = live(server, title="Old", tags="a,b")
    described(server, hash, {"user": {"a": {"b": 1, "c": 2}, "d": 3}})
    image = described(server, hash, {"title": None, "user": {"a": {"b": None}, "d": None, "e": []}}).json
    assert (image["title"], image["tags"], image["user"]) == ("", ["a", "b"], {"a": {"c": 2}, "e": []})
    assert described(server, hash, {"user": None}).json["user"] == {}
    committed(server)


@pytest.mark.parametrize(
    ("patch", "status", "field"),
    [
        ({"title": 5}, 422, "title"),
        ({"width": 5}, 422, "width"),
        ({"titel": "x"}, 422, "titel"),
        ({"tags": "red"}, 422, "tags"),
        ({"tags": [""]}, 422, "tags"),
        ({"taken_at": "soon"}, 422, "taken_at"),
        ({"domain": "a"}, 422, "dkey"),
        ({"user": {"a": 2**70}}, 422, "user"),
        ([], 422, ""),
    ],
)
def test_a_wrong_patch_names_its_field(server: Server, patch: Any, status: int, field: str) -> None:
    hash = uploaded(server)
    answer = server.ask("PATCH", f"/admin/images/{hash}", patch)
    assert (answer.status, answer.json["field"]) == (status, field)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"user": ' + b'{"a": ' * 40_000, "application/json", 400),
        (b'{"title": "' + b"x" * 300_000 + b'"}', "application/json", 413),
        (b"{}", "text/plain", 415),
        (b"{}", "application/merge-patch+json; charset=utf-8", 200),
    ],
)
def test_a_body_that_is_no_json_is_refused(server: Server, body: bytes, kind: str, status: int) -> None:
    hash = uploaded(server)
    assert server.ask("PATCH", f"/admin/images/{hash}", body, Content_Type=kind).status == status


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/commit"),
        ("POST", "/admin/commits/1/revert"),
        ("POST", "/admin/sync"),
        ("POST", "/admin/snapshot?wait=false"),
        ("POST", "/admin/tasks/0123456789abcdef/retry"),
        ("DELETE", f"/admin/images/{'0' * 64}"),
        ("GET", "/admin/images"),
        ("GET", "/v1/images"),
    ],
)
def test_a_body_where_none_is_read_is_refused_and_nothing_is_done(server: Server, method: str, path: str, chunked: bool) -> None:
    uploaded(server)
    before = server.ask("GET", "/admin/status").json["commit"]
    said = json.dumps({"session": opened(server)}).encode()
    answer = server.ask(method, path, iter([said]) if chunked else said, Content_Type="application/json")
    assert (answer.status, answer.json["field"], "query" in answer.json["detail"]) == (422, "body", True)
    assert server.ask("GET", "/admin/status").json["commit"] == before


@pytest.mark.parametrize("body", [b"", iter([b""])])
def test_a_body_of_no_bytes_is_none(server: Server, body: Any) -> None:
    assert server.ask("POST", "/admin/proof", body, Content_Type="application/json").status == 200
    assert server.ask("GET", "/admin/images", body).status == 200


def test_a_large_body_where_none_is_read_is_refused_unread(server: Server) -> None:
    head = f"POST /admin/commit HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nContent-Length: {10**12}\r\n"
    assert b" 422 " in server.half(f"{head}\r\n".encode()).partition(b"\r\n")[0]


def test_an_edit_of_what_changed_meanwhile_is_refused(server: Server) -> None:
    hash = live(server)
    tag = server.ask("GET", f"/admin/images/{hash}").headers["etag"]
    first = described(server, hash, {"title": "First"}, If_Match=tag)
    assert first.status == 200
    assert described(server, hash, {"title": "Second"}, If_Match=tag).status == 412
    assert server.ask("DELETE", f"/admin/images/{hash}", If_Match=tag).status == 412
    assert described(server, hash, {"title": "Second"}, If_Match=first.headers["etag"]).status == 200
    assert described(server, hash, {"title": "Third"}, If_Match=f'"{first.json["version"]}"').status == 200
    assert described(server, hash, {"title": "Fourth"}, If_Match="*").status == 200
    committed(server)
    assert described(server, hash, {"title": "Fifth"}, If_Match=f'"{first.json["version"]}"').status == 412


# ---- search


def test_a_search_is_read_page_by_page(server: Server) -> None:
    for _ in range(5):
        uploaded(server, title="Page")
    committed(server)
    seen, cursor = [], ""
    while True:
        page = server.ask("GET", f"/admin/images?words=page&most=2&cursor={cursor}").json
        seen += [image["hash"] for image in page["images"]]
        cursor = page["cursor"]
        if not cursor:
            break
    assert len(set(seen)) == len(seen) == page["total"] == 5


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("most=0", "most"),
        ("most=x", "most"),
        ("type=exe", "type"),
        ("cursor=x", "cursor"),
        ("order=size", "order"),
        ("oldest=maybe", "oldest"),
        ("min_width=-1", "min_width"),
    ],
)
def test_a_wrong_search_names_its_field(server: Server, query: str, field: str) -> None:
    answer = server.ask("GET", f"/admin/images?{query}")
    assert (answer.status, answer.json["field"]) == (422, field)


def test_what_looks_alike_is_found(server: Server) -> None:
    hash = live(server)
    assert server.ask("GET", f"/admin/images?like={hash}").status == 200
    assert server.ask("GET", f"/admin/images?like={'0' * 64}").status == 404


# ---- sessions


def test_sessions_are_opened_listed_compared_and_discarded(server: Server) -> None:
    hash, gone = live(server), live(server)
    session = opened(server, "compared")
    assert server.ask("POST", "/admin/sessions", {"name": "compared"}).status == 200
    described(server, hash, {"title": "Other"}, "compared")
    server.ask("DELETE", f"/admin/images/{gone}?session={session}")
    new = uploaded(server, session)
    assert server.ask("GET", f"/admin/sessions/{session}").json["changes"] == 3
    assert session in [one["id"] for one in server.ask("GET", "/admin/sessions").json["sessions"]]
    whats: dict[str, tuple[str, bool]] = {}
    after = ""
    while True:
        page = server.ask("GET", f"/admin/sessions/compared/diff?most=2&after={after}").json
        whats |= {one["hash"]: (one["what"], one["stale"]) for one in page["differences"]}
        after = page["after"]
        if not after:
            break
    assert whats == {hash: ("changed", False), gone: ("deleted", False), new: ("new", False)}
    assert server.ask("DELETE", f"/admin/sessions/{session}").status == 204
    assert server.ask("GET", f"/admin/sessions/{session}").status == 404
    assert server.ask("GET", f"/admin/images/{gone}").status == 200


def test_an_unknown_session_is_404_and_a_closed_one_409(server: Server) -> None:
    hash = live(server)
    session = opened(server)
    described(server, hash, {"title": "Closed"}, session)
    n = committed(server, session)
    for which, status in (("0123456789abcdef", 404), (session, 409)):
        assert described(server, hash, {"title": "x"}, which).status == status
        assert server.ask("DELETE", f"/admin/images/{hash}?session={which}").status == status
        assert server.ask("POST", f"/admin/images?session={which}", png(9, 9)).status == status
        assert server.ask("GET", f"/admin/sessions/{which}/diff").status == status
        assert server.ask("DELETE", f"/admin/sessions/{which}").status == status
    assert server.ask("POST", "/admin/commit?session=0123456789abcdef").status == 404
    again = server.ask("POST", f"/admin/commit?session={session}")
    assert (again.status, again.json["n"]) == (201, n)


def test_a_name_is_free_again_when_its_session_is_committed(server: Server) -> None:
    first = opened(server, "free")
    uploaded(server, "free")
    n = committed(server, "free")
    assert server.ask("POST", "/admin/commit?session=free").status == 404
    assert opened(server, "free") != first
    assert committed(server, first) == n


def test_a_conflict_names_the_records_and_changes_nothing(server: Server) -> None:
    hash = live(server)
    one, other = opened(server), opened(server)
    described(server, hash, {"title": "One"}, one)
    described(server, hash, {"title": "Other"}, other)
    committed(server, one)
    answer = server.ask("POST", f"/admin/commit?session={other}")
    assert (answer.status, answer.json["records"]) == (409, [hash])
    assert server.ask("GET", f"/admin/images/{hash}").json["title"] == "One"
    assert server.ask("GET", f"/admin/images/{hash}?session={other}").json["title"] == "Other"
    path = f"/admin/sessions/{other}/changes/{hash}"
    assert [server.ask("DELETE", path).status for _ in range(2)] == [204, 404]
    described(server, hash, {"title": "Other after all"}, other)
    committed(server, other)
    assert server.ask("GET", f"/admin/images/{hash}").json["title"] == "Other after all"
    assert server.ask("DELETE", path).status == 409


def test_a_deletion_that_is_meant_for_one_state_never_takes_another(server: Server) -> None:
    hash = live(server)
    with ThreadPoolExecutor(2) as threads:
        for round in range(40):
            meant = server.ask("GET", f"/admin/images/{hash}?session=default").headers["etag"]
            gone = threads.submit(server.ask, "DELETE", f"/admin/images/{hash}", If_Match=meant)
            said = threads.submit(described, server, hash, {"title": f"{round}"}, If_Match=meant)
            assert sorted((gone.result().status // 100, said.result().status // 100)) == [2, 4]
            if gone.result().status == 204:
                assert server.ask("DELETE", f"/admin/sessions/default/changes/{hash}").status == 204


# ---- commits


def test_a_session_that_nobody_changes_is_forgotten_and_the_default_one_is_not(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_SESSIONS_KEPT="1s", IMG_AUTOCOMMIT="0") as server:
        assert server.ask("POST", "/admin/images", png(40, 30, 9_001)).status == 201
        assert server.ask("POST", "/admin/sessions", b'{"name": "mine"}', Content_Type="application/json").status == 201
        until(lambda: [one["name"] for one in server.ask("GET", "/admin/sessions").json["sessions"]] == ["default"], "it is not forgotten")
        until(lambda: "were forgotten" in (tmp_path / "server.log").read_text(), "nobody says so")


def test_commits_are_listed_and_gone_back_on(server: Server) -> None:
    hash = live(server)
    described(server, hash, {"title": "Wrong"})
    n = server.ask("POST", "/admin/commit?message=A%20mistake").json["n"]
    (newest,) = server.ask("GET", "/admin/commits?most=1").json["commits"]
    assert (newest["n"], newest["author"], newest["message"], newest["changes"]) == (n, "admin", "A mistake", 1)
    assert server.ask("GET", f"/admin/commits/{n}").json == newest
    back = server.ask("POST", f"/admin/commits/{n}/revert")
    assert (back.status, back.json["n"]) == (201, n + 1)
    assert server.ask("GET", f"/admin/images/{hash}").json["title"] == ""
    history = server.ask("GET", f"/admin/commits?of={hash}").json["commits"]
    assert [one["n"] for one in history] == [n + 1, n, n - 1]
    for before, page in ((0, [n + 1, n]), (n, [n - 1]), (n - 1, [])):
        told = server.ask("GET", f"/admin/commits?of={hash}&most=2&before={before}").json
        assert [one["n"] for one in told["commits"]] == page
        assert told["before"] == (n if before == 0 else 0)
    page = server.ask("GET", "/admin/commits?most=2").json
    assert server.ask("GET", f"/admin/commits?most=1&before={page['before']}").json["commits"][0]["n"] == n - 1
    assert server.ask("GET", "/admin/commits/999999").status == 404
    sessions = len(server.ask("GET", "/admin/sessions").json["sessions"])
    described(server, hash, {"title": "Right"})
    assert server.ask("POST", "/admin/commit").status == 201
    for gone, status in ((n, 409), (999999, 404)):
        assert server.ask("POST", f"/admin/commits/{gone}/revert").status == status
    assert len(server.ask("GET", "/admin/sessions").json["sessions"]) <= sessions
    assert server.ask("GET", "/admin/commits?before=99999999999999999999").status == 422


def test_who_does_not_wait_is_told_of_a_task(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_JOB_WORKERS="1", IMG_PRESETS="thumb=-20x.webp") as server:
        session = opened(server)
        hash = uploaded(server, session, hints="thumb")
        task = server.ask("POST", f"/admin/commit?session={session}&wait=false&message=Later")
        assert task.status == 202
        done = ended(server, task.headers["location"])
        n = server.ask("GET", f"/admin/images/{hash}").json["version"]
        assert (done["state"], done["result"]["n"]) == ("succeeded", n)
        assert server.ask("GET", f"/admin/commits/{n}").json["message"] == "Later"
        for path in ("/admin/sync?wait=false", "/admin/verify?wait=false&pace=0"):
            assert ended(server, server.ask("POST", path).headers["location"])["state"] == "succeeded"
        (derived,) = server.ask("GET", "/admin/tasks?kind=derive").json["tasks"]
        assert ended(server, f"/admin/tasks/{derived['id']}")["state"] == "succeeded"
        assert server.get(f"/{hash}-20x.webp").tier == "disk"


def ended(server: Server, location: str) -> dict[str, Any]:
    """A task when it is finished."""
    deadline = time.monotonic() + 90
    while (found := server.ask("GET", location).json)["state"] == "created":
        assert time.monotonic() < deadline
    return dict(found)


def test_nothing_to_commit_is_said(server: Server) -> None:
    session = opened(server)
    answer = server.ask("POST", f"/admin/commit?session={session}")
    assert (answer.status, answer.json["n"]) == (200, None)


def test_every_write_leaves_a_line(server: Server) -> None:
    token = TokenFile(server.data).add("auditor", ["write", "commit"])
    hash = live(server)
    server.ask("PATCH", f"/admin/images/{hash}", {"title": "Audited"}, token=token)
    n = server.ask("POST", "/admin/commit", token=token).json["n"]
    lines = [json.loads(line) for line in (server.data / "server.log").read_text().splitlines() if line.startswith("{")]
    written = [(line["what"], line.get("hash"), line.get("commit")) for line in lines if line.get("who") == "auditor"]
    assert ("describe_image", hash, None) in written
    assert ("commit", None, n) in written
    assert token not in (server.data / "server.log").read_text()


# ---- upkeep


def test_sync_tells_what_differs_and_repairs_it(server: Server) -> None:
    hash = live(server)
    server.ask("POST", "/admin/sync?grace=0&repair=true")
    (original,) = (server.data / "store" / "base").glob(f"*/*/{hash}")
    original.unlink()
    told = server.ask("POST", "/admin/sync?grace=0").json
    assert (told["agree"], told["found"]) == (False, [{"kind": "lost", "key": hash}])
    server.ask("POST", "/admin/sync?grace=0&repair=true")
    assert server.ask("POST", "/admin/sync?grace=0").json["agree"]
    assert server.ask("GET", f"/admin/images/{hash}").status == 404


def test_originals_are_hashed_again_and_what_rotted_is_put_away(server: Server) -> None:
    hash = live(server)
    (original,) = (server.data / "store" / "base").glob(f"*/*/{hash}")
    original.write_bytes(b"rotten" + original.read_bytes()[6:])
    done = server.ask("POST", "/admin/verify?pace=0").json
    assert (done["quarantined"], done["whole"]) == ([hash], True)
    server.ask("POST", "/admin/sync?grace=0&repair=true")


def test_a_snapshot_is_written_and_a_restore_proven(server: Server) -> None:
    live(server)
    n = server.ask("GET", "/admin/status").json["commit"]
    assert server.ask("POST", "/admin/snapshot").json == {"n": n}
    proof = server.ask("POST", "/admin/proof").json
    assert (proof["n"], proof["differences"], proof["broken"]) == (n, [], [])


# ---- the clerk


def test_what_is_uploaded_is_committed_by_itself_after_a_while(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_AUTOCOMMIT="0.5") as server:
        hash = uploaded(server)
        deadline = time.monotonic() + 60
        while server.ask("GET", f"/admin/images/{hash}").status != 200:
            assert time.monotonic() < deadline
        session = opened(server)
        other = uploaded(server, session)
        third = uploaded(server)
        while server.ask("GET", f"/admin/images/{third}").status != 200:
            assert time.monotonic() < deadline
        assert server.ask("GET", f"/admin/images/{other}").status == 404
        assert server.ask("GET", "/admin/status").json["writer"] != ""
    lease = json.loads(next((tmp_path / "store" / "meta").glob("lease")).read_text())
    assert lease["holder"] == ""


def test_what_two_have_said_of_one_picture_keeps_nobody_s_upload_from_being_committed(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_AUTOCOMMIT="0.3") as server:
        session = opened(server)
        data = png(60, 40, next(_seeds))
        for query in (f"session={session}&title=One", "title=Other"):
            assert server.ask("POST", f"/admin/images?{query}", data).status == 201 or query == "title=Other"
        committed(server, session)
        hash = uploaded(server)
        until(lambda: server.ask("GET", f"/admin/images/{hash}").status == 200, "it is held up")
        aside = server.ask("GET", "/admin/sessions/set%20aside/diff").json["differences"]
        assert [one["after"]["title"] for one in aside] == ["Other"]
        assert "were set aside" in (tmp_path / "server.log").read_text()


def test_whoever_names_no_session_never_meets_one_that_closes(tmp_path: Path) -> None:
    with serving(tmp_path, IMG_AUTOCOMMIT="0.05") as server:
        hash = uploaded(server)
        statuses = [described(server, hash, {"title": f"{number}"}).status for number in range(300)]
        assert set(statuses) == {200}
        assert server.ask("DELETE", f"/admin/images/{hash}").status == 204


def test_a_commit_of_another_node_is_followed_and_what_it_deletes_forgotten(tmp_path: Path) -> None:
    store = f"fs://{tmp_path}/shared"
    with serving(tmp_path / "a", IMG_STORE=store) as one, serving(tmp_path / "b", IMG_STORE=store) as other:
        hash = live(one)
        deadline = time.monotonic() + 60
        while other.ask("GET", f"/admin/images/{hash}").status != 200:
            assert time.monotonic() < deadline
        assert other.get(f"/{hash}-20x20.jpg").status == 200
        described(other, hash, {"title": "By the other"})
        refused = other.ask("POST", "/admin/commit")
        assert refused.status == 503
        assert str(tmp_path / "a") in refused.json["detail"]
        other.ask("DELETE", "/admin/sessions/default")
        one.ask("DELETE", f"/admin/images/{hash}")
        committed(one)
        while other.get(f"/{hash}-20x20.jpg").status != 404:
            assert time.monotonic() < deadline


def test_every_process_tells_how_far_the_node_is_behind(server: Server) -> None:
    """By now a process that follows nothing would have forgotten; so this test is the last."""
    time.sleep(max(0.0, 4 * FOLLOW - (time.time() - (server.data / "admin.token").stat().st_mtime)))
    until(lambda: max(server.ask("GET", "/admin/status").json["lag"] for _ in range(20)) < 3 * FOLLOW, "some process does not know")
