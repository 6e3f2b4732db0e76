"""What the tests run in node: installed once from `tests/js`, by its lock, and kept there."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parent / "js"
_INSTALLED = HOME / "node_modules" / ".installed"


def installed() -> None:
    """See that the packages of the lock are there; skip the test where there is no node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    lock = (HOME / "package-lock.json").read_text()
    with (HOME / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not _INSTALLED.exists() or _INSTALLED.read_text() != lock:
            subprocess.run(["npm", "ci", "--no-progress"], cwd=HOME, check=True, capture_output=True, timeout=110)
            _INSTALLED.write_text(lock)


@contextmanager
def running(script: str, order: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A script of `tests/js` with its order, while the block runs."""
    process = subprocess.Popen(["node", str(HOME / script), json.dumps(order)], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """What a script tells, as it happens."""
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)
