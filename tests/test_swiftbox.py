"""The Swift that a newcomer tries things with is a real one, says how to use it, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plain import png, written
from tests.serving import COMMAND, environment
from tests.swift_fixtures import swift_box
from tests.swift_fixtures import swift_box_1 as swift_box_1
from tests.swiftbox import ROOT, Shape, SwiftBox
from tests.swiftbox.here import shelf


def left() -> set[Path]:
    return set(shelf().glob("swift-*"))


@pytest.fixture
def told(swift_box_1: SwiftBox) -> Iterator[str]:
    """What it says; the fixture before it has seen to it that there is Swift here."""
    before = left()
    process = subprocess.Popen([sys.executable, "-m", "tests.swiftbox.here"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield "".join(process.stdout.readline() for _ in range(4))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert left() - before == set()
    finally:
        process.kill()
        process.communicate()


def test_what_it_says_is_all_that_a_repository_needs(told: str, tmp_path: Path) -> None:
    (line,) = [line for line in told.splitlines() if line.startswith("    export ")]
    settings = dict(word.split("=", 1) for word in line.split()[1:])
    assert set(settings) == {"IMG_STORE", "ST_AUTH", "ST_USER", "ST_KEY"}
    env = environment(tmp_path / "one", **settings)
    picture = written(tmp_path / "a.png", png(64, 32))
    put = subprocess.run([COMMAND, "put", str(picture)], env=env, capture_output=True, check=True, timeout=60)
    elsewhere = environment(tmp_path / "two", **settings)
    got = subprocess.run([COMMAND, "get", put.stdout.decode().strip()], env=elsewhere, capture_output=True, check=True, timeout=60)
    assert got.stdout == png(64, 32)


def test_a_shape_that_it_has_not_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.swiftbox.here", "7"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "1 or 4" in done.stderr


def test_nobody_else_is_given_the_ports_of_servers_that_are_away() -> None:
    with swift_box(Shape()) as box:
        ports = {name: said["port"] for name, said in box.ctl("ps").items()}
        for name in ports:
            box.ctl("kill", name)
        other = swift_box(Shape(base_port=ports["object1"], port=ports["proxy"]))
        with pytest.raises(RuntimeError, match="another box"), other:
            pass
        for name in ports:
            box.ctl("start", name)
