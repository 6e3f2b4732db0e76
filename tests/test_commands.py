"""The words by the command line: what a newcomer types, one story after the other, each command a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from imgproxy.stores.fs import FsStore
from imgproxy.tokens import TokenFile
from tests.plain import png, written
from tests.serving import COMMAND, Server, environment, serving
from tests.strange import stranger


class Typist:
    """Types commands: over a directory of its own, or to the server that `elsewhere` leads to."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.env = environment(home / "var", **settings)

    def elsewhere(self, server: Server) -> Typist:
        """The same, but everything goes over HTTP, and nothing of this machine is known."""
        there = Typist(self.home)
        there.env = environment(self.home / "nowhere", IMG_SERVER=f"http://127.0.0.1:{server.port}", IMG_TOKEN=server.token)
        return there

    def run(self, *words: str, fails: bool = False) -> str:
        done = subprocess.run([COMMAND, *words], env=self.env, cwd=self.home, capture_output=True, text=True, timeout=100, check=False)
        assert (done.returncode != 0) == fails, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr if fails else done.stdout

    def lines(self, *words: str) -> list[list[str]]:
        return [line.split("\t") for line in self.run(*words).splitlines()]

    def put(self, seed: int, *more: str) -> str:
        path = written(self.home / f"{seed}.png", png(60, 40, seed))
        return self.run("put", str(path), *more).strip().removesuffix(".png")


@pytest.fixture
def local(tmp_path: Path) -> Typist:
    """Somebody who types on the machine that has the repository."""
    return Typist(tmp_path)


@pytest.fixture(params=["here", "there"])
def where(request: pytest.FixtureRequest) -> str:
    """On the machine that has the repository, or elsewhere."""
    return str(request.param)


@contextmanager
def typing(where: str, local: Typist) -> Iterator[Typist]:
    """Somebody there: what is typed and what is printed is the same everywhere."""
    if where == "here":
        yield local
        return
    with serving(local.home / "var", **{**local.env, "IMG_WORKERS": "1"}) as server:
        yield local.elsewhere(server)
    assert not (local.home / "nowhere").exists()


@pytest.fixture
def typist(where: str, local: Typist) -> Iterator[Typist]:
    """Somebody, here or there."""
    with typing(where, local) as typist:
        yield typist


def test_what_is_said_is_found_after_the_commit_and_not_before(typist: Typist) -> None:
    hash = typist.put(1)
    typist.run("set", hash, "title=A red square", "tags=red,square", "user.rating=5", "taken_at=2024-05-17")
    assert typist.run("search", "red") == ""
    assert typist.run("search", "red", "--session", "default").split() == [hash]
    assert typist.run("commit", "-m", "First words", "--author", "me") == "1\n"
    assert typist.run("search", "red").split() == [hash]
    assert typist.run("search", "squ*", "--tag", "red", "--from", "2024-05-01", "--to", "2024-05-31").split() == [hash]
    assert typist.run("search", "--from", "2024-06-01") == ""
    record = json.loads(typist.run("search", "red", "--json"))
    assert (record["title"], record["tags"], record["user"], record["width"], record["version"]) == (
        "A red square",
        ["red", "square"],
        {"rating": 5},
        60,
        1,
    )
    ((number, _, author, changes, message),) = typist.lines("log")
    assert (number, author, changes, message) == ("1", "me", "1", "First words")


def test_a_session_is_opened_compared_committed_or_discarded(typist: Typist) -> None:
    hash = typist.put(1)
    typist.run("commit")
    one, other = typist.run("session", "open", "one").strip(), typist.run("session", "open", "other").strip()
    assert typist.run("session", "open", "one").strip() == one
    typist.run("set", hash, "title=One", "--session", "one")
    typist.run("set", hash, "title=Other", "--session", other)
    assert [row[:2] for row in typist.lines("session", "list")] == [[one, "one"], [other, "other"]]
    ((word, told, changes),) = typist.lines("session", "diff", "one")
    assert (word, told, json.loads(changes)) == ("changed", hash, {"title": "One"})
    assert typist.run("session", "commit", "one", "-m", "of one") == "2\n"
    assert hash in typist.run("session", "commit", "other", fails=True)
    typist.run("session", "take-back", hash, "--session", "other")
    assert typist.run("session", "diff", "other") == ""
    assert "does not change" in typist.run("session", "take-back", hash, "--session", "other", fails=True)
    typist.run("session", "discard", "other")
    assert typist.run("session", "list") == ""
    assert json.loads(typist.run("search", "--json"))["title"] == "One"
    assert "other" in typist.run("set", hash, "title=x", "--session", "other", fails=True)


def test_a_commit_can_be_gone_back_on(typist: Typist) -> None:
    hash = typist.put(1)
    typist.run("commit")
    typist.run("set", hash, "title=Wrong")
    typist.run("commit")
    assert typist.run("revert", "2", "--author", "me") == "3\n"
    assert json.loads(typist.run("search", "--json"))["title"] == ""
    assert [row[0] for row in typist.lines("log", "--of", hash)] == ["3", "2", "1"]


def test_a_removed_image_is_gone_with_its_commit(typist: Typist) -> None:
    hash = typist.put(1)
    typist.run("commit")
    typist.run("get", f"{hash}-10x10.png", "-o", "small.png")
    typist.run("remove", hash)
    typist.run("get", f"{hash}.png", "-o", "whole.png")
    typist.run("commit")
    assert "no original" in typist.run("get", f"{hash}.png", "-o", "gone.png", fails=True)
    assert "no original" in typist.run("get", f"{hash}-10x10.png", "-o", "gone.png", fails=True)
    assert typist.run("search") == ""


def test_the_loss_of_the_local_disk_loses_nothing_that_was_answered(local: Typist) -> None:
    hashes = [local.put(seed) for seed in range(3)]
    local.run("commit")
    local.run("set", hashes[0], "title=Kept")
    local.run("commit")
    assert local.run("snapshot") == "2\n"
    local.run("set", hashes[1], "title=Kept too")
    local.run("commit")
    shutil.rmtree(local.home / "var" / "words")
    assert local.run("restore").strip() == "restored to commit 3"
    assert sorted(local.run("search", "kept").split()) == sorted(hashes[:2])
    assert local.run("restore", "--check").startswith("equal\t3 records at commit 3")


def test_a_damaged_snapshot_is_fallen_back_over_and_told(local: Typist) -> None:
    hash = local.put(1)
    local.run("commit")
    local.run("snapshot")
    snapshot = next((local.home / "var" / "store" / "meta" / "snapshots").iterdir())
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)
    assert local.lines("restore", "--check") == [["broken", "snapshot 1"], ["equal", "1 records at commit 1"]]
    shutil.rmtree(local.home / "var" / "words")
    assert local.run("search").split() == [hash]


def test_a_damaged_database_is_moved_aside_and_restored_and_told(local: Typist) -> None:
    hash = local.put(1)
    local.run("commit")
    database = local.home / "var" / "words" / "words.db"
    for beside in database.parent.glob("words.db-*"):
        beside.unlink()
    database.write_bytes(b"no database at all" * 1000)
    done = subprocess.run([COMMAND, "search"], env=local.env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [hash]
    assert "damaged" in done.stderr


def test_sync_finds_what_is_lost_and_what_is_stray_and_mends_it(typist: Typist) -> None:
    kept, lost, stray = (typist.put(seed) for seed in (1, 2, 3))
    typist.run("session", "discard")
    for seed in (1, 2):
        typist.put(seed)
    typist.run("commit")
    base = FsStore(typist.home / "var" / "store" / "base")
    base.delete(lost)
    done = subprocess.run([COMMAND, "sync", "--grace", "0"], env=typist.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert sorted(line.split("\t") for line in done.stdout.splitlines()) == sorted([["lost", lost], ["stray", stray]])
    typist.run("sync", "--grace", "0", "--repair")
    assert typist.run("sync", "--grace", "0") == ""
    assert sorted(typist.run("search").split()) == sorted([kept, stray])


def test_verify_puts_away_what_has_rotted(typist: Typist) -> None:
    good, rotten = typist.put(1), typist.put(2)
    typist.run("commit")
    path = typist.home / "var" / "store" / "base" / rotten[:2] / rotten[2:4] / rotten
    path.write_bytes(path.read_bytes()[:-1])
    done = subprocess.run([COMMAND, "verify", "--pace", "0"], env=typist.env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, f"quarantined\t{rotten}\n")
    assert typist.run("verify", "--pace", "0") == ""
    typist.run("get", f"{good}.png", "-o", "good.png")


def test_a_folder_is_imported_in_one_commit_and_once(typist: Typist) -> None:
    folder = typist.home / "album"
    (folder / "below").mkdir(parents=True)
    for seed, name in ((1, "a.png"), (2, "below/b.PNG"), (1, "again.png")):
        written(folder / name, png(60, 40, seed))
    written(folder / "notes.txt", b"no picture")
    words = [row[0] for row in typist.lines("import", str(folder), "-m", "Album")]
    assert sorted(words) == ["duplicate", "new", "new"]
    assert [(row[0], row[3], row[4]) for row in typist.lines("log")] == [("1", "2", "Album")]
    assert {row[0] for row in typist.lines("import", str(folder))} == {"duplicate"}
    assert len(typist.lines("log")) == 1
    written(folder / "broken.png", png(60, 40, 9)[:100])
    assert "1 refused" in typist.run("import", str(folder), fails=True)


def test_what_no_picture_is_to_blame_for_ends_an_import_without_a_commit(local: Typist) -> None:
    (local.home / "album").mkdir()
    for seed in range(3):
        written(local.home / "album" / f"{seed}.png", png(30, 20, seed))
    with serving(local.home / "var", **local.env) as server:
        there = local.elsewhere(server)
        there.run("session", "open", "import")
        there.put(9, "--session", "import")
        there.env["IMG_TOKEN"] = TokenFile(server.data).add("no-uploads", ["write", "commit"])
        done = subprocess.run(
            [COMMAND, "import", str(local.home / "album")], env=there.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "not for that" in done.stderr
        assert "refused" not in done.stderr
        assert there.run("log") == ""
        there.env["IMG_TOKEN"] = server.token
        assert {row[0] for row in there.lines("import", str(local.home / "album"))} == {"new"}
        assert [row[3] for row in there.lines("log")] == ["4"]


def test_pictures_are_told_in_order_though_many_are_kept_at_once(local: Typist) -> None:
    names = [f"{number:02}.png" for number in range(30)]
    (local.home / "album").mkdir()
    for seed, name in enumerate(names):
        written(local.home / "album" / name, png(30, 20, seed % 25))
    told = local.lines("import", str(local.home / "album"))
    assert [Path(row[2]).name for row in told] == names
    assert [row[0] for row in told].count("new") == 25
    assert len(local.lines("search")) == 25


def test_what_one_repository_says_of_pictures_another_takes_in(local: Typist) -> None:
    for seed in (1, 2, 3):
        local.put(seed)
    hash = local.put(4)
    local.run("set", hash, "title=By the sea", "tags=sea,sun", "user.stars=5", "domain=shop", "dkey=4")
    local.run("commit")
    records = local.run("search", "--json")
    other = Typist(local.home, IMG_STORE=f"fs://{local.home}/other")
    other.env["IMG_DATA"] = str(local.home / "other-data")
    base = local.home / "other" / "base"
    shutil.copytree(local.home / "var" / "store" / "base", base)
    written(local.home / "records.jsonl", records.encode() + b'{"hash": "no"}\n' + records.splitlines()[0].encode() + b"\n[]\n")
    refused = other.run("import", str(local.home / "records.jsonl"), fails=True)
    assert "4 new, 1 duplicate, 2 refused; commit 1" in refused
    taken, said = ({one["hash"]: one for one in map(json.loads, lines.splitlines())} for lines in (other.run("search", "--json"), records))
    assert taken == said
    assert taken[hash]["title"] == "By the sea"
    again = written(local.home / "again.jsonl", records.encode())
    assert other.lines("import", str(again)) == []
    assert len(other.lines("log")) == 1


def test_records_of_originals_that_are_not_there_are_not_taken_in(local: Typist) -> None:
    record = {"hash": "0" * 64, "type": "png", "width": 1, "height": 1, "bytes": 1}
    path = written(local.home / "records.jsonl", json.dumps(record).encode())
    assert "0" * 64 in local.run("import", str(path), fails=True)
    assert local.lines("log") == []


def test_records_are_not_sent_to_a_server(local: Typist) -> None:
    path = written(local.home / "records.jsonl", b"{}")
    local.env["IMG_SERVER"] = "http://127.0.0.1:1"
    assert "not over HTTP" in local.run("import", str(path), fails=True)


@pytest.mark.parametrize("words", [("put", "1.png", "2.png"), ("import", "."), ("sync",), ("verify",)], ids=lambda words: words[0])
def test_a_bar_is_for_who_looks_and_stays_out_of_what_is_printed(local: Typist, words: tuple[str, ...]) -> None:
    for seed in (1, 2):
        written(local.home / f"{seed}.png", png(60, 40, seed))
    typed = local.run(*words)
    ours, theirs = pty.openpty()
    env = {**local.env, "TERM": "xterm"}
    done = subprocess.run(
        [COMMAND, *words], env=env, cwd=local.home, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=100, check=True
    )
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # the end, for the one who holds the other end of a terminal
        while data := os.read(ours, 2**16):
            seen += data
    os.close(ours)
    assert b"%" in seen
    assert len(done.stdout.splitlines()) == len(typed.splitlines())
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("width=5", "width"),
        ("nonsense=5", "nonsense"),
        ("taken_at=yesterday", "taken_at"),
        ("title=" + "x" * 2000, "title"),
        ("domain=shop", "dkey"),
    ],
)
def test_what_is_wrong_with_a_word_names_the_field_and_changes_nothing(typist: Typist, pair: str, said: str) -> None:
    hash = typist.put(1)
    typist.run("commit")
    assert said in typist.run("set", hash, pair, fails=True)
    assert typist.run("session", "diff") == ""


def test_pictures_are_served_without_any_words(tmp_path: Path) -> None:
    with serving(tmp_path / "var") as server:
        (name,) = server.put(written(tmp_path / "a.png", png(60, 40)))
        hash = name.removesuffix(".png")
        assert server.get(f"/{hash}-20x.png").status == 200
        shutil.rmtree(tmp_path / "var" / "words")
        assert server.get(f"/{hash}-20x.png").status == 200
        assert server.get(f"/{hash}-21x.png").status == 200
        assert server.get("/readyz").status == 200


def test_commands_at_once_take_turns(typist: Typist) -> None:
    hashes = [typist.put(seed) for seed in range(4)]
    typist.run("commit")

    def say(number: int) -> None:
        typist.run("session", "open", f"s{number}")
        typist.run("set", hashes[number], f"title=Number {number}", "--session", f"s{number}")
        typist.run("session", "commit", f"s{number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(say, range(4)))
    assert [row[0] for row in typist.lines("log")] == ["5", "4", "3", "2", "1"]
    assert len(typist.run("search", "number").split()) == 4


@pytest.fixture
def shared(tmp_path: Path) -> tuple[Typist, Typist]:
    """Two nodes with disks of their own, over one store."""
    store = f"fs://{tmp_path}/store"
    nodes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        nodes.append(Typist(tmp_path / name, IMG_STORE=store))
    return nodes[0], nodes[1]


def test_another_node_writes_on_where_the_first_left_off(shared: tuple[Typist, Typist]) -> None:
    one, two = shared
    hash = one.put(1)
    one.run("set", hash, "title=By one")
    assert one.run("commit") == "1\n"
    assert two.run("search", "one").split() == [hash]
    two.run("set", hash, "title=By two")
    assert two.run("commit") == "2\n"
    one.run("set", hash, "description=and one again")
    assert one.run("commit") == "3\n"
    assert json.loads(two.run("search", "--json"))["description"] == "and one again"


def test_an_export_lays_out_what_is_committed_and_goes_on_where_it_was(local: Typist) -> None:
    first, second = local.put(1), local.put(2)
    local.run("set", first, "title=Red & green", "taken_at=2024-05-17", "tags=fine")
    local.run("commit")
    hidden = local.put(3)
    paths = [f"2000/01/01/{second[:12]}.png", f"2024/05/17/red-green-{first[:12]}.png"]
    assert local.run("export", "tree", "--tag", "fine").split() == paths[1:]
    assert local.run("export", "tree").split() == paths[:1]
    assert local.run("export", "tree").split() == []
    assert [(local.home / "tree" / path).read_bytes() for path in paths] == [png(60, 40, 2), png(60, 40, 1)]
    assert (local.home / "tree" / paths[0]).stat().st_nlink == 2
    assert not [path for path in (local.home / "tree").rglob("*") if hidden[:12] in path.name]
    assert local.run("export", "copies", "--copy", "green").split() == paths[1:]
    assert (local.home / "copies" / paths[1]).stat().st_nlink == 1


def test_an_export_tells_what_the_store_has_lost_and_goes_on(local: Typist) -> None:
    lost, there = local.put(1), local.put(2)
    local.run("commit")
    FsStore(local.home / "var" / "store" / "base").delete(lost)
    told = local.run("export", "tree", fails=True)
    assert lost in told
    assert (local.home / "tree" / f"2000/01/01/{there[:12]}.png").exists()
    local.run("export", "tree", "--from", "not a day", fails=True)


@contextmanager
def at_work(local: Typist) -> Iterator[None]:
    """A worker, on the machine that has the repository."""
    worker = subprocess.Popen([COMMAND, "work", "--workers", "2"], env=local.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        worker.terminate()
        assert worker.wait(60) == 0


def test_renditions_are_ordered_made_and_asked_after(typist: Typist, local: Typist) -> None:
    hashes = sorted(typist.put(seed) for seed in range(3))
    typist.run("set", hashes[0], "tags=first")
    typist.run("commit")
    names = [f"{hash}-20x.png" for hash in hashes]
    missing = ("derive", "--missing", "--dry-run", "--suffix", "-20x.png")
    assert typist.run(*missing).split() == names
    assert typist.run(*missing, "--tag", "first").split() == names[:1]
    assert typist.run(*missing, "--words", "first").split() == names[:1]
    assert "suffixes" in typist.run(*missing, "--suffix", "bad", fails=True)
    with at_work(local):
        typist.run("derive", "--tag", "first", "--suffix", "-20x.png", "--wait", "60")
        assert typist.run(*missing).split() == names[1:]
        id = typist.run("derive", "--missing", "--suffix", "-20x.png", "--wait", "60").strip()
    assert typist.run(*missing) == ""
    assert [row[1:4] for row in typist.lines("tasks")] == [["derive", "succeeded", "1"]] * 2
    task = json.loads(typist.run("tasks", id))
    assert (task["id"], task["state"], task["result"]["made"]) == (id, "succeeded", 2)
    assert typist.run("tasks", "--state", "failed") == typist.run("letters") == ""
    assert "not failed" in typist.run("tasks", id, "--retry", fails=True)
    assert "no such task" in typist.run("tasks", "0" * 16, fails=True)


def test_a_picture_is_fetched_and_what_is_none_is_told(tmp_path: Path, where: str) -> None:
    data = png(60, 40, 5)
    with stranger({"good": lambda asked: asked.answer(200, data), "bad": lambda asked: asked.answer(404)}) as server:
        local = Typist(tmp_path, IMG_FETCH_NETWORKS="127.0.0.0/8", IMG_FETCH_PORTS=str(server.port))
        with typing(where, local) as typist, at_work(local):
            typist.run("fetch", server.url("/good"), "--title", "From afar", "--tag", "far", "--wait", "60")
            typist.run("commit")
            record = json.loads(typist.run("search", "afar", "--json"))
            assert (record["hash"], record["tags"]) == (hashlib.sha256(data).hexdigest(), ["far"])
            assert "404" in typist.run("fetch", server.url("/bad"), "--wait", "60", fails=True)
            assert [row[2] for row in typist.lines("tasks", "--kind", "fetch")] == ["failed", "succeeded"]
            assert "URL" in typist.run("fetch", "ftp://example.org/x", fails=True)
