"""The keeper of the worker beside a server: when the worker begins, and that it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random

import pytest

from imgproxy import keeper
from imgproxy.knocking import is_well
from tests.admin.deaths import job_workers, keepers
from tests.edging import nginx
from tests.plain import noise, png, written
from tests.readers import until
from tests.serving import Server, free_port, serving


class Door(HTTPServer):
    """A server that is ready when its test says so."""

    ready = False
    asked = 0


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Door

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200 if self.server.ready and self.path == "/readyz" else 503)
        self.end_headers()

    def log_message(self, format: str, *words: object) -> None:
        pass


@contextmanager
def door() -> Iterator[Door]:
    with Door(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def kept(address: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-P", "-m", "imgproxy.keeper", address, *command])
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


def test_a_worker_begins_when_its_server_is_ready_and_ends_with_its_keeper(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with door() as server, kept(f"127.0.0.1:{server.server_port}", "sh", "-c", f"echo $$ >{begun}; exec sleep 600"):
        until(lambda: server.asked > 2, "nobody asks whether it is ready")
        assert not begun.exists()
        server.ready = True
        until(lambda: begun.exists() and begun.read_text(), "the worker does not begin")
        worker = Path("/proc", begun.read_text().strip())
        assert worker.exists()
    until(lambda: not worker.exists(), "the worker stays")


def test_a_keeper_that_still_waits_can_be_told_to_stop(tmp_path: Path) -> None:
    with door() as server, kept(f"127.0.0.1:{server.server_port}", "touch", str(tmp_path / "begun")):
        until(lambda: server.asked > 0, "nobody asks whether it is ready")
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize("edge", ["off", "nginx"])
def test_a_keeper_that_is_killed_is_replaced_and_work_goes_on(edge: str, tmp_path: Path) -> None:
    if edge == "nginx":
        nginx()
    with serving(tmp_path / "var", IMG_EDGE=edge, IMG_JOB_WORKERS="1") as server:
        worker = another(server)
        for _ in range(2):
            (one,) = keepers(server)
            os.kill(one, signal.SIGKILL)
            worker = another(server, worker)
            assert one not in keepers(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert not worker.exists()


@pytest.mark.parametrize("edge", ["off", "nginx"])
def test_new_settings_are_the_workers_too(edge: str, tmp_path: Path) -> None:
    if edge == "nginx":
        nginx()
    conf, logo = written(tmp_path / "settings.toml", b""), written(tmp_path / "logo.png", png(20, 20))
    with serving(tmp_path / "var", IMG_EDGE=edge, IMG_JOB_WORKERS="1", IMG_CONFIG=str(conf)) as server:
        (name,) = server.put(written(tmp_path / "a.png", png(60, 60)))
        worker = another(server)
        conf.write_text(f'marks = {{ logo = "{logo}?place=se&size=200" }}\n')
        server.process.send_signal(signal.SIGHUP)
        worker = another(server, worker)
        suffix = "-50x-mark_logo.png"
        until(lambda: server.get(f"/{name.removesuffix('.png')}{suffix}").status == 200, "the server has the old settings")
        order = {"hashes": [name.removesuffix(".png")], "suffixes": ["-40x-mark_logo.png"]}
        task = server.ask("POST", "/admin/derive", order).headers["location"]
        until(lambda: server.ask("GET", task).json["state"] != "created", "nobody works")
        assert server.ask("GET", task).json["result"]["made"] == 1
        assert another(server) == worker


@pytest.mark.parametrize("edge", ["off", "nginx"])
def test_a_worker_ends_while_its_server_finishes_what_is_in_flight(edge: str, tmp_path: Path) -> None:
    if edge == "nginx":
        nginx()
    with serving(tmp_path / "var", IMG_EDGE=edge, IMG_JOB_WORKERS="1") as server:
        (name,) = server.put(written(tmp_path / "a.png", noise(2000, 2000, Random(1))))
        worker = another(server)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            slow.connect(("127.0.0.1", server.port))
            slow.sendall(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 200")
            server.process.send_signal(signal.SIGTERM)
            until(lambda: not worker.exists(), "the worker stays", 20)
            assert server.process.poll() is None
        assert server.process.wait(60) == 0


def test_a_keeper_that_was_told_to_stop_is_not_replaced_and_one_that_is_gone_is_told_nothing(tmp_path: Path) -> None:
    with door() as server, kept(f"127.0.0.1:{server.server_port}", "sleep", "600") as process:
        until(lambda: server.asked > 0, "nobody asks whether it is ready")
        environ = {keeper.KEEPER: json.dumps([process.pid, [], 0.0])}
        keeper.stop(environ)
        assert not keeper.buried(environ, process.pid, signal.SIGKILL)
        keeper.end(environ, 20)
        assert not Path("/proc", str(process.pid)).exists()
    gone = {keeper.KEEPER: json.dumps([os.getpid(), [], 0.0])}  # as if our number were that of a keeper that is long gone
    keeper.renew(gone)
    keeper.stop(gone)


_LATE = """
import os, signal, time
from imgproxy.keeper import tied
tie, us = tied(signal.SIGTERM), os.getpid()
if os.fork() == 0:
    while os.getppid() == us:
        time.sleep(0.01)
    tie()
    print("it lives on")
"""


def test_what_is_begun_while_its_parent_dies_is_not_begun() -> None:
    done = subprocess.run([sys.executable, "-c", _LATE], capture_output=True, check=True, timeout=60)  # until both are gone
    assert done.stdout == b""


def another(server: Server, than: Path | None = None) -> Path:
    """The worker that is kept beside a server, when it is the only one and another than that; its directory in /proc."""
    found: list[Path] = []

    def there() -> bool:
        found[:] = [Path("/proc", str(pid)) for pid in job_workers(server)]
        return bool(found) and than not in found and not (than and than.exists())

    until(there, "nobody works")
    return found[0]


def test_nobody_is_well_who_is_not_there_or_says_so() -> None:
    with door() as server:
        address = f"127.0.0.1:{server.server_port}"
        assert not is_well(address, "/readyz")
        server.ready = True
        assert is_well(address, "/readyz")
        assert not is_well(address)
        assert is_well(f"0.0.0.0:{server.server_port}", "/readyz")
    assert not is_well(f"127.0.0.1:{free_port()}")
    assert not is_well("unix:/nowhere/at/all")
