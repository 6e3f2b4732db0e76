"""Fetches from strangers with every bad habit, by real workers: each ends in its right state, and each end is heard once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from imgproxy.jobs.orders import Fetch
from tests.jobs.farm import HABITS, farm, soon


@pytest.mark.timeout(300)
def test_every_fetch_ends_in_its_right_state_and_is_heard_once(tmp_path: Path, place: str) -> None:
    with farm(tmp_path / "data", IMG_JOBS=place, IMG_TASK_TRIES="2") as played:
        ordered = played.order(len(HABITS) * 4)
        with played.working(threads=12) as worker:
            assert played.settled(ordered, 240)
            assert worker.poll() is None
        assert played.faults(ordered) == []
        assert {played.jobs.find(id).delivery.state for id in ordered} == {"delivered", "dead"}  # type: ignore[union-attr]


@pytest.mark.timeout(300)
def test_workers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    """Four times, at a moment when tasks are under way."""
    with farm(tmp_path / "data", IMG_FETCH_SECONDS="3") as played:
        ordered = played.order(len(HABITS) * 2)
        for _ in range(4):
            with played.working() as worker:
                assert soon(lambda: any(one.running for one in played.jobs.ledger.held()), 60)
                os.kill(worker.pid, signal.SIGKILL)
        with played.working(threads=12):
            assert played.settled(ordered, 240)
        assert played.faults(ordered) == []


def test_told_to_stop_a_worker_finishes_what_is_under_way(tmp_path: Path) -> None:
    with farm(tmp_path / "data") as played:
        task = played.jobs.submit(Fetch(url=played.server.url("/slow/1")))
        with played.working() as worker:
            assert soon(lambda: played.server.asked["/slow/1"] > 0, 60)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
        found = played.jobs.find(task.id)
        assert found is not None
        assert (found.state, found.attempts) == ("succeeded", 1)


def test_waiting_for_a_task_ends_with_it_or_with_patience(tmp_path: Path) -> None:
    with farm(tmp_path / "data") as played:
        task = played.jobs.submit(Fetch(url=played.server.url("/good/1")))
        began = time.monotonic()
        assert not played.jobs.wait(task.id, 0.2).finished
        assert time.monotonic() - began >= 0.2
        with played.working():
            assert played.jobs.wait(task.id, 60).state == "succeeded"
