"""Commands of Docker, and the whole of compose.yaml while a block runs."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Response, free_port

ROOT = Path(__file__).parents[2]
IMAGE = "imgproxy"
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def docker(*words: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """What a command of Docker says; with `check` it has to go well."""
    done = subprocess.run(["docker", *words], cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False, env=env)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


def built() -> None:
    """See that the images are those of this checkout; without an engine the test is skipped."""
    try:
        docker("version")
    except (OSError, AssertionError) as why:
        pytest.skip(f"needs a Docker engine: {why}")
    docker("compose", "build")


def until(true: Callable[[], object], what: str, seconds: float = 180) -> None:
    """Wait for something, for a generous time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def ask(address: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
    """One request to host:port."""
    line = http.client.HTTPConnection(address, timeout=100)
    try:
        line.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = line.getresponse()
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        line.close()


def answers(address: str, path: str = "/readyz") -> bool:
    """Whether somebody there is well."""
    try:
        return ask(address, "GET", path).status == 200
    except (OSError, http.client.HTTPException):
        return False


def address_of(container: str) -> str:
    """Where a container is, seen from this machine."""
    networks = json.loads(docker("inspect", container))[0]["NetworkSettings"]["Networks"]
    return f"{next(iter(networks.values()))['IPAddress']}:8080"


@contextmanager
def container(settings: dict[str, str], *command: str, volumes: tuple[str, ...] = ()) -> Iterator[str]:
    """A container of the image, as hard as it can be had, while the block runs; its id."""
    said = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    mounts = [word for volume in volumes for word in ("-v", volume)]
    id = docker("run", "-d", *HARDENED, *said, *mounts, IMAGE, *command)
    try:
        yield id
    finally:
        docker("rm", "-fv", id)


@dataclass
class Stack:
    """The whole of compose.yaml under a name of its own."""

    name: str = "imgproxy-tried"
    port: int = field(default_factory=free_port)
    token: str = ""

    @property
    def edge(self) -> str:
        return f"127.0.0.1:{self.port}"

    def compose(self, *words: str, check: bool = True) -> str:
        """What a command of Compose says."""
        env = {**os.environ, "COMPOSE_PROJECT_NAME": self.name, "LISTEN": self.edge}
        return docker("compose", *words, check=check, env=env)

    def node(self, service: str) -> str:
        """Where a service is, seen from this machine."""
        return address_of(self.compose("ps", "-aq", service))

    def write(self, method: str, path: str, body: Any = None, at: str = "", type: str = "application/json") -> Response:
        """Ask at the doors for writing."""
        said = {"Authorization": f"Bearer {self.token}"} | ({"Content_Type": type} if body is not None else {})
        return ask(at or self.edge, method, path, body if body is None or isinstance(body, bytes) else json.dumps(body).encode(), **said)


@contextmanager
def stack() -> Iterator[Stack]:
    """All of it, from nothing, by the one command; gone at the end."""
    one = Stack()
    one.compose("down", "-v", "--remove-orphans", "-t", "1", check=False)
    try:
        one.compose("up", "-d", "--wait")
        one.token = one.compose("exec", "-T", "node1", "cat", "/run/imgproxy/admin_token")
        yield one
    except BaseException:
        print(one.compose("ps", "-a", check=False), one.compose("logs", "--tail", "40", check=False))
        raise
    finally:
        one.compose("down", "-v", "--remove-orphans", "-t", "5", check=False)


class Readers:
    """Threads that ask for pictures, hits and cold ones, while the block runs; and what they were answered."""

    def __init__(self, address: str, hash: str, first: int, count: int = 4) -> None:
        self._address = address
        self._hash = hash
        self._next = first
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._read, args=(number == 0,)) for number in range(count)]
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(150)

    def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        wanted = self.answers.total() + count
        until(lambda: self.answers.total() >= wanted, "nobody is answered any more")

    def _read(self, cold: bool) -> None:
        while not self._done.is_set():
            with self._lock:
                self._next += cold
            side = self._next if cold else 40 + self._next % 20
            began = time.monotonic()
            try:
                told = str(ask(self._address, "GET", f"/{self._hash}-{side}x{side}.webp").status)
            except (OSError, http.client.HTTPException) as error:
                told = repr(error)
            with self._lock:
                self.answers[told] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            self._done.wait(0.02)
