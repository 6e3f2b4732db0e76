"""Commands of Docker, and the whole of compose.yaml while a block runs."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.readers import ask
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
