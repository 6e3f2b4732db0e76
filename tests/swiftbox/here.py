"""A Swift to try things with, until Ctrl-C; and what it needs of this machine. Needs the standard library alone.

python -m tests.swiftbox.here        one device
python -m tests.swiftbox.here 4      four devices in two regions, three replicas
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.swiftbox import ROOT
from tests.swiftbox.build import port_is_free

LOCK = ROOT / "tests" / "swift.lock"
HOME = ROOT / ".venv-swift"
PORT = 8090
"""Where the proxy listens, if nobody else does: what was exported once goes on to be right."""

SHAPES = {"1": (), "4": ("--nodes", "4", "--replicas", "3", "--regions", "2", "--sweep", "30")}


class NoSwift(Exception):
    """What keeps this machine from having one."""


@cache
def swift_python(patience: float = 100) -> str:
    """An interpreter that has Swift: the one of `SWIFT_PYTHON`, or of `.venv-swift`, which is made if it is missing."""
    named = os.environ.get("SWIFT_PYTHON")
    if named:
        return named
    with LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = HOME / "installed"
        if not done.exists() or done.stat().st_mtime < LOCK.stat().st_mtime:
            _install(patience)
            done.touch()
    return str(HOME / "bin" / "python")


def _install(patience: float) -> None:
    python = str(HOME / "bin" / "python")
    install = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--require-hashes", "-r", str(LOCK)]
    for command in ([sys.executable, "-m", "venv", str(HOME)], install):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
        if ended.returncode:
            raise NoSwift(f"no Swift here: set SWIFT_PYTHON, or make .venv-swift work: {ended.stderr[-300:]}")


@cache
def shelf() -> Path:
    """Where boxes are kept: memory first; it has to take the attributes in which Swift keeps what it knows of a file."""
    for place in ("/dev/shm", tempfile.gettempdir()):
        with suppress(OSError), tempfile.TemporaryDirectory(dir=place) as probe:
            os.setxattr(probe, "user.swift.probe", b"x" * 3000)
            return Path(place)
    raise NoSwift("no directory here that takes extended attributes")


def main(devices: str) -> int:
    """Serve until told to stop, and leave nothing behind."""
    if devices not in SHAPES:
        raise NoSwift(f"SHAPE is {' or '.join(SHAPES)} devices")
    if not (HOME / "installed").exists():
        print("installing Swift into .venv-swift", flush=True)
    python, home = swift_python(600), Path(tempfile.mkdtemp(prefix="swift-", dir=shelf()))
    port = str(PORT if port_is_free(PORT) else 0)
    serve = subprocess.Popen([python, "-m", "tests.swiftbox", "serve", str(home / "box"), "--port", port, *SHAPES[devices]], cwd=ROOT)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: serve.send_signal(number))
    try:
        return serve.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:] or ["1"]))
    except NoSwift as why:
        sys.exit(str(why))
