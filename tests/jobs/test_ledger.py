"""Tasks as they are kept, in both places: each step happens once, whoever else is at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from secrets import token_hex

import pytest

from imgproxy.config import Settings
from imgproxy.errors import BadTask, TaskUnfinished
from imgproxy.jobs import task
from imgproxy.jobs.far import FarLedger, FarLife
from imgproxy.jobs.near import NearLedger, NearLife
from imgproxy.jobs.queue import Queue, far_queue, near_queue
from imgproxy.jobs.task import LANES, LONGEST_PAUSE, Holder, Lane, Ledger, Outcome, Task, Wanted
from imgproxy.jobs.worker import Life
from imgproxy.stores import redis

NOW = 1_000_000.0
NUMBERS = count()


class Kept:
    """A ledger, its queue, and the lives of workers."""

    def __init__(self, place: str, data: Path) -> None:
        self.place, self.data = place, data
        self.ledger: Ledger
        self.queue: Queue
        if place == "sqlite://":
            self.ledger, self.queue = NearLedger(data / "tasks.db"), near_queue(data / "queue.db")
        else:
            self.client = redis.client(place, redis.Terms(connect=5, read=10))
            self.ledger, self.queue = FarLedger(self.client, redis.spoken), far_queue(self.client, redis.spoken, "here")

    def life(self) -> Life:
        return NearLife(self.data / "workers") if self.place == "sqlite://" else FarLife(self.client, redis.spoken)


@pytest.fixture
def kept(place: str, tmp_path: Path) -> Iterator[Kept]:
    found = Kept(place, tmp_path)
    yield found
    found.queue.close()
    found.ledger.close()


def made(key: str = "", kind: str = "fetch", **more: object) -> Task:
    words = {"id": token_hex(8), "kind": kind, "order": {"kind": kind}, "key": key or f"key {next(NUMBERS)}", "due": NOW, **more}
    return Task(**words)  # type: ignore[arg-type]


def due(kept: Kept, now: float, lane: Lane = "quick", node: str = "") -> list[str]:
    return [one.id for one in kept.ledger.due(lane, node, now, 10)]


def ended(ledger: Ledger, one: Task, state: str = "succeeded", at: float = NOW) -> Task:
    assert ledger.change(one.id, task.taken(Holder("me", "1"), ("",), NOW)) is not None
    done = ledger.change(one.id, task.finished(Holder("me", "1"), Outcome(state), at))  # type: ignore[arg-type]
    assert done is not None
    return done


def test_what_is_kept_is_found_as_it_was(kept: Kept) -> None:
    one = kept.ledger.add(made(order={"kind": "fetch", "user": {"ü": [1, None]}}, callback="http://example.org/"))
    assert kept.ledger.find(one.id) == one
    assert kept.ledger.same(one.key) == one
    assert kept.ledger.find("0" * 16) is None


def test_the_same_is_kept_once_as_long_as_it_is_not_finished(kept: Kept) -> None:
    first = kept.ledger.add(made("same"))
    assert kept.ledger.add(made("same")) == first
    ended(kept.ledger, first)
    second = kept.ledger.add(made("same"))
    assert second.id != first.id
    assert kept.ledger.add(made("same")) == second


def test_of_many_who_order_the_same_at_once_one_orders(kept: Kept) -> None:
    with ThreadPoolExecutor(8) as crowd:
        ids = {one.id for one in crowd.map(lambda _: kept.ledger.add(made("same")), range(24))}
    assert len(ids) == 1


def test_of_many_who_take_a_task_one_gets_it(kept: Kept) -> None:
    one = kept.ledger.add(made())
    with ThreadPoolExecutor(8) as crowd:
        taken = list(crowd.map(lambda n: kept.ledger.change(one.id, task.taken(Holder(f"worker {n}", "1"), ("",), NOW)), range(24)))
    holders = [found.holder for found in taken if found is not None]
    assert len(holders) == 1
    assert [found.holder for found in kept.ledger.held()] == holders
    assert due(kept, NOW) == []


def test_who_no_longer_holds_a_task_changes_nothing(kept: Kept) -> None:
    one = kept.ledger.add(made())
    kept.ledger.change(one.id, task.taken(Holder("slow", "1"), ("",), NOW))
    kept.ledger.change(one.id, task.abandoned(Holder("slow", "1"), 5, NOW))
    kept.ledger.change(one.id, task.taken(Holder("next", "1"), ("",), NOW))
    for edit in (
        task.finished(Holder("slow", "1"), Outcome("failed"), NOW),
        task.told(Holder("slow", "1"), {"done": 1}),
        task.put_back(Holder("slow", "1"), "", NOW),
    ):
        assert kept.ledger.change(one.id, edit) is None
    found = kept.ledger.find(one.id)
    assert found is not None
    assert (found.holder, found.attempts, found.state) == ("next", 2, "created")


def test_who_was_taken_for_dead_and_has_the_same_task_again_holds_it_once(kept: Kept) -> None:
    one = kept.ledger.add(made())
    first, second = Holder("me", "1"), Holder("me", "2")
    kept.ledger.change(one.id, task.taken(first, ("",), NOW))
    kept.ledger.change(one.id, task.abandoned(first, 5, NOW))
    kept.ledger.change(one.id, task.taken(second, ("",), NOW))
    for edit in (task.finished(first, Outcome("failed"), NOW), task.told(first, {"done": 1}), task.put_back(first, "", NOW)):
        assert kept.ledger.change(one.id, edit) is None
    assert kept.ledger.change(one.id, task.finished(second, Outcome("succeeded"), NOW)) is not None
    (held,) = [kept.ledger.find(one.id)]
    assert held is not None
    assert (held.state, held.held) == ("succeeded", task.NOBODY)


def test_work_that_was_lost_too_often_has_failed(kept: Kept) -> None:
    one = kept.ledger.add(made(callback="http://example.org/"))
    for _ in range(3):
        kept.ledger.change(one.id, task.taken(Holder("dead", "1"), ("",), NOW))
        kept.ledger.change(one.id, task.abandoned(Holder("dead", "1"), 3, NOW))
    found = kept.ledger.find(one.id)
    assert found is not None
    assert (found.state, found.delivery.state, found.holder) == ("failed", "waiting", "")


def test_a_callback_that_may_have_arrived_is_not_sent_again(kept: Kept) -> None:
    one = ended(kept.ledger, kept.ledger.add(made(callback="http://example.org/")))
    assert kept.ledger.change(one.id, task.taken(Holder("dead", "1"), ("",), NOW)) is not None
    kept.ledger.change(one.id, task.abandoned(Holder("dead", "1"), 5, NOW))
    (letter,) = kept.ledger.page(Wanted(dead=True), 10, "").tasks
    assert letter.id == one.id
    assert not letter.open
    assert kept.ledger.change(one.id, lambda found: task.resent(found, NOW)) is not None
    assert kept.ledger.page(Wanted(dead=True), 10, "").tasks == ()
    assert due(kept, NOW) == [one.id]


def test_a_task_is_due_at_its_moment_and_not_a_day_later_when_the_clock_is_set_back(kept: Kept) -> None:
    soon, far = kept.ledger.add(made(due=NOW + 60)), kept.ledger.add(made(due=NOW + LONGEST_PAUSE * 24))
    assert due(kept, NOW) == [far.id]
    assert set(due(kept, NOW + 60)) == {soon.id, far.id}
    assert kept.ledger.change(soon.id, task.taken(Holder("me", "1"), ("",), NOW)) is None
    assert kept.ledger.change(far.id, task.taken(Holder("me", "1"), ("",), NOW)) is not None


def test_a_task_of_another_node_is_left_to_it(kept: Kept) -> None:
    one = kept.ledger.add(made(node="elsewhere"))
    assert kept.ledger.change(one.id, task.taken(Holder("me", "1"), ("here", ""), NOW)) is None
    assert kept.ledger.change(one.id, task.taken(Holder("me", "1"), ("elsewhere", ""), NOW)) is not None


def test_what_is_due_is_told_lane_by_lane_and_of_one_node_alone(kept: Kept) -> None:
    quick, long = kept.ledger.add(made()), kept.ledger.add(made(kind="sync", callback="http://example.org/"))
    assert (due(kept, NOW, "quick"), due(kept, NOW, "long")) == ([quick.id], [long.id])
    ended(kept.ledger, long)
    assert (set(due(kept, NOW, "quick")), due(kept, NOW, "long")) == ({quick.id, long.id}, [])  # its callback does not wait for a night
    ended(kept.ledger, quick)
    assert due(kept, NOW, "quick") == [long.id]
    if kept.place != "sqlite://":  # where all tasks are of this node
        other = kept.ledger.add(made(node="elsewhere"))
        assert due(kept, NOW, node="elsewhere") == [other.id]
        assert due(kept, NOW) == [long.id]


def test_a_failed_task_is_done_again_unless_the_same_is_under_way(kept: Kept) -> None:
    one = ended(kept.ledger, kept.ledger.add(made("same")), "failed")
    other = kept.ledger.add(made("same"))
    with pytest.raises(TaskUnfinished):
        kept.ledger.change(one.id, lambda found: task.renewed(found, NOW))
    ended(kept.ledger, other)
    again = kept.ledger.change(one.id, lambda found: task.renewed(found, NOW))
    assert again is not None
    assert (again.state, again.attempts, again.open) == ("created", 0, True)
    assert kept.ledger.change(one.id, lambda found: task.renewed(found, NOW)) is None


def test_tasks_are_listed_newest_first_page_by_page(kept: Kept) -> None:
    ordered = [kept.ledger.add(made(kind=("fetch", "sync")[n % 2])) for n in range(9)]
    for one in ordered[:4]:
        ended(kept.ledger, one, "failed")
    for wanted, right in (
        (Wanted(), ordered),
        (Wanted(kind="fetch"), ordered[::2]),
        (Wanted("failed"), ordered[:4]),
        (Wanted("failed", "sync"), ordered[1:4:2]),
        (Wanted("warning"), []),
    ):
        found, cursor = [], ""
        while True:
            page = kept.ledger.page(wanted, 2, cursor)
            assert len(page.tasks) <= 2
            found += [one.id for one in page.tasks]
            cursor = page.cursor
            if not cursor:
                break
        assert found == [one.id for one in reversed(right)]


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 30, "\u0661"])
def test_a_cursor_of_somebody_else_is_refused(kept: Kept, cursor: str) -> None:
    with pytest.raises(BadTask):
        kept.ledger.page(Wanted(), 10, cursor)


def test_what_ended_long_ago_is_forgotten_and_what_is_open_never(kept: Kept) -> None:
    old, young = ended(kept.ledger, kept.ledger.add(made())), ended(kept.ledger, kept.ledger.add(made()), at=NOW + 100)
    waiting, never = ended(kept.ledger, kept.ledger.add(made(callback="http://example.org/"))), kept.ledger.add(made())
    assert kept.ledger.forget(NOW + 50) == 1
    assert [kept.ledger.find(one.id) is None for one in (old, young, waiting, never)] == [True, False, False, False]
    assert {one.id for one in kept.ledger.page(Wanted(), 10, "").tasks} == {young.id, waiting.id, never.id}


def test_the_queue_hands_out_each_id_once_in_its_lane(kept: Kept) -> None:
    quick, long, mine = made(), made(kind="sync"), made(kind="sync", node=kept.queue.nodes[0])
    for one in (long, quick, mine):
        kept.queue.push(one)
    assert kept.queue.pull(("quick",)) == quick.id
    assert kept.queue.pull(("quick",)) is None
    assert {kept.queue.pull(("quick", "long")), kept.queue.pull(("quick", "long"))} == {long.id, mine.id}
    assert all(kept.queue.is_empty(lane, node) for lane in LANES for node in kept.queue.nodes)


def test_what_is_for_later_comes_at_its_moment(kept: Kept) -> None:
    later = made(due=NOW + 60)
    kept.queue.push_later(later)
    kept.queue.wake(NOW + 59)
    assert kept.queue.pull(("quick",)) is None
    kept.queue.wake(NOW + 61)
    assert kept.queue.pull(("quick",)) == later.id


def test_a_worker_lives_until_it_ends(kept: Kept) -> None:
    mine, others = kept.life(), kept.life()
    name = mine.begin()
    others.sweep()
    assert others.lives(name)
    mine.beat()
    mine.end()
    assert not others.lives(name)
    assert not others.lives("somebody")


_LIVING = "import sys, time; from pathlib import Path; from imgproxy.jobs.near import NearLife; print(NearLife(Path(sys.argv[1])).begin(), flush=True); time.sleep(600)"  # fmt: skip # noqa: E501


def test_a_worker_that_is_killed_is_dead_at_once(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _LIVING, str(tmp_path)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        name = worker.stdout.readline().decode().strip()
        life = NearLife(tmp_path)
        assert life.lives(name)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        assert not life.lives(name)
        life.sweep()
        assert list(tmp_path.iterdir()) == []


def test_beginning_and_sweeping_at_once_leaves_every_worker_alive(tmp_path: Path) -> None:
    over = threading.Event()

    def sweep() -> None:
        while not over.is_set():
            NearLife(tmp_path).sweep()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    lives = [NearLife(tmp_path) for _ in range(200)]
    names = [life.begin() for life in lives]
    over.set()
    sweeper.join()
    assert all(NearLife(tmp_path).lives(name) for name in names)
    for life in lives:
        life.end()


@pytest.mark.parametrize("name", ["tasks.db", "queue.db"])
def test_a_damaged_database_is_moved_aside(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    ledger, queue = NearLedger(tmp_path / "tasks.db"), near_queue(tmp_path / "queue.db")
    one = ledger.add(made())
    queue.push(one)
    assert queue.pull(("quick",)) == one.id
    assert (tmp_path / f"{name}.damaged").exists()
    queue.close()
    ledger.close()


def test_the_settings_say_where_tasks_are_kept() -> None:
    assert Settings().jobs.scheme == "sqlite"
