"""Jobs over HTTP, against a real server with its own worker, and strangers to fetch from."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.farm import HABITS, Ears, soon
from tests.serving import COMMAND, Response, Server, serving
from tests.strange import Stranger, stranger


def settings(strange: Stranger) -> dict[str, str]:
    return {
        "IMG_JOB_WORKERS": "2",
        "IMG_FETCH_NETWORKS": "127.0.0.1/32",
        "IMG_FETCH_PORTS": str(strange.port),
        "IMG_CALLBACK_KEYS": bytes(range(32)).hex(),
        "IMG_CALLBACK_TRIES": "1",
        "IMG_TASK_TRIES": "1",
        "IMG_FETCH_SECONDS": "3",
        "IMG_PRESETS": "thumb=-8x8.png",
    }


@pytest.fixture(scope="module")
def ears() -> Ears:
    return Ears()


@pytest.fixture(scope="module")
def strange(ears: Ears) -> Iterator[Stranger]:
    with stranger({word: habit for word, (_, habit) in HABITS.items()} | {"ear": ears.listen}) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, strange: Stranger) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("tasks") / "var", **settings(strange)) as running:
        yield running


def post(server: Server, path: str, body: dict[str, Any]) -> Response:
    return server.ask("POST", path, json.dumps(body).encode(), Content_Type="application/json")


def run(server: Server, *words: str) -> list[str]:
    done = subprocess.run([COMMAND, *words], env=dict(server.env), capture_output=True, check=True, timeout=60)
    return done.stdout.decode().split()


def ended(server: Server, ordered: Response) -> dict[str, Any]:
    """The task as it is when it is done, and its callback too."""
    assert ordered.status == 202, ordered.body
    found: dict[str, Any] = {}

    def is_done() -> bool:
        found.update(server.ask("GET", ordered.headers["location"]).json)
        return found["state"] != "created" and found["delivery"]["state"] not in ("waiting", "sending")

    assert soon(is_done, 90), found
    return found


def test_a_picture_is_fetched_described_committed_and_made_ahead(server: Server, strange: Stranger, ears: Ears) -> None:
    words = {"title": "From afar", "tags": ["far"], "domain": "afar", "dkey": "1", "page_url": "http://example.org/", "user": {"n": 1}}
    callback = strange.url("/ear/well")
    ordered = post(server, "/admin/fetch", {"url": strange.url("/good/walk"), "presets": ["thumb"], "callback": callback, **words})
    task = ended(server, ordered)
    assert (task["state"], task["delivery"]["state"], ears.taken[task["id"]]) == ("succeeded", "delivered", 1)
    assert task["author"]
    hash, made = task["result"]["hash"], task["result"]["renditions"]
    assert made == [f"{hash}-8x8.png"]
    assert server.get(f"/{made[0]}").tier == "disk"
    run(server, "commit")
    record = server.ask("GET", f"/admin/images/{hash}").json
    assert (record["title"], record["tags"], record["dkey"]) == ("From afar", ["far"], "1")
    assert record["user"] == {"n": 1, "page_url": "http://example.org/"}

    wanted = f"{hash}-9x9.png"
    asked = "/admin/derive/missing?suffix=-9x9.png&preset=thumb"
    assert server.ask("GET", asked).json == {"names": [wanted], "more": False}
    assert ended(server, post(server, "/admin/derive/missing", {"suffixes": ["-9x9.png"], "presets": ["thumb"]}))["result"]["made"] == 1
    assert server.ask("GET", asked).json["names"] == []


def test_missing_is_told_page_by_page(server: Server, strange: Stranger) -> None:
    for number in range(3):
        assert ended(server, post(server, "/admin/fetch", {"url": strange.url(f"/good/page{number}")}))["state"] == "succeeded"
    run(server, "commit")
    names, after, more = [], "", True
    while more:
        page = server.ask("GET", f"/admin/derive/missing?suffix=-7x7.png&suffix=-6x6.png&most=2&after={after}").json
        names += page["names"]
        after, more = page["names"][-1] if page["names"] else "", page["more"]
    assert len(names) >= 6
    assert names == sorted(set(names))
    run(server, "derive", "--all", "--suffix=-7x7.png", "--wait=60")
    left = run(server, "derive", "--missing", "--suffix=-7x7.png", "--suffix=-6x6.png", "--dry-run")
    assert left == [name for name in names if name.endswith("-6x6.png")]


def test_missing_of_a_search_is_told_page_by_page(server: Server, strange: Stranger) -> None:
    for number in range(3):
        said = {"url": strange.url(f"/good/found{number}"), "title": "Found, red" if number else "Found"}
        assert ended(server, post(server, "/admin/fetch", said))["state"] == "succeeded"
    run(server, "commit")
    names, after, more = [], "", True
    while more:
        page = server.ask("GET", f"/admin/derive/missing?suffix=-5x5.png&words=found&oldest=true&min_width=1&most=1&after={after}").json
        names += page["names"]
        after, more = names[-1], page["more"]
    assert len(names) == 3
    assert names == sorted(names)
    assert len(server.ask("GET", "/admin/derive/missing?suffix=-5x5.png&words=found+red").json["names"]) == 2


@pytest.mark.parametrize(
    ("query", "word"), [("suffix=bad", "suffixes"), ("preset=zz", "preset"), ("taken_from=never", "taken_from"), ("x=y", "x")]
)
def test_what_cannot_be_missing_is_refused(server: Server, query: str, word: str) -> None:
    answer = server.ask("GET", f"/admin/derive/missing?suffix=-8x8.png&{query}")
    assert (answer.status, word in answer.body.decode()) == (422, True)


def test_a_task_that_failed_says_why_and_is_done_again(server: Server, strange: Stranger) -> None:
    task = ended(server, post(server, "/admin/fetch", {"url": strange.url("/gone/1")}))
    assert (task["state"], task["error"]) == ("failed", "the answer was 404")
    assert task["id"] in [one["id"] for one in server.ask("GET", "/admin/tasks?state=failed&kind=fetch").json["tasks"]]
    again = ended(server, server.ask("POST", f"/admin/tasks/{task['id']}/retry"))
    assert (again["id"], again["state"]) == (task["id"], "failed")
    assert strange.asked["/gone/1"] == 2


def test_a_dead_letter_is_listed_and_sent_again(server: Server, strange: Stranger, ears: Ears) -> None:
    task = ended(server, post(server, "/admin/fetch", {"url": strange.url("/good/letter"), "callback": strange.url("/ear/ill")}))
    assert task["delivery"]["state"] == "dead"
    assert task["id"] in [one["id"] for one in server.ask("GET", "/admin/letters").json["tasks"]]
    assert task["id"] in " ".join(run(server, "letters"))
    sent = ended(server, server.ask("POST", f"/admin/letters/{task['id']}/retry"))
    assert (sent["delivery"]["state"], ears.taken[task["id"]]) == ("delivered", 1)
    assert server.ask("POST", f"/admin/letters/{task['id']}/retry").status == 409


def test_the_same_order_is_the_same_task(server: Server, strange: Stranger) -> None:
    first, second = (post(server, "/admin/fetch", {"url": strange.url("/hung/same")}).json["id"] for _ in range(2))
    assert first == second
    assert post(server, "/admin/fetch", {"url": strange.url("/hung/same"), "title": "Other"}).json["id"] != first


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/admin/fetch", {"url": "http://127.0.0.1:1/"}, 422, "port"),
        ("/admin/fetch", {"url": "ftp://example.org/"}, 422, "http"),
        ("/admin/fetch", {"url": "GOOD", "callback": "http://me@example.org/"}, 422, "user"),
        ("/admin/fetch", {"url": "GOOD", "session": "nobody's"}, 404, "session"),
        ("/admin/fetch", {"url": "GOOD", "presets": ["nobody's"]}, 422, "preset"),
        ("/admin/fetch", {"url": "GOOD", "suffixes": ["-0x0.png"]}, 422, "suffixes"),
        ("/admin/fetch", {"url": "GOOD", "domain": "a"}, 422, "dkey"),
        ("/admin/fetch", {}, 422, "url"),
        ("/admin/fetch", {"url": "GOOD", "kind": "fetch"}, 422, "kind"),
        ("/admin/derive", {}, 422, "suffixes"),
        ("/admin/derive", {"suffixes": ["-8x8.png"], "hashes": ["0"]}, 422, "hashes"),
        ("/admin/derive", {"suffixes": ["-8x8.png"], "hashes": []}, 422, "hashes"),
        ("/admin/derive/missing", {"suffixes": ["-8x8.png"], "hashes": []}, 422, "hashes"),
        ("/admin/derive", {"names": ["x"]}, 422, "names"),
        ("/admin/derive", {"names": ["0" * 64 + ".png"]}, 422, "names"),
        ("/admin/derive", {"suffixes": ["-8x8.png"], "query": {"color": "red"}}, 422, "color"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(
    server: Server, strange: Stranger, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    said = json.loads(json.dumps(body).replace("GOOD", strange.url("/good/never")))
    answer = post(server, path, said)
    assert (answer.status, words in answer.body.decode()) == (status, True), answer.body
    assert strange.asked["/good/never"] == 0


@pytest.mark.parametrize("path", ["/admin/tasks/0000000000000000", "/admin/tasks/x", "/admin/tasks/..%2f", "/admin/letters/0/retry"])
def test_a_task_that_nobody_knows_is_not_found(server: Server, path: str) -> None:
    assert server.ask("POST" if path.endswith("retry") else "GET", path).status == 404


def test_what_takes_long_need_not_be_waited_for(server: Server, strange: Stranger) -> None:
    session = run(server, "session", "open", "later")[0]
    assert ended(server, post(server, "/admin/fetch", {"url": strange.url("/good/later"), "session": "later"}))["state"] == "succeeded"
    committed = ended(server, server.ask("POST", "/admin/commit?session=later&wait=false"))
    assert (committed["kind"], committed["order"]["session"], committed["result"]["changes"]) == ("commit", session, 1)
    again = ended(server, server.ask("POST", f"/admin/commit?session={session}&wait=false"))
    assert again["result"]["n"] == committed["result"]["n"]
    for path in ("/admin/sync?wait=false", "/admin/verify?wait=false&pace=0"):
        assert ended(server, server.ask("POST", path))["state"] == "succeeded"
    assert server.ask("POST", "/admin/commit?session=nobody&wait=false").status == 404


def test_a_snapshot_may_be_a_task(server: Server) -> None:
    snapshots = server.data / "store" / "meta" / "snapshots"
    n = server.ask("GET", "/admin/status").json["commit"]
    assert list(snapshots.glob("*")) == []
    ordered = server.ask("POST", "/admin/snapshot?wait=false")
    assert (ordered.json["kind"], ordered.json["order"]) == ("snapshot", {"kind": "snapshot"})
    task = ended(server, ordered)
    assert (task["state"], task["result"]) == ("succeeded", {"n": n})
    assert [path.name for path in snapshots.glob("*")] == [f"{n:012}"]
    assert server.ask("POST", "/admin/proof").json["differences"] == []
    assert server.ask("POST", "/admin/snapshot").json == {"n": n}
    assert server.ask("POST", "/admin/snapshot?wait=later").status == 422


def test_private_addresses_are_refused_and_logged(server: Server, strange: Stranger) -> None:
    task = ended(server, post(server, "/admin/fetch", {"url": f"http://127.0.0.2:{strange.port}/latest/meta-data/?secret=1"}))
    assert (task["state"], task["error"]) == ("failed", "this host leads to an address that is not public")
    log = (server.data / "server.log").read_text()
    assert re.search(r"an address was not asked.*127\.0\.0\.2 \(loopback\)", log)
    assert "secret=1" not in log


def worker_of(server: Server) -> Callable[[], int]:
    """The process id of the worker beside a server that has just begun."""

    def pid() -> int:
        begun = re.findall(r'"a worker begins","worker":"([0-9]+)-', (server.data / "server.log").read_text())
        return int(begun[-1]) if begun else 0

    return pid


def test_a_server_keeps_its_worker_and_ends_it(tmp_path: Path, strange: Stranger) -> None:
    with serving(tmp_path / "var", **settings(strange)) as server:
        pid = worker_of(server)
        assert soon(lambda: pid() > 0, 60)
        first = pid()
        hung = post(server, "/admin/fetch", {"url": strange.url("/hung/kept")}).json["id"]
        assert soon(lambda: bool(server.ask("GET", f"/admin/tasks/{hung}").json["running"]), 60)
        os.kill(first, signal.SIGKILL)
        assert soon(lambda: pid() != first, 60)
        second = pid()
        assert ended(server, post(server, "/admin/fetch", {"url": strange.url("/good/kept")}))["state"] == "succeeded"
    assert not Path(f"/proc/{second}").exists()


@pytest.mark.skipif(shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="nginx is not installed")
def test_a_server_with_nginx_in_front_ends_its_worker_too(tmp_path: Path, strange: Stranger) -> None:
    with serving(tmp_path / "var", **settings(strange), IMG_EDGE="nginx") as server:
        pid = worker_of(server)
        assert soon(lambda: pid() > 0, 60)
        assert ended(server, post(server, "/admin/fetch", {"url": strange.url("/good/edge")}))["state"] == "succeeded"
    assert not Path(f"/proc/{pid()}").exists()


def test_a_server_that_is_killed_takes_its_worker_along(tmp_path: Path, strange: Stranger) -> None:
    with serving(tmp_path / "var", **settings(strange)) as server:
        pid = worker_of(server)
        assert soon(lambda: pid() > 0, 60)
        server.process.kill()
        assert soon(lambda: not Path(f"/proc/{pid()}").exists(), 60)
