"""The settings of gunicorn, by what a server does that runs with them."""

from __future__ import annotations

import http.client
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.plain import png, written
from tests.serving import Server, environment, serving

CONFIGURATION = Path(__file__).parent.parent / "conf" / "gunicorn.conf.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with few_descriptors(200), serving(tmp_path_factory.mktemp("gunicorn"), IMG_WORKERS="1") as server:
        yield server


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    """What is started in the block may open so many files, unless it asks for more."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))


def test_many_connections_do_not_use_up_the_descriptors(server: Server) -> None:
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, min(2000, most)), most))
    with ExitStack() as kept:
        for _ in range(400):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            kept.callback(connection.close)
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"ok\n")
        assert server.get("/readyz").status == 200


@pytest.mark.parametrize(("files", "connections"), [(300, range(1, 5)), (1024, range(50, 65)), (4000, range(600, 700)), (6000, [1024])])
def test_where_descriptors_are_scarce_fewer_connections_are_taken(tmp_path: Path, files: int, connections: range) -> None:
    code = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({min(files, 250)}, {files}))
print(runpy.run_path({str(CONFIGURATION)!r})["worker_connections"])
"""
    env = environment(tmp_path, IMG_THREADS="256")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) in connections


def test_two_servers_over_one_directory_keep_figures_of_their_own(server: Server) -> None:
    def refusals(of: Server) -> float:
        lines = of.get("/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith('imgproxy_refusals_total{error="BadName"}'))

    server.get("/nothing")
    counted = refusals(server)
    with serving(server.data) as other:
        assert refusals(other) == 0
        server.get("/nothing")
        assert refusals(server) == counted + 1
        assert refusals(other) == 0
    assert refusals(server) == counted + 1


@pytest.mark.parametrize("header", ["SCRIPT_NAME: /elsewhere", "PATH_INFO: /healthz"])
def test_no_header_says_which_path_was_asked_for(server: Server, header: str) -> None:
    (name,) = server.put(written(server.data / "a.png", png(40, 40)))
    answer = server.raw(f"GET /{name} HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n".encode())
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == png(40, 40)
