"""A farm of strangers: pictures to be fetched from servers with every bad habit, and ears that hear how it ended.

`python -m tests.jobs.farm [--tasks 1000] [--kills 0] [--jobs redis://...]` plays it out with real workers, and tells what is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imgproxy import wiring
from imgproxy.config import Settings
from imgproxy.jobs import Jobs, Task
from imgproxy.jobs.orders import Fetch
from imgproxy.wiring import Desk
from tests.plain import png
from tests.serving import COMMAND, environment
from tests.strange import Asked, Habit, Stranger, stranger

JPEG = (Path(__file__).parents[1] / "images/good/thumbor__0e8cfe9b__cmyk.jpg").read_bytes()
KEY = bytes(range(32))


def picture(asked: Asked) -> bytes:
    """Another picture for each path."""
    return png(16, 16, seed=int(hashlib.sha256(asked.path.encode()).hexdigest()[:6], 16))


def good(asked: Asked) -> None:
    """As it should be."""
    asked.answer(200, picture(asked), content_type="image/png")


def slow(asked: Asked) -> None:
    """A byte now and then, but in time."""
    data = picture(asked)
    asked.send_response(200)
    asked.send_header("Content-Length", str(len(data)))
    asked.end_headers()
    for at in range(0, len(data), max(1, len(data) // 4)):
        asked.wfile.write(data[at : at + max(1, len(data) // 4)])
        asked.wfile.flush()
        asked.server.over.wait(0.1)


def hung(asked: Asked) -> None:
    """Never comes to an end."""
    asked.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + picture(asked), 0.5)


def resumed(asked: Asked) -> None:
    """Breaks off in the middle, and goes on where it is asked to."""
    data, rest = picture(asked), asked.headers.get("Range", "")
    begin = int(rest.removeprefix("bytes=").rstrip("-") or 0)
    if begin:
        asked.answer(206, data[begin:], etag='"x"', content_range=f"bytes {begin}-{len(data) - 1}/{len(data)}")
        return
    asked.answer(200, data[: len(data) // 2], length=str(len(data)), etag='"x"')
    asked.hang_up()


def cut(asked: Asked) -> None:
    """Says more than it sends, every time."""
    data = picture(asked)
    asked.answer(200, data[: len(data) // 2], length=str(len(data)))
    asked.hang_up()


def recovering(asked: Asked) -> None:
    """Ill at first."""
    if asked.server.asked[asked.path] == 1:
        asked.answer(500)
    else:
        good(asked)


HABITS: Mapping[str, tuple[str, Habit]] = {
    "good": ("succeeded", good),
    "slow": ("succeeded", slow),
    "resumed": ("succeeded", resumed),
    "recovering": ("succeeded", recovering),
    "hop": ("succeeded", lambda asked: asked.answer(307, location=asked.path.replace("/hop", "/good"))),
    "liar": ("warning", lambda asked: asked.answer(200, picture(asked), content_type="text/html")),
    "hung": ("failed", hung),
    "cut": ("failed", cut),
    "short": ("failed", lambda asked: asked.answer(200, JPEG, length="600", content_type="image/jpeg")),
    "long": ("failed", lambda asked: asked.answer(200, picture(asked), length=str(10**12))),
    "circle": ("failed", lambda asked: asked.answer(302, location=asked.path)),
    "ill": ("failed", lambda asked: asked.answer(500)),
    "gone": ("failed", lambda asked: asked.answer(404)),
    "page": ("failed", lambda asked: asked.answer(200, b"<html>" * 200, content_type="image/png")),
    "inward": ("failed", lambda asked: asked.answer(302, location="http://169.254.169.254/latest/")),
}
"""Each habit, and the state in which a fetch from there ends."""


@dataclass
class Ears:
    """What was heard of each task: how many good answers were given, and the state that was told."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    taken: Counter[str] = field(default_factory=Counter)
    heard: Counter[str] = field(default_factory=Counter)
    states: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unsigned: int = 0

    def listen(self, asked: Asked) -> None:
        """Take what is said; at `/ear/ill` only the second time, at `/ear/deaf` never."""
        said, task = asked.body, asked.headers["Imgproxy-Task"]
        right = hmac.new(KEY, asked.headers["Imgproxy-Timestamp"].encode() + b"." + said, hashlib.sha256).hexdigest()
        manner = asked.path.split("/")[2]
        with self.lock:
            self.heard[task] += 1
            self.unsigned += asked.headers["Imgproxy-Signature"] != f"v1={right}"
            self.states[task].add(json.loads(said)["state"])
            taken = manner == "well" or (manner == "ill" and self.heard[task] > 1)
            self.taken[task] += taken
        asked.answer(200 if taken else 500)


@dataclass(frozen=True)
class Farm:
    """The strangers, the orders' side of the jobs, and the environment of workers."""

    server: Stranger
    ears: Ears
    desk: Desk
    env: Mapping[str, str]

    @property
    def jobs(self) -> Jobs:
        return self.desk.jobs

    def order(self, count: int) -> dict[str, tuple[str, str]]:
        """Order so many fetches, of all habits alike; for each task its habit, and how its callback is heard."""
        ordered = {}
        for number in range(count):
            habit, manner = list(HABITS)[number % len(HABITS)], ("well", "well", "ill", "deaf")[number % 4]
            order = Fetch(url=self.server.url(f"/{habit}/{number}"))
            ordered[self.jobs.submit(order, callback=self.server.url(f"/ear/{manner}")).id] = habit, manner
        return ordered

    @contextmanager
    def working(self, threads: int = 8) -> Iterator[subprocess.Popen[bytes]]:
        """A worker while the block runs."""
        with (Path(self.env["IMG_DATA"]) / "work.log").open("ab") as log:
            worker = subprocess.Popen([COMMAND, "work", "--workers", str(threads)], env=dict(self.env), stdout=log, stderr=log)
        try:
            yield worker
        finally:
            worker.send_signal(signal.SIGTERM)
            try:
                worker.wait(60)
            finally:
                worker.kill()
                worker.wait()

    def settled(self, ordered: Mapping[str, object], seconds: float) -> bool:
        """Wait until nothing is to be done about any of these; whether that was so in time."""
        return soon(lambda: not any(task is None or task.open for task in map(self.jobs.find, ordered)), seconds)

    def faults(self, ordered: Mapping[str, tuple[str, str]]) -> list[str]:
        """All that is not as it should be."""
        found = [f"{self.ears.unsigned} callbacks were not signed"] if self.ears.unsigned else []
        for id, (habit, manner) in ordered.items():
            task = self.jobs.find(id)
            if task is None:
                found.append(f"{habit}: the task is lost")
            else:
                found += [f"{habit}, {manner}: {fault}" for fault in self._wrong(task, HABITS[habit][0], manner)]
        return found

    def _wrong(self, task: Task, state: str, manner: str) -> Iterator[str]:
        taken, told = self.ears.taken[task.id], task.delivery.state
        if task.state != state:
            yield f"is {task.state}, not {state} ({task.error})"
        if (told, taken) not in ((("dead", 0),) if manner == "deaf" else (("delivered", 1), ("dead", 0), ("dead", 1))):
            yield f"the callback is {told}, and was taken {taken} times"
        if told == "dead" and manner != "deaf" and "may have arrived" not in task.delivery.error:
            yield f"the callback is a dead letter: {task.delivery.error}"
        if self.ears.states[task.id] - {state}:
            yield f"the callback said {self.ears.states[task.id]}"


@contextmanager
def farm(data: Path, **settings: str) -> Iterator[Farm]:
    """A farm with its data there, and these settings."""
    ears = Ears()
    habits: dict[str, Habit] = {word: habit for word, (_, habit) in HABITS.items()} | {"ear": ears.listen}
    with stranger(habits) as server:
        own = {
            "IMG_FETCH_NETWORKS": "127.0.0.1/32",
            "IMG_FETCH_PORTS": f"{server.port},80",
            "IMG_FETCH_SECONDS": "6",
            "IMG_CALLBACK_KEYS": KEY.hex(),
            "IMG_CALLBACK_TRIES": "2",
        }
        env = environment(data, **{**own, **settings})
        desk = wiring.furnish(_settings(env), env)
        try:
            yield Farm(server, ears, desk, env)
        finally:
            desk.close()


def soon(true: Callable[[], bool], seconds: float) -> bool:
    """Whether something becomes true within so many seconds."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _settings(env: Mapping[str, str]) -> Settings:
    return wiring.settings_of(env)


def main(arguments: list[str]) -> int:
    """Play it out, and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=0, help="kill a worker so many times while it is at it")
    parser.add_argument("--jobs", default="sqlite://")
    said = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place, farm(Path(place) / "data", IMG_JOBS=said.jobs) as played:
        began = time.monotonic()
        ordered = played.order(said.tasks)
        print(f"{said.tasks} ordered in {time.monotonic() - began:.1f} s", flush=True)
        for _ in range(said.kills):
            with played.working() as worker:
                time.sleep(random.uniform(1.5, 4))
                os.kill(worker.pid, signal.SIGKILL)
        with played.working():
            in_time = played.settled(ordered, 1800)
        faults = played.faults(ordered)
        states = Counter(task.state for task in map(played.jobs.find, ordered) if task is not None)
        dead = sum(task.delivery.state == "dead" for task in map(played.jobs.find, ordered) if task is not None)
        print(f"settled {in_time} in {time.monotonic() - began:.1f} s: {dict(states)}, {dead} dead letters, {len(faults)} faults")
        print("\n".join(faults[:30]))
        return min(1, len(faults)) or int(not in_time)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
