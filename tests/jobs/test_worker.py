"""Workers, one by one: what they put back, what they try again, what they leave to others, and what they forget."""

from __future__ import annotations

import io
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from redis import Redis

from imgproxy import wiring
from imgproxy.errors import BadTask, StoreDown
from imgproxy.jobs import Task
from imgproxy.jobs.orders import Commit, Cull, Derive, Fetch, Snapshot
from imgproxy.jobs.task import Edit, abandoned
from imgproxy.jobs.worker import Worker
from imgproxy.wiring import Desk
from tests.jobs.farm import farm, soon
from tests.plain import png
from tests.serving import environment
from tests.strange import Asked


@contextmanager
def opened(data: Path, **settings: str) -> Iterator[Desk]:
    env = environment(data, **settings)
    desk = wiring.furnish(wiring.settings_of(env), env)
    try:
        yield desk
    finally:
        desk.close()


@contextmanager
def working(desk: Desk, threads: int = 2) -> Iterator[Worker]:
    """A worker in this process while the block runs."""
    worker = desk.bench.worker(threads)
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(worker.run(60)))
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(90)
    assert ended == [True]


def found(desk: Desk, task: Task) -> Task:
    now = desk.jobs.find(task.id)
    assert now is not None
    return now


def commit(desk: Desk, count: int) -> list[str]:
    """So many committed images."""
    session = desk.words.sessions.open("making")
    for seed in range(count):
        desk.uploads.keep(io.BytesIO(png(20, 20, seed)), session, {})
    desk.words.commits.commit(session.id)
    return list(desk.words.sessions.hashes())


def test_work_of_hours_is_put_back_when_the_worker_has_to_stop_and_goes_on_with_the_next(tmp_path: Path) -> None:
    with opened(tmp_path / "var") as desk:
        hashes = commit(desk, 3)
        sizes = tuple(f"-{size}x{size}.png" for size in range(1, 400))
        task = desk.jobs.submit(Derive(suffixes=sizes))
        with working(desk):
            assert soon(lambda: bool(found(desk, task).progress.get("made")), 60)
        stopped = found(desk, task)
        assert (stopped.state, stopped.holder, stopped.attempts) == ("created", "", 0)
        with working(desk):
            done = desk.jobs.wait(task.id, 100)
        assert (done.state, done.attempts) == ("succeeded", 1)
        assert done.result["made"] + done.result["there"] == len(hashes) * len(sizes)
        assert done.result["there"] >= stopped.progress["made"]


def test_what_cannot_be_made_is_told_and_the_rest_is_made(tmp_path: Path) -> None:
    with opened(tmp_path / "var") as desk:
        commit(desk, 2)
        task = desk.jobs.submit(Derive(suffixes=("-8x8-page_2.png", "-8x8.png"), names=("0" * 64 + "-8x8.png",)))
        with working(desk):
            done = desk.jobs.wait(task.id, 60)
        assert (done.state, done.result["made"], done.result["refused"]) == ("warning", 2, 3)
        assert len(done.result["errors"]) == 3


def test_an_order_that_is_too_long_to_be_kept_is_refused(tmp_path: Path) -> None:
    many = tuple(sha256(b"%d" % number).hexdigest() for number in range(5_000))
    with opened(tmp_path / "var") as desk:
        for order in (Derive(hashes=many, suffixes=("-8x8.png",)), Derive(names=tuple(f"{hash}-8x8.png" for hash in many))):
            with pytest.raises(BadTask, match="in parts"):
                desk.jobs.submit(order)
        assert desk.jobs.submit(Derive(hashes=many[:3_800], suffixes=("-8x8.png",))).order["hashes"] == sorted(many[:3_800])


def test_what_our_own_store_kept_from_being_done_is_done_when_it_is_back(tmp_path: Path) -> None:
    with opened(tmp_path / "var") as desk:
        commit(desk, 1)
        meta = tmp_path / "var/store/meta"
        meta.rename(tmp_path / "away")
        meta.write_bytes(b"no directory")
        task = desk.jobs.submit(Snapshot())
        with working(desk):
            assert soon(lambda: found(desk, task).error != "" and not found(desk, task).holder, 60)
            assert found(desk, task).state == "created"
            meta.unlink()
            (tmp_path / "away").rename(meta)
            done = desk.jobs.wait(task.id, 60)
        assert (done.state, done.result) == ("succeeded", {"n": 1})
        assert done.attempts > 1


def test_what_the_queue_has_lost_the_ledger_still_knows(tmp_path: Path) -> None:
    with opened(tmp_path / "var") as desk:
        tasks = [desk.jobs.submit(Derive(suffixes=(f"-{size}x.png",))) for size in (1, 2, 3)]
        with closing(sqlite3.connect(tmp_path / "var/jobs/queue.db")) as queue:
            assert queue.execute("DELETE FROM task").rowcount == 3
            queue.commit()
        with working(desk):
            assert all(desk.jobs.wait(task.id, 60).state == "succeeded" for task in tasks)


def test_what_the_queue_has_lost_is_found_though_others_wait_and_these_do_not_wait_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgproxy.jobs.worker._THOROUGH", 1.5)
    with opened(tmp_path / "var") as desk:
        commit(desk, 2)
        lost = desk.jobs.submit(Derive(suffixes=("-1x.png",)))
        assert desk.jobs.queue.pull(("long",)) == lost.id  # by a worker that was killed before it could take it
        night = desk.jobs.submit(Derive(suffixes=tuple(f"-{size}x{size}.png" for size in range(1, 4000))))
        waiting = [desk.jobs.submit(Derive(suffixes=(f"-{size}x.png",))) for size in (2, 3)]
        with working(desk):
            assert soon(lambda: lost.id in desk.jobs.queue.carried("long", ""), 60)
            assert found(desk, night).running
            with closing(sqlite3.connect(tmp_path / "var/jobs/queue.db")) as queue:
                ids = [data.decode() for (data,) in queue.execute("SELECT data FROM task")]
        assert sorted(ids) == sorted(one.id for one in (lost, *waiting))


def test_what_waits_for_a_node_that_is_away_is_left_to_wait(tmp_path: Path, redis_url: str) -> None:
    shared = {"IMG_JOBS": redis_url, "IMG_STORE": f"fs://{tmp_path}/store"}
    with opened(tmp_path / "away", **shared) as away, opened(tmp_path / "here", **shared) as here, Redis.from_url(redis_url) as client:
        ordered = {away.jobs.submit(Commit(message=str(n))).id for n in range(5)}
        place = next(key for key in client.keys("huey.redis.*") if client.type(key) == b"list" and client.llen(key) == len(ordered))
        with working(here):
            time.sleep(3.5)  # it looks after what is lost once a second
            assert client.llen(place) == len(ordered)
        with working(away):
            assert all(away.jobs.wait(id, 60).state == "succeeded" for id in ordered)


def test_an_attempt_that_was_given_up_for_dead_and_goes_on_spoils_nothing(tmp_path: Path, redis_url: str) -> None:
    enough, shared = threading.Event(), {"IMG_JOBS": redis_url, "IMG_STORE": f"fs://{tmp_path}/store", "IMG_FETCH_SECONDS": "100"}
    right = png(40, 40, 7)

    def halting(asked: Asked) -> None:
        asked.send_response(200)
        asked.send_header("Content-Length", str(len(right)))
        asked.end_headers()
        asked.wfile.write(right[:50])
        asked.wfile.flush()
        if asked.server.asked[asked.path] == 1:
            enough.wait(100)
        asked.wfile.write(right[50:])

    with farm(tmp_path / "a", **shared) as played, opened(tmp_path / "b", **shared) as other:
        played.server.habits["halting"] = halting
        with working(played.desk, threads=3):
            task = played.jobs.submit(Fetch(url=played.server.url("/halting/1")))
            assert soon(lambda: found(played.desk, task).running and played.server.asked["/halting/1"] == 1, 60)
            # What another node does that has not heard of this worker for half a minute.
            given_up = other.jobs.ledger.change(task.id, abandoned(found(other, task).held, 5, time.time()))
            assert given_up is not None
            other.jobs.queue.push(given_up)
            assert soon(lambda: "still at it" in found(played.desk, task).error, 60)
            enough.set()
            done = played.jobs.wait(task.id, 60)
        assert (done.state, done.result.get("hash")) == ("succeeded", sha256(right).hexdigest())
        assert list((tmp_path / "a/jobs/spool").iterdir()) == []


def test_a_task_that_a_worker_has_without_knowing_of_it_is_done_all_the_same(tmp_path: Path) -> None:
    with opened(tmp_path / "var") as desk:
        real, lost = desk.jobs.ledger.change, threading.Event()

        def unheard(id: str, edit: Edit) -> Task | None:
            done = real(id, edit)
            if done is not None and done.running and not lost.is_set():
                lost.set()
                raise StoreDown("the answer did not come")
            return done

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(desk.jobs.ledger, "change", unheard)
            task = desk.jobs.submit(Derive(suffixes=("-1x.png",)))
            with working(desk):
                assert lost.wait(60)
                done = desk.jobs.wait(task.id, 60)
        assert (done.state, done.attempts) == ("succeeded", 1)


def test_a_callback_that_a_worker_has_without_knowing_of_it_is_sent_once(tmp_path: Path) -> None:
    with farm(tmp_path / "data") as played:
        real, lost = played.jobs.ledger.change, threading.Event()

        def unheard(id: str, edit: Edit) -> Task | None:
            done = real(id, edit)
            if done is not None and done.delivery.state == "sending" and not lost.is_set():
                lost.set()
                raise StoreDown("the answer did not come")
            return done

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(played.jobs.ledger, "change", unheard)
            order = Fetch(url=played.server.url("/good/1"))
            task = played.jobs.submit(order, callback=played.server.url("/ear/well"))
            with working(played.desk):
                assert soon(lambda: not found(played.desk, task).open, 60)
        assert lost.is_set()
        assert (found(played.desk, task).delivery.state, played.ears.taken[task.id]) == ("delivered", 1)


def test_a_commit_is_made_once_however_often_it_is_done(tmp_path: Path) -> None:
    with opened(tmp_path / "var") as desk:
        session = desk.words.sessions.open("once")
        desk.uploads.keep(io.BytesIO(png(9, 9)), session, {})
        task = desk.jobs.submit(Commit(session="once", author="me", message="now"))
        made = desk.words.commits.commit(session.id, "me", "now")  # as a worker that was killed before it could say so
        assert made is not None
        with working(desk):
            done = desk.jobs.wait(task.id, 60)
        assert (done.state, done.result["n"]) == ("succeeded", made.n)
        assert len(desk.words.commits.log()) == 1


def test_old_tasks_are_forgotten_and_young_ones_are_not(tmp_path: Path) -> None:
    with opened(tmp_path / "var", IMG_TASKS_KEPT="1") as desk, working(desk):
        old = desk.jobs.wait(desk.jobs.submit(Derive(suffixes=("-1x.png",))).id, 60)
        assert soon(lambda: time.time() - old.ended > 1.0, 60)
        young = desk.jobs.wait(desk.jobs.submit(Derive(suffixes=("-2x.png",))).id, 60)
        culled = desk.jobs.wait(desk.jobs.submit(Cull()).id, 60)
        assert culled.result["tasks"] == 1
        assert desk.jobs.find(old.id) is None
        assert desk.jobs.find(young.id) is not None


def test_a_task_that_makes_no_sense_any_more_fails_and_the_worker_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path / "var") as desk:
        broken = desk.jobs.submit(Derive(suffixes=("-1x.png",)))
        with closing(sqlite3.connect(tmp_path / "var/jobs/tasks.db")) as tasks:
            tasks.execute('UPDATE tasks SET body = replace(body, \'"kind":"derive"}\', \'"kind":"dance"}\')')
            tasks.execute('UPDATE tasks SET body = replace(body, \'"order":{\', \'"order":{"unknown":1,\')')
            tasks.commit()
        other = desk.jobs.submit(Derive(suffixes=("-2x.png",)))
        with working(desk):
            assert desk.jobs.wait(broken.id, 60).state == "failed"
            assert desk.jobs.wait(other.id, 60).state == "succeeded"


@pytest.mark.timeout(180)
def test_a_night_of_work_never_holds_up_a_fetch(tmp_path: Path) -> None:
    with farm(tmp_path / "data") as played:
        commit(played.desk, 2)
        night = played.jobs.submit(Derive(suffixes=tuple(f"-{size}x{size}.png" for size in range(1, 2000))))
        with working(played.desk):
            assert soon(lambda: played.jobs.find(night.id).running, 60)  # type: ignore[union-attr]
            assert played.jobs.wait(played.jobs.submit(Fetch(url=played.server.url("/good/1"))).id, 60).state == "succeeded"
            assert not played.jobs.find(night.id).finished  # type: ignore[union-attr]


def test_renditions_are_made_by_any_node_and_sessions_are_left_to_their_own(tmp_path: Path, redis_url: str) -> None:
    shared = {"IMG_JOBS": redis_url, "IMG_STORE": f"fs://{tmp_path}/store"}
    with opened(tmp_path / "a", **shared) as a, opened(tmp_path / "b", **shared) as b:
        (hash,) = commit(a, 1)
        ours, all_of_us = a.jobs.submit(Commit()), a.jobs.submit(Derive(suffixes=("-8x8.png",), hashes=(hash,)))
        with working(b):
            assert b.jobs.wait(all_of_us.id, 60).result["made"] == 1
            assert not b.jobs.find(ours.id).finished  # type: ignore[union-attr]
        with working(a):
            assert a.jobs.wait(ours.id, 60).state == "succeeded"


def test_a_node_that_begins_anew_does_what_was_ordered_but_not_into_a_session_that_is_lost(tmp_path: Path, redis_url: str) -> None:
    data, shared = tmp_path / "data", {"IMG_JOBS": redis_url, "IMG_STORE": f"fs://{tmp_path}/store"}
    with farm(data, **shared) as played:
        session = played.desk.words.sessions.open("lost with the disk")
        into_it = played.jobs.submit(Fetch(url=played.server.url("/good/1"), session=session.id))
        anywhere = played.jobs.submit(Fetch(url=played.server.url("/good/2")))
        shutil.rmtree(data)
        with opened(data, **{name: value for name, value in played.env.items() if name.startswith("IMG_")}) as anew, working(anew):
            assert anew.jobs.wait(anywhere.id, 60).state == "succeeded"
            lost = anew.jobs.wait(into_it.id, 60)
            assert (lost.state, "no session" in lost.error) == ("failed", True), lost.error


def test_what_only_this_node_has_of_renditions_is_brought_to_the_others(tmp_path: Path) -> None:
    with opened(tmp_path / "var", IMG_DERIVED="before") as desk:
        (hash,) = commit(desk, 1)
        task = desk.jobs.submit(Derive(suffixes=("-8x8.png",)))
        far = desk.house.stores[-1]
        with working(desk):
            assert desk.jobs.wait(task.id, 60).result["made"] == 1
            assert far.delete(f"{hash}-8x8.png")
            assert list(desk.jobs.missing(("-8x8.png",))) == [f"{hash}-8x8.png"]
            again = desk.jobs.wait(desk.jobs.submit(Derive(suffixes=("-8x8.png",), missing=True)).id, 60)
        assert again.result["there"] == 1
        assert list(desk.jobs.missing(("-8x8.png",))) == []
