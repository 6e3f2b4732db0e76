"""A real Swift on loopback, thrown away after use: plain processes, no root, nothing outside one directory.

The servers run in an interpreter that has `swift` installed (`make .venv-swift`); this file needs the standard library alone and is what
tests use. By hand:

    .venv-swift/bin/python -m tests.swiftbox serve /dev/shm/box --port 8090          one device
    .venv-swift/bin/python -m tests.swiftbox serve DIR --nodes 4 --replicas 3        four devices in two regions
    .venv-swift/bin/python -m tests.swiftbox ctl DIR ps | kill object2 [STOP | CONT] | start object2 | once object-replicator | stop
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Shape:
    """How a Swift is laid out, and how patient its proxy is.

    Ports of 0 are chosen; `policies` are further storage policies, `without` parts of the pipeline to leave out, each with commas.
    `listen` is where the proxy is for others, `key` what they say to be let in.
    """

    nodes: int = 1
    replicas: int = 1
    regions: int = 2
    port: int = 0
    base_port: int = 0
    policies: str = ""
    without: str = ""
    token_life: int = 86400
    recheck: int = 60
    error_limit: int = 10
    error_interval: int = 60
    node_timeout: float = 10.0
    sweep: float = 0.0
    listen: str = HOST
    key: str = "testing"


class SwiftBox:
    """A Swift that lives as long as this context; its end of the pipe to it is what keeps it alive."""

    def __init__(self, directory: Path, python: str, shape: Shape) -> None:
        self.directory = directory
        self.info: dict[str, Any] = {}
        self._python = python
        self._shape = shape
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SwiftBox:
        for left in (2, 1, 0):
            try:
                self._start()
            except RuntimeError as error:
                # Somebody was faster at a port of its own choice: another one will do.
                shutil.rmtree(self.directory, ignore_errors=True)
                if not left or "in use" not in str(error) or self._shape.port:
                    raise
            else:
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def ctl(self, *words: str) -> Any:
        """Tell the supervisor something: `ps`, `kill object2 STOP`, `start proxy`, `once object-replicator`."""
        return control(self.directory, words)

    def _start(self) -> None:
        options = [word for name, value in asdict(self._shape).items() for word in ("--" + name.replace("_", "-"), str(value))]
        command = [self._python, "-m", "tests.swiftbox", "serve", str(self.directory), "--stdin-guard", *options]
        self.directory.mkdir(parents=True, exist_ok=True)
        said = self.directory / "serve.err"
        with said.open("ab") as errors:
            self._process = self._spawned(command, errors)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            raise RuntimeError("Swift did not start: " + said.read_text()[-2000:])
        self.info = json.loads(line)

    def _spawned(self, command: list[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)


def control(directory: Path, words: tuple[str, ...]) -> Any:
    """Ask the supervisor of the box in `directory`; a Unix socket's path is short, so it is reached through the directory's descriptor."""
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(120)
        try:
            line.connect(f"/proc/self/fd/{place}/ctl.sock")
        finally:
            os.close(place)
        line.sendall(json.dumps(words).encode() + b"\n")
        with line.makefile() as answers:
            answer = json.loads(answers.readline())
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["ok"]
