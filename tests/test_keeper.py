"""The keeper of the worker beside a server: when the worker begins, and that it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from imgproxy.knocking import is_well
from tests.admin.deaths import job_workers, keepers
from tests.edging import nginx
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
            (keeper,) = keepers(server)
            os.kill(keeper, signal.SIGKILL)
            worker = another(server, worker)
            assert keeper not in keepers(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert not worker.exists()


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
