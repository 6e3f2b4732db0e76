"""Threads and processes that change the same few records at the same time, and a serial replay of what they were answered.

    python -m tests.meta.crowd --seconds 60 [--threads 8] [--processes 2]

Every outcome is an answered commit or a conflict. Afterwards the commits are read from the store, one by one: each must fit what the ones
before it made, be exactly what somebody was answered for, and end in the state that is live; nothing that was refused may be there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from imgproxy.errors import Conflict
from imgproxy.meta import restoring
from imgproxy.meta.repository import Words
from imgproxy.meta.staging import Change
from tests.meta.making import hash_of, live, place_on_disk, record

NUMBERS = 12
_SAY = threading.Lock()


def worker(root: Path, seed: int, seconds: float, threads: int) -> None:
    """Change and commit in so many threads, and say each outcome as a line of JSON."""
    with closing(place_on_disk(root).node()) as words:
        end = time.monotonic() + seconds
        crowd = [threading.Thread(target=_busy, args=(words, f"{seed}.{number}", end)) for number in range(threads)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()


def _busy(words: Words, name: str, end: float) -> None:
    luck = random.Random(name)
    turn = 0
    while time.monotonic() < end:
        turn += 1
        session = words.sessions.open(author=name)
        made: dict[str, Any] = {}
        for number in luck.sample(range(NUMBERS), luck.randint(1, 3)):
            hash = hash_of(number)
            there = words.sessions.read(hash, session)
            if there is not None and luck.random() < 0.3:
                words.sessions.stage(session, [Change(hash, None, there.version)])
                made[hash] = None
            else:
                made[hash] = f"{name} {turn}"
                words.sessions.put(session, record(number, title=made[hash]), there.version if there else 0)
        if luck.random() < 0.3:
            time.sleep(luck.random() * 0.02)
        _attempt(words, session.id, made)


def _attempt(words: Words, session: str, made: dict[str, Any]) -> None:
    try:
        done = words.commits.commit(session)
    except Conflict as error:
        words.sessions.discard(words.sessions.find(session))
        _say({"session": session, "conflict": error.records})
        return
    _say({"session": session, "n": done.n if done else None, "made": made})


def _say(outcome: dict[str, Any]) -> None:
    with _SAY:
        print(json.dumps(outcome), flush=True)


def crowd(root: Path, seconds: float, threads: int, processes: int) -> dict[str, Any]:
    """Let them, and replay: how many were answered and refused, and everything that is wrong."""
    where = place_on_disk(root)
    where.keep(*range(NUMBERS))
    command = [sys.executable, "-m", "tests.meta.crowd", "--worker", str(root), "--seconds", str(seconds), "--threads", str(threads)]
    running = [
        subprocess.Popen([*command, "--seed", str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(processes)
    ]
    outcomes: list[dict[str, Any]] = []
    wrong: list[str] = []
    for process in running:
        said, complaint = process.communicate(timeout=seconds + 100)
        outcomes += map(json.loads, said.splitlines())
        if process.returncode or complaint:
            wrong.append(f"a process ended with {process.returncode}: {complaint[-2_000:]}")
    with closing(where.node()) as words:
        wrong += _replayed(words, outcomes)
        wrong += restoring.check(words.database, where.meta, root / "proof.db").differences
        commits = len(words.commits.log(most=10**9))
    refused = sum("conflict" in outcome for outcome in outcomes)
    return {"answered": len(outcomes) - refused, "refused": refused, "commits": commits, "wrong": wrong}


def _replayed(words: Words, outcomes: list[dict[str, Any]]) -> list[str]:
    answered = {outcome["n"]: outcome for outcome in outcomes if "n" in outcome}
    wrong = [f"refused, and there: {one['session']}" for one in outcomes if "conflict" in one and not one["conflict"]]
    state: dict[str, tuple[str, int]] = {}
    for done in reversed(words.commits.log(most=10**9)):
        outcome = answered.pop(done.n, None)
        if outcome is None or outcome["session"] != done.session:
            wrong.append(f"commit {done.n} was answered to nobody, or to another")
            continue
        lines = {line.hash: json.loads(line.state)["title"] if line.state else None for line in words.commits.changes(done.n)}
        if lines != outcome["made"]:
            wrong.append(f"commit {done.n} is not what was answered")
        for line in words.commits.changes(done.n):
            if line.based_on != state.get(line.hash, ("", 0))[1]:
                wrong.append(f"commit {done.n} does not fit the state before it")
            state.pop(line.hash, None)
            if line.state:
                state[line.hash] = (json.loads(line.state)["title"], done.n)
    wrong += [f"answered commit {n} is not there" for n in answered]
    if state != {hash: (one.title, one.version) for hash, one in live(words).items()}:
        wrong.append("what is live is not what the commits make")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=Path)
    said = parser.parse_args()
    if said.worker:
        worker(said.worker, said.seed, said.seconds, said.threads)
        return 0
    room = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=room, prefix="crowd-") as directory:
        told = crowd(Path(directory), said.seconds, said.threads, said.processes)
    print(json.dumps(told))
    return 1 if told["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
