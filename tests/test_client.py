"""The client and a real server: uploads, sessions, records, searches, commits, upkeep; over good lines and bad ones."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgproxy.client import Client, Commit, Kept, Patience
from imgproxy.client import client as inside
from imgproxy.errors import BadRecord, BadTask, CallFailed, Changed, Conflict, Forbidden, Missing, NoSession, NotAnImage, Stranger
from imgproxy.tokens import TokenFile
from tests.cutter import Cutter, Rule
from tests.plain import png, written
from tests.serving import Server, serving

PART = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("client"), IMG_AUTOCOMMIT="0") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with calling(server) as client:
        yield client


def calling(server: Server, port: int = 0, part: int = PART) -> Client:
    return Client(f"http://127.0.0.1:{port or server.port}", server.token, part=part)


def picture(size: int = 0) -> bytes:
    """A picture like no other, as large as is asked."""
    small = png(60, 40, int.from_bytes(os.urandom(3), "big"))
    return small + os.urandom(max(16, size - len(small)))


def kill_workers(server: Server) -> None:
    """Kill -9 of every web process; the server starts others."""
    for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)


# ---- uploads


@pytest.mark.parametrize("size", [0, 3 * PART + 5])
def test_a_file_is_kept_with_its_words_in_one_request_or_in_parts(client: Client, server: Server, tmp_path: Path, size: int) -> None:
    data = picture(size)
    told: list[tuple[int, int]] = []
    path = written(tmp_path / "a.png", data)
    said: dict[str, Any] = {"title": "Sönne", "tags": ["sun", "sea"], "user": {"rating": 5, "deep": [1]}}
    kept = client.upload(path, progress=lambda sent, whole: told.append((sent, whole)), **said)
    hash = hashlib.sha256(data).hexdigest()
    assert kept == Kept(hash, f"{hash}.png", f"/{hash}.png", True)
    assert {whole for _, whole in told} == {len(data)}
    assert told == sorted(told)
    assert told[-1][0] == len(data)
    record = client.record(hash, "default")
    assert (record.title, record.tags, record.user, record.bytes) == ("Sönne", ("sun", "sea"), said["user"], len(data))
    assert server.get(kept.url).body == data
    assert client.upload(io.BytesIO(data)) == Kept(hash, f"{hash}.png", f"/{hash}.png", False)


@pytest.mark.parametrize("size", [5_000, 2 * PART])
def test_what_is_no_picture_is_refused(client: Client, size: int) -> None:
    with pytest.raises(NotAnImage):
        client.upload(io.BytesIO(b"no picture"[:10] * (size // 10)))


def test_an_upload_goes_on_where_the_line_was_cut(server: Server) -> None:
    data = picture(4_000_000)
    with Cutter(server.port) as cutter, calling(server, cutter.port, part=2**30) as client:
        client._part = PART  # one part is all that is left
        cutter.misbehave(Rule("cut", after=700_000, way="up"), times=3)
        kept = client.upload(io.BytesIO(data))
        assert cutter.struck == 3
        assert cutter.passed["up"] < 2 * len(data)
    assert server.get(kept.url).body == data


LONG: tuple[dict[str, Any], ...] = (
    {"description": "x" * 5_000},
    {
        "title": "\N{SLICE OF PIZZA}" * 1_000,
        "description": "\N{SLICE OF PIZZA}" * 20_000,
        "tags": ["\N{SLICE OF PIZZA}" * 90 + str(n) for n in range(200)],
    },
    {
        "title": "t",
        "user": {"a": None, "b": {"c": None, "d": 1, "e": {}}, "f": {"g": "\N{SNOWMAN}" * 21_000}, "h": []},
        "tags": [" a ", "", "b"],
    },
    {"description": "x" * 20_000, "user": {}, "taken_at": "2024-05-17", "domain": "long", "dkey": "1"},
    {"tags": ["Paris, France", "sea"], "title": "Short", "user": {"a": None}},
    {"title": "", "tags": "a, b", "description": None, "user": '{"a": 1}'},
)


@pytest.mark.parametrize("part", [50, PART])
@pytest.mark.parametrize("said", LONG, ids=range(len(LONG)))
def test_whatever_a_record_may_hold_is_said_with_an_upload(server: Server, said: dict[str, Any], part: int) -> None:
    before: dict[str, Any] = {"title": "Before", "tags": ["old"], "user": {"a": 0, "b": {"c": 3, "z": 1}, "old": True}}
    expected: dict[str, Any] = {name: value for name, value in said.items() if value or name == "user"}
    if "tags" in said:
        tags = said["tags"].split(",") if isinstance(said["tags"], str) else said["tags"]
        expected["tags"] = tuple(tag.strip() for tag in tags if tag)
    if isinstance(said.get("user"), str):
        expected["user"] = json.loads(said["user"])
    if "taken_at" in said:
        expected["taken_at"] += "T00:00:00"
    with calling(server, part=part) as client:
        new, known = picture(), picture()
        client.upload(io.BytesIO(known), session=client.open_session("known")[0].id, **before)
        client.commit("known")
        for data, kept in ((new, {}), (known, {**before, "tags": ("old",)})):
            session, _ = client.open_session()
            hash = client.upload(io.BytesIO(data), session=session.id, **said).hash
            record = client.record(hash, session.id)
            for name, value in {**kept, **expected}.items():
                assert getattr(record, name) == value
            client.discard(session.id)


@pytest.mark.parametrize("part", [50, PART])
def test_what_no_record_may_hold_is_refused_before_anything_is_kept(server: Server, part: int) -> None:
    data = picture()
    with calling(server, part=part) as client:
        for said, field in (
            ({"description": "x" * 20_001}, "description"),
            ({"tags": ["a," * 60]}, "tags"),
            ({"user": {"a": "b" * 65_536}}, "user"),
        ):
            with pytest.raises(BadRecord) as told:
                client.upload(io.BytesIO(data), **said)
            assert told.value.field == field
    assert server.get(f"/{hashlib.sha256(data).hexdigest()}.png").status == 404


def test_who_may_only_upload_is_told_what_could_not_be_said(server: Server) -> None:
    token = TokenFile(server.data).add("briefly", ["upload"])
    with Client(f"http://127.0.0.1:{server.port}", token) as client:
        kept = client.upload(io.BytesIO(picture()), title="Short", tags=["a", "b"])
        assert kept.said
        with pytest.raises(Forbidden):
            client.upload(io.BytesIO(picture()), tags=["Paris, France"])


def test_an_upload_that_was_answered_takes_no_room_on_the_server(tmp_path: Path) -> None:
    with (
        serving(tmp_path, IMG_UPLOADS="1") as server,
        Client(f"http://127.0.0.1:{server.port}", server.token, patience=Patience(tries=1), part=50) as client,
    ):
        assert all(client.upload(io.BytesIO(picture())).new for _ in range(3))


def test_an_upload_in_one_request_begins_anew_when_the_line_was_cut(server: Server) -> None:
    data = picture(400_000)
    with Cutter(server.port) as cutter, calling(server, cutter.port) as client:
        cutter.misbehave(Rule("cut", after=100_000, way="up"), times=2)
        assert client.upload(io.BytesIO(data)).hash == hashlib.sha256(data).hexdigest()
        assert cutter.struck == 2


def test_an_upload_survives_the_death_of_every_worker(tmp_path: Path) -> None:
    data = picture(20 * PART)
    with serving(tmp_path) as server, calling(server) as client:
        killed = threading.Event()

        def kill(sent: int, _whole: int) -> None:
            if sent > 9 * PART and not killed.is_set():
                killed.set()
                kill_workers(server)

        kept = client.upload(io.BytesIO(data), progress=kill)
        assert killed.is_set()
        assert server.get(kept.url).body == data


def test_a_line_that_stays_dead_is_told_in_the_end(server: Server) -> None:
    with (
        Cutter(server.port) as cutter,
        Client(f"http://127.0.0.1:{cutter.port}", server.token, patience=Patience(tries=3), part=PART) as client,
    ):
        cutter.misbehave(Rule("cut", after=100_000, way="up"))
        with pytest.raises(CallFailed):
            client.upload(io.BytesIO(picture(PART - 5)))


# ---- sessions


def test_a_session_is_committed_when_its_block_ends_well(client: Client) -> None:
    with client.session("good", message="Good things", author="me") as session:
        hash = session.upload(io.BytesIO(picture()), title="Before").hash
        session.edit(hash, {"title": "After", "user": {"a": 1}})
        session.edit(hash, {"user": {"b": 2}})
        with pytest.raises(Missing):
            client.record(hash)
        assert session.record(hash).title == "After"
        assert [(one.hash, one.before, one.stale) for one in session.diff()] == [(hash, None, False)]
        assert [record.hash for record in session.search(words="after")] == [hash]
    assert session.committed is not None
    record = client.record(hash)
    assert (record.title, record.user, record.version) == ("After", {"a": 1, "b": 2}, session.committed.n)
    newest = next(client.commits(1))
    assert newest == session.committed
    assert (newest.author, newest.message, newest.changes) == ("me", "Good things", 1)
    assert [one.n for one in client.commits(of=hash)] == [newest.n]
    assert client.status().commit == newest.n


def test_a_session_is_forgotten_when_its_block_fails(client: Client) -> None:
    hashes: list[str] = []

    def fail() -> None:
        with client.session("bad") as session:
            hashes.append(session.upload(io.BytesIO(picture())).hash)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (hash,) = hashes
    with pytest.raises(Missing):
        client.record(hash)
    assert "bad" not in {one.name for one in client.sessions()}
    with pytest.raises(NoSession):
        client.record(hash, "bad")


def test_a_session_of_others_is_not_forgotten(client: Client) -> None:
    theirs, new = client.open_session("theirs", "them")
    assert new
    client.upload(io.BytesIO(picture()), session="theirs")
    with pytest.raises(ZeroDivisionError), client.session("theirs"):
        raise ZeroDivisionError
    found = client.find_session("theirs")
    assert (found.id, found.author, found.changes) == (theirs.id, "them", 1)
    client.discard("theirs")


@pytest.mark.parametrize("name", ["trip#2", "what?", "2026/05", "50%25 off", " a b", "é", ".", "..", "a.b~c-d_e"])
def test_a_session_is_found_by_any_name(client: Client, name: str) -> None:
    """And never another one, though a URL that says only half of the name may lead to it."""
    others = [client.open_session(part)[0] for part in ("trip", "what", "2026", "50")]
    meant, new = client.open_session(name)
    assert new
    hash = client.upload(io.BytesIO(picture()), session=name).hash
    assert client.find_session(name).id == client.find_session(meant.id).id == meant.id
    assert [one.hash for one in client.diff(name)] == [hash]
    made = client.commit(name)
    assert made is not None
    assert made.session == meant.id
    assert client.commit(meant.id) == made
    again, _ = client.open_session(name)
    client.discard(name)
    left = {one.id for one in client.sessions()}
    assert left >= {one.id for one in others}
    assert again.id not in left
    for ask in (client.find_session, client.discard, client.commit, lambda which: list(client.diff(which))):
        with pytest.raises(NoSession):
            ask(name)


def test_a_conflict_names_the_records_and_leaves_the_session_open(client: Client) -> None:
    with client.session() as first:
        hash = first.upload(io.BytesIO(picture())).hash
    slow = client.session("slow")
    slow.edit(hash, {"title": "Slow"})
    with client.session() as quick:
        quick.edit(hash, {"title": "Quick"})
    with pytest.raises(Conflict) as told, slow:
        pass
    assert told.value.records == [hash]
    assert client.record(hash).title == "Quick"
    assert client.find_session("slow").changes == 1
    slow.take_back(hash)
    with pytest.raises(Missing):
        slow.take_back(hash)
    assert client.find_session("slow").changes == 0
    assert slow.record(hash).title == "Quick"
    client.discard("slow")


def test_a_commit_whose_answer_was_lost_is_the_same_commit(server: Server) -> None:
    with Cutter(server.port) as cutter, calling(server, cutter.port) as client:
        session, _ = client.open_session()
        client.upload(io.BytesIO(picture()), session=session.id)
        cutter.misbehave(Rule("cut", after=0, way="down"), times=1)
        made = client._committed("/admin/commit", {"session": session.id}, again=True)
        assert cutter.struck == 1
        assert made is not None
        assert next(client.commits(1)) == made
        assert client._committed("/admin/commit", {"session": session.id}, again=True) == made


def test_a_commit_survives_the_death_of_every_worker(tmp_path: Path) -> None:
    """Killed at one moment after another: who asks again hears of the one commit that its session became."""
    with serving(tmp_path, IMG_AUTOCOMMIT="0") as server, calling(server) as client:
        for number, delay in enumerate((0.0, 0.005, 0.01, 0.02, 0.04), 1):
            session = client.session()
            hash = session.upload(io.BytesIO(picture()), title=f"Number {number}").hash
            killer = threading.Timer(delay, kill_workers, [server])
            killer.start()
            made = session.commit()
            killer.join()
            assert made is not None
            assert made.n == number
            assert session.commit() == made
            assert client.record(hash).version == number
        assert [one.n for one in client.commits()] == [5, 4, 3, 2, 1]
        assert client.sync(grace=0).agree


# ---- records


def test_an_edit_counts_only_for_the_state_that_was_meant(client: Client) -> None:
    with client.session() as session:
        hash = session.upload(io.BytesIO(picture()), title="One", description="Stays").hash
    record, tag = client.tagged(hash)
    assert client.edit(hash, {"title": "Two"}, match=tag).title == "Two"
    for match in (tag, record.version + 1):
        with pytest.raises(Changed):
            client.edit(hash, {"title": "Three"}, match=match)
        with pytest.raises(Changed):
            client.remove(hash, match=match)
    edited = client.edit(hash, {"title": None})
    assert (edited.title, edited.description) == ("", "Stays")
    with pytest.raises(BadRecord) as told:
        client.edit(hash, {"taken_at": "yesterday"})
    assert told.value.field == "taken_at"
    client.remove(hash)
    client.commit(message="Gone")
    with pytest.raises(Missing):
        client.record(hash)


def test_a_search_goes_through_all_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for count in (1, 2, 2):
        with client.session() as session:
            hashes |= {session.upload(io.BytesIO(picture()), tags=["many"]).hash for _ in range(count)}
    monkeypatch.setattr(inside, "_PAGE", 2)
    found = [record.hash for record in client.search(tags=["many"])]
    assert len(found) == 5
    assert set(found) == hashes
    assert len(list(client.search(tags=["many"], most=3))) == 3
    assert len(list(client.commits(most=3))) == 3
    with pytest.raises(BadRecord):
        next(client.search(taken_from="not a day"))


def test_what_is_missing_of_a_search_goes_through_all_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with client.session() as session:
        hashes = sorted(session.upload(io.BytesIO(picture()), tags=["bare", "as can be"]).hash for _ in range(5))
    monkeypatch.setattr(inside, "_PAGE", 2)
    for query in ({"words": "bare", "oldest": True}, {"tags": ["as can be"], "min_width": 1}):
        found = client.missing(suffixes=["-5x5.png", "-6x6.png"], query=query)
        assert list(found) == [f"{hash}{suffix}" for hash in hashes for suffix in ("-5x5.png", "-6x6.png")]


def test_a_history_goes_through_all_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Commit | None] = []
    for number in range(5):
        with client.session() as session:
            if number == 0:
                hash = session.upload(io.BytesIO(picture())).hash
            session.edit(hash, {"title": f"Title {number}"})
        with client.session() as other:
            other.upload(io.BytesIO(picture()))
        made.insert(0, session.committed)
    monkeypatch.setattr(inside, "_PAGE", 2)
    assert list(client.commits(of=hash)) == made
    assert list(client.commits(3, of=hash)) == made[:3]


def test_a_commit_is_gone_back_on(client: Client) -> None:
    with client.session() as session:
        hash = session.upload(io.BytesIO(picture())).hash
    assert session.committed is not None
    made = client.revert(session.committed.n)
    assert made is not None
    assert made.n == session.committed.n + 1
    with pytest.raises(Missing):
        client.record(hash)
    with pytest.raises(Missing):
        client.revert(10**6)


@pytest.mark.parametrize("text", ["", ".", "..", "../status", "#", "?x", "\udcff", "/", "%2e%2e", "0" * 64 + "#"])
def test_what_is_no_hash_and_no_id_is_missing_and_nothing_else_is_asked(client: Client, text: str) -> None:
    hash = client.upload(io.BytesIO(picture())).hash
    for whole in (text, f"{hash}/..", f"{hash}?session=default#"):
        for ask in (
            client.record,
            client.remove,
            client.task,
            client.retry,
            client.redeliver,
            lambda name: client.edit(name, {"title": "x"}),
        ):
            with pytest.raises(Missing):
                ask(whole)
    assert client.record(hash, "default").title == ""


# ---- upkeep


def test_the_repository_is_looked_after(client: Client, server: Server) -> None:
    with client.session() as session:
        good, bad = (session.upload(io.BytesIO(picture())).hash for _ in range(2))
    assert client.sync().agree
    verified = client.verify(pace=0)
    assert (verified.whole, verified.quarantined) == (True, ())
    path = server.data / "store" / "base" / bad[:2] / bad[2:4] / bad
    path.write_bytes(path.read_bytes()[:-1])
    assert client.verify(pace=0).quarantined == (bad,)
    found: list[tuple[str, str]] = []
    synced = client.sync(grace=0, told=lambda one: found.append((one.kind, one.key)))
    assert not synced.agree
    assert ("lost", bad) in found
    assert ("lost", good) not in found
    client.sync(grace=0, repair=True)
    assert client.sync(grace=0).agree
    assert client.snapshot() == client.status().commit
    ordered = [client.sync_later(grace=0), client.verify_later(pace=0), client.snapshot_later()]
    assert [(task.kind, task.state) for task in ordered] == [(kind, "created") for kind in ("sync", "verify", "snapshot")]
    assert [client.task(task.id).id for task in ordered] == [task.id for task in ordered]
    assert not client.wait(ordered[0].id, 0.1).finished
    assert {task.id for task in client.tasks(state="created")} >= {task.id for task in ordered}


# ---- who may


def test_who_may_not_is_told_so(server: Server) -> None:
    with Client(f"http://127.0.0.1:{server.port}", "img_" + "x" * 40) as nobody, pytest.raises(Stranger):
        nobody.status()
    token = TokenFile(server.data).add("reader", ["upload"])
    with Client(f"http://127.0.0.1:{server.port}", token) as uploader:
        uploader.upload(io.BytesIO(picture()))
        with pytest.raises(Forbidden):
            uploader.commit()


def test_a_picture_is_had_by_its_name(client: Client) -> None:
    data = picture()
    kept = client.upload(io.BytesIO(data))
    with client.picture(kept.name) as pieces:
        assert b"".join(pieces) == data
    with pytest.raises(Missing), client.picture("0" * 64 + ".png"):
        pass


def test_renditions_of_no_images_are_not_renditions_of_all(client: Client) -> None:
    with pytest.raises(BadRecord) as told:
        client.derive(suffixes=["-8x8.png"], hashes=[])
    assert told.value.field == "hashes"
    assert client.task(client.derive(suffixes=["-8x8.png"]).id).order["hashes"] == []


def test_an_order_that_is_too_long_says_what_to_do_and_in_parts_it_is_taken(client: Client) -> None:
    many = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(5_000)]
    for too_many in (many, many * 20):
        with pytest.raises(BadTask, match="in parts"):
            client.derive(suffixes=["-8x8.png"], hashes=too_many)
    for part in (many[:2_500], many[2_500:]):
        assert client.derive(suffixes=["-8x8.png"], hashes=part).order["hashes"] == sorted(part)
