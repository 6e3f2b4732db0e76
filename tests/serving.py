"""A real server for tests: the command line's own `serve`, on a free port of the loopback, over a directory of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).parent / "imgproxy")


@dataclass(frozen=True, slots=True)
class Response:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def tier(self) -> str:
        return self.headers["server-timing"].removeprefix('tier;desc="').removesuffix('"')


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, its process and its data."""

    port: int
    process: subprocess.Popen[bytes]
    env: Mapping[str, str]
    data: Path

    def get(self, path: str, method: str = "GET", **headers: str) -> Response:
        """Ask once; underscores in the names of headers stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """The token that the first start has made."""
        return (self.data / "admin.token").read_text().strip()

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str) -> Response:
        """Ask at the doors for writing; what is no bytes, file or iterator goes as JSON, and the answer's is at `json`."""
        said = {"Authorization": f"Bearer {self.token if token is None else token}"} if token != "" else {}
        if isinstance(body, dict | list):
            body, said["Content-Type"] = json.dumps(body).encode(), "application/json"
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=100)
        try:
            connection.request(method, path, body, said)
            answer = connection.getresponse()
            return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """Send these very bytes, and return what comes until the server hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock:
            sock.sendall(request)
            answer = b""
            while data := sock.recv(65536):
                answer += data
        return answer

    def half(self, request: bytes) -> bytes:
        """Send these very bytes and nothing more, as a client does that hangs up its side; what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while data := sock.recv(65536):
                answer += data
        return answer

    def put(self, *files: Path) -> list[str]:
        """Keep files by the command line; the base names."""
        done = subprocess.run([COMMAND, "put", *map(str, files)], env=dict(self.env), capture_output=True, check=True, timeout=60)
        return done.stdout.decode().split()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def environment(data: Path, **settings: str) -> dict[str, str]:
    """The environment of a server or command with these settings alone."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("IMG_", "OS_", "ST_"))}
    return {**kept, "IMG_DATA": str(data), "IMG_WORKERS": "2", "IMG_JOB_WORKERS": "0", "IMG_CONFIG": os.devnull, **settings}


@contextmanager
def serving(data: Path, **settings: str) -> Iterator[Server]:
    """A server with these settings (`IMG_...`) while the block runs."""
    port = free_port()
    env = environment(data, IMG_BIND=f"127.0.0.1:{port}", **settings)
    data.mkdir(parents=True, exist_ok=True)
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen([COMMAND, "serve"], env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    server = Server(port, process, env, data)
    try:
        _until_it_answers(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


def _until_it_answers(server: Server) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if server.get("/healthz").status == 200:
                return
        except OSError:
            pass
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError((server.data / "server.log").read_text())
        time.sleep(0.02)
