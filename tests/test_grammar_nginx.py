"""The published expression in a real nginx: it lets the same texts pass as the parser's syntax."""

from __future__ import annotations

import http.client
import random
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from imgproxy.grammar import SYNTAX
from tests.naming import LISTED, mutated, outcome, spelled_well

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
CONF = """
daemon off;
master_process off;
pid {home}/pid;
error_log stderr warn;
events {{ }}
http {{
    access_log off;
    keepalive_requests 100000;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{port};
        merge_slashes off;
        location / {{ return 404 "not\\n"; }}
        location ~ "{expression}" {{ return 200 "name\\n"; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[http.client.HTTPConnection]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    home = tmp_path_factory.mktemp("nginx")
    port = free_port()
    conf = home / "nginx.conf"
    conf.write_text(CONF.format(home=home, port=port, expression="^/" + SYNTAX.removeprefix("^")))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([NGINX, "-p", str(home), "-e", "stderr", "-c", str(conf)], stderr=log)
    try:
        wait_for(port, process, home / "log")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        yield connection
        connection.close()
    finally:
        process.terminate()
        process.wait(timeout=10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nginx does not answer: {log.read_text()}")


def can_be_asked(text: str) -> bool:
    """Whether nginx compares this very text: it takes no NUL, and it resolves slashes and dot segments before it compares."""
    return "\0" not in text and "/" not in text and text not in (".", "..")


def verdict(nginx: http.client.HTTPConnection, text: str) -> bool:
    """What nginx says of a text; sent percent-encoded whole, for nginx compares what it has decoded."""
    sent = "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
    nginx.request("GET", "/" + sent)
    answer = nginx.getresponse()
    said = {(200, b"name\n"): True, (404, b"not\n"): False}
    return said[answer.status, answer.read()]


@pytest.mark.parametrize(("listed", "text", "note"), LISTED)
def test_nginx_decides_the_list_of_names(nginx: http.client.HTTPConnection, listed: str, text: str, note: str) -> None:
    assert verdict(nginx, text) == (listed == "name" or outcome(text) == "rule"), note


def test_nginx_compares_plain_paths_as_well(nginx: http.client.HTTPConnection) -> None:
    for _, text, note in LISTED:
        nginx.request("GET", "/" + quote(text, safe="/,"))
        answer = nginx.getresponse()
        answer.read()
        assert (answer.status == 200) == spelled_well(text), note


@pytest.mark.parametrize("ending", ["\n", "\n\n", "\r\n", "\r", " ", "\t", "\x7f", "?", "#", "%", "\u2028", "é", "\ud800"])
def test_nginx_lets_nothing_follow_a_name(nginx: http.client.HTTPConnection, ending: str) -> None:
    for listed, text, _ in LISTED:
        if listed == "name":
            assert not verdict(nginx, text + ending)
            assert not verdict(nginx, ending + text)


def test_nginx_decides_near_names_as_the_parser_does(nginx: http.client.HTTPConnection) -> None:
    choose = random.Random(20261120)
    names = [text for _, text, _ in LISTED if spelled_well(text)]
    found: Counter[bool] = Counter()
    for _ in range(800):
        text = choose.choice(names)
        for _ in range(choose.choice([1, 1, 2])):
            text = text[:64] + mutated(text[64:], choose)
        if can_be_asked(text):
            said = verdict(nginx, text)
            found[said] += 1
            assert said == spelled_well(text) == (outcome(text) != "syntax"), text
    assert min(found[True], found[False]) > 50, found
