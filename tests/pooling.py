"""Looking at a pool from outside: its processes, and what they are doing; and, as a program, another client of it.

    python -m tests.pooling DIRECTORY [wait | fork | slow SECONDS]

The program renders one picture, prints the SHA-256 of what it got, and stays until its standard input ends. With `wait` it says so and
waits for a line before; with `fork` four children, forked from it afterwards, do the same again at once, and each prints its line; with
`slow` the picture is one that takes long, and the deadline as said.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from imgproxy.grammar import Derived
from imgproxy.limits import Limits
from imgproxy.pool import Pool, PoolPlan
from imgproxy.pool.plan import JOBS, stem
from tests.plain import png


def noise(width: int, height: int) -> bytes:
    """A picture that no format makes small."""
    some = random.Random(1)
    rows = b"".join(b"\0" + some.randbytes(3 * width) for _ in range(height))
    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(rows, 0), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack("!I", len(c) - 4) + c + struct.pack("!I", zlib.crc32(c)) for c in chunks)


ROOT = Path(__file__).parent.parent
LIMITS = Limits(seconds=30.0)
PLAN = PoolPlan(renderers=2, queue=32)
PATIENCE = 30.0

PICTURE = png(300, 200)
SMALL = Derived("5" * 64, "jpg", width=100)

SLOW = Derived("a" * 64, "avif", q=90)
"""Of the large picture, this takes several seconds anywhere."""

Found = TypeVar("Found")


@functools.cache
def large() -> bytes:
    """What takes long."""
    return noise(3000, 2000)


def until(look: Callable[[], Found], seconds: float = 40.0) -> Found:
    """Look again and again, until there is something to see."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.03)
    return found


def small(pool: Pool) -> bytes:
    """One quick job."""
    return pool.render(io.BytesIO(PICTURE), SMALL, None, PATIENCE)


def slow(pool: Pool) -> bytes:
    """One long job."""
    return pool.render(io.BytesIO(large()), SLOW, None, PATIENCE)


class Attempt(threading.Thread):
    """A job done aside: what came of it, a result or an error, is there after `join`."""

    def __init__(self, job: Callable[[Pool], object], pool: Pool) -> None:
        super().__init__()
        self._job = job
        self._pool = pool
        self.outcome: object = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._job(self._pool)
        except Exception as error:
            self.outcome = error

    def result(self) -> object:
        """Wait for it."""
        self.join(60)
        assert not self.is_alive()
        return self.outcome


def keepers(directory: Path) -> list[int]:
    """The processes that keep a pool in that directory."""
    found = [pid for pid in _all() if _keeps(pid, str(directory))]
    return [pid for pid in found if _status(pid, "PPid") not in map(str, found)]


def renderers(directory: Path) -> list[int]:
    """Their children, be they dead and not buried."""
    parents = [str(pid) for pid in keepers(directory)]
    return [pid for pid in _all() if _status(pid, "PPid") in parents]


def ready(pool: Pool, directory: Path, count: int) -> list[int]:
    """Wait until exactly that many renderers have warmed up."""

    def look() -> list[int]:
        found = renderers(directory)
        said = pool._company.ready(time.monotonic() + PATIENCE)
        return found if said == count and found == renderers(directory) and len(found) == count else []

    return until(look)


def busy(directory: Path) -> int:
    """Wait until a renderer is seen at work for long, and return its process id."""
    before: dict[int, float] = {}

    def look() -> int | None:
        now = {pid: cpu_seconds(pid) for pid in renderers(directory)}
        return next((pid for pid, seconds in now.items() if seconds > before.setdefault(pid, seconds) + 0.2), None)

    return until(look) or 0


def waiting(plan: PoolPlan, limits: Limits = LIMITS) -> int:
    """How many jobs of pools of that plan wait for a renderer."""
    door, unaccepted = f"{stem(plan, limits)}.{JOBS}", "02"
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return sum(1 for words in lines if words[-1].endswith(door) and words[5] == unaccepted)


def descriptors(pid: int) -> set[str]:
    """The open descriptors of a process (our own: with the one that looks)."""
    return {entry.name for entry in Path(f"/proc/{pid}/fd").iterdir()}


def cpu_seconds(pid: int) -> float:
    """How long a process has been at work."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def state(pid: int) -> str:
    """One letter: R, S, T (stopped), Z (dead and not buried); nothing if there is no such process."""
    return _status(pid, "State")[:1]


def stopped(pid: int) -> int:
    """Stop a process, and return when it stands still."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) == "T")
    return pid


def client(directory: Path, *words: str) -> subprocess.Popen[str]:
    """Start another process that uses the pool."""
    command = [sys.executable, "-W", "error", "-m", "tests.pooling", str(directory), *words]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    """The next thing that such a process says."""
    assert process.stdout
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    """Give a process that waits the word."""
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> int:
    """Let it go, and return its exit status."""
    process.communicate(timeout=60)
    return process.returncode


def _all() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _keeps(pid: int, directory: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "imgproxy.pool.keeper" in words and directory in words


def _status(pid: int, field: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next(line.split(None, 1)[1] for line in lines if line.startswith(f"{field}:"))


def _main(directory: Path, words: list[str]) -> None:
    pool = Pool(directory, replace(LIMITS, seconds=float(words[1])) if "slow" in words else LIMITS, PLAN)
    if "wait" in words:
        print("waiting", flush=True)
        sys.stdin.readline()
    body = slow(pool) if "slow" in words else small(pool)
    _say(body)
    children = [_forked(pool) for _ in range(4)] if "fork" in words else []
    if children:
        pool.close()
    sys.stdin.read()
    pool.close()
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert "pyvips" not in sys.modules


def _say(body: bytes) -> None:
    # In one piece, whoever else is writing.
    os.write(1, f"{hashlib.sha256(body).hexdigest()}\n".encode())


def _forked(pool: Pool) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _say(small(pool))
        pool.close()
        sys.stdin.read()
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
