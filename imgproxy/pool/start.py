"""Starting a keeper: exactly one, however many processes find at once that there is none."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgproxy.errors import RendererLost

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONHOME")
_SECONDS = 30.0
_ALLOCATOR = "libjemalloc.so.2"
_ALLOCATOR_HOMES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", f"/usr/lib/{os.uname().machine}-linux-gnu")
# Huge pages where the system has them on request, and what is large goes back after seconds, not at once: the next picture wants it again.
_ALLOCATOR_HABITS = "narenas:2,dirty_decay_ms:5000,muzzy_decay_ms:0,thp:always,oversize_threshold:0"


def start_keeper(directory: Path, stem: str, plan: str) -> None:
    """Start a keeper of that plan (as it is written) for that directory, and return when it listens."""
    command = [sys.executable, "-P", "-m", "imgproxy.pool.keeper", str(directory), stem, plan]
    try:
        done = subprocess.run(
            command,
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RendererLost("no render process can be started") from error
    if done.returncode:
        raise RendererLost("no render process can be started")


def environment() -> dict[str, str]:
    """All that a keeper may know of our environment: nothing that holds a secret, and what makes libvips modest."""
    ours = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    package = str(Path(__file__).parent.parent.parent)
    others = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    ours |= {
        "PYTHONPATH": os.pathsep.join([package, *others]),
        "VIPS_CONCURRENCY": "1",
        "VIPS_DISC_THRESHOLD": "64g",  # a renderer may write no file
        "MALLOC_ARENA_MAX": "2",
    }
    allocator = next((str(path) for home in _ALLOCATOR_HOMES if (path := Path(home, _ALLOCATOR)).exists()), None)
    return ours if allocator is None else ours | {"LD_PRELOAD": allocator, "MALLOC_CONF": _ALLOCATOR_HABITS}


@contextmanager
def only_starter(folder: int, name: str) -> Iterator[bool]:
    """Try to become the only process that starts a keeper just now: True, until the end of the block, for one of all who try."""
    lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        yield False
        return
    try:
        yield True
    finally:
        # Said aloud: a process forked meanwhile by another thread has a copy of the descriptor, and would hold the lock on.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
