"""Single flight: one makes, whoever else waits; nothing stays locked after its holder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgproxy.errors import Busy, Damaged
from imgproxy.flights import Flights

HOLDER = """
import sys, time
from pathlib import Path
from imgproxy.flights import Flights
with Flights(Path(sys.argv[1])).alone("key", time.monotonic() + 60):
    print("held", flush=True)
    time.sleep(60)
"""


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def test_the_first_to_join_leads_and_the_others_do_not(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock")
    flight, leading = flights.join("key")
    again, following = flights.join("key")
    assert (leading, following) == (True, False)
    assert again is flight
    flights.leave("key", flight)
    assert flights.join("key")[1]


def test_whoever_waits_gets_what_was_made(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock")
    flight, _ = flights.join("key")
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(flight.wait, soon()) for _ in range(8)]
        flight.data = b"made"
        flights.leave("key", flight)
        for wait in waiting:
            wait.result()
    assert flight.data == b"made"


def test_an_error_lands_with_those_who_wait(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock")
    flight, _ = flights.join("key")
    flight.error = Damaged("broken")
    flights.leave("key", flight)
    flight.wait(soon())
    assert isinstance(flight.error, Damaged)


def test_waiting_ends_at_the_deadline(tmp_path: Path) -> None:
    flight, _ = Flights(tmp_path / "lock").join("key")
    with pytest.raises(Busy):
        flight.wait(soon(0.01))


def test_whoever_is_alone_knows_whether_he_had_to_wait_for_another(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    end = threading.Timer(1.0, process.kill)
    end.start()
    with Flights(tmp_path / "lock").alone("key", soon()) as waited:
        assert waited
    with Flights(tmp_path / "lock").alone("key", soon()) as waited:
        assert not waited
    end.join()
    process.wait()
    process.stdout.close()


def test_two_who_are_alone_are_never_alone_together(tmp_path: Path) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def enter(flights: Flights) -> None:
        nonlocal inside, most
        with flights.alone("key", soon()):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.001)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(16) as threads:
        for done in [threads.submit(enter, Flights(tmp_path / "lock")) for _ in range(100)]:
            done.result()
    assert most == 1


def test_a_lock_dies_with_the_process_that_held_it(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        flights = Flights(tmp_path / "lock")
        with pytest.raises(Busy), flights.alone("key", soon(0.05)):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        with flights.alone("key", soon()):
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_different_keys_do_not_wait_for_each_other(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock")
    with flights.alone("one", soon()), flights.alone("two", soon(0.0)), pytest.raises(Busy), flights.alone("one", soon(0.0)):
        pass
    assert (tmp_path / "lock").stat().st_size == 0


def test_a_lock_is_let_go_of_whatever_has_become_of_its_directory(tmp_path: Path) -> None:
    flights, before = Flights(tmp_path / "run/lock"), len(list(Path("/proc/self/fd").iterdir()))
    with flights.alone("key", soon()):
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").touch()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_without_a_place_for_lock_files_work_goes_on(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "run/lock")
    (tmp_path / "run").rmdir()
    with flights.alone("key", soon()):
        pass


def test_a_child_that_was_forked_meanwhile_keeps_no_lock(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock")
    with flights.alone("key", soon()):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        with flights.alone("key", soon(0.0)) as waited:
            assert not waited
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
