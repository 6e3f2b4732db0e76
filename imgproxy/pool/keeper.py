"""The keeper: one process per pool, which forks renderers, replaces the dead, and leaves when nobody needs it any more.

    python -P -m imgproxy.pool.keeper <directory> <stem> <plan and limits>

It loads libvips and never uses it: a process that has can no longer be forked (libvips' threads do not follow), one that has not is a
clean state that a renderer starts from in milliseconds. The job queue is the backlog of a listening socket that it shares with its
renderers; it never touches a job itself. Its own door is for lifelines: every client process holds one, and a few seconds after
the last has been let go it leaves, and its renderers with it.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from imgproxy.limits import Limits
from imgproxy.pool import renderer
from imgproxy.pool.plan import JOBS, LIFE, PoolPlan, read

LINGER = 3.0
"""So many seconds the keeper stays after its last client."""

_TICK = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_MOST_SAID = 16 * 1024
_LARGEST_LOG = 2**20
_THREADS = Path("/proc/self/task")
_DESCRIPTORS = Path("/proc/self/fd")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Child:
    """A renderer as its keeper sees it: a process, and the pipe that is its standard error."""

    pid: int
    pipe: int
    ready: bool = False
    said: bytes = b""


class Keeper:
    """Keeps as many renderers alive as the plan says, for as long as somebody holds a lifeline."""

    def __init__(self, jobs: socket.socket, life: socket.socket, plan: PoolPlan, limits: Limits) -> None:
        self._jobs = jobs
        self._life = life
        self._plan = plan
        self._limits = limits
        self._children: dict[int, Child] = {}
        self._lifelines: set[socket.socket] = set()
        self._linger = LINGER
        self._last_seen = time.monotonic()
        self._failures = 0
        self._pause_until = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(life, selectors.EVENT_READ, self._welcome)

    def run(self) -> None:
        """Keep, until nobody needs it any more."""
        signal.signal(signal.SIGTERM, self._hurry)
        while self._lifelines or time.monotonic() - self._last_seen < self._linger:
            self._fill()
            for key, _ in self._selector.select(_TICK if self._failures == 0 else _FIRST_PAUSE):
                key.data(key.fileobj)

    def _hurry(self, _number: int, _frame: object) -> None:
        """On SIGTERM: the clients get the same signal and finish what they have in hand; leave with the last of them."""
        self._linger = 0.0

    def _fill(self) -> None:
        while len(self._children) < self._plan.renderers and time.monotonic() >= self._pause_until:
            self._fork()

    def _fork(self) -> None:
        threads = len(list(_THREADS.iterdir()))
        if threads != 1:
            raise SystemExit(f"the keeper has {threads} threads and cannot be forked")
        keeper = os.getpid()
        ears, mouth = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(ears)
            os.close(mouth)
            _log(f"no renderer can be forked: {error}")
            self._wait_longer()
            return
        if pid == 0:
            self._become_renderer(mouth, keeper)
        os.close(mouth)
        child = Child(pid, ears)
        self._children[pid] = child
        self._selector.register(ears, selectors.EVENT_READ, lambda _: self._listen(child))

    def _become_renderer(self, mouth: int, keeper: int) -> NoReturn:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == keeper:
            os.dup2(mouth, 2)
            _close_all_but(0, 1, 2, self._jobs.fileno())
            renderer.run(self._jobs, self._limits, self._plan)
        os._exit(1)

    def _listen(self, child: Child) -> None:
        """A renderer has said that it is ready, or something to write down, or has died."""
        said = os.read(child.pipe, 4096)
        if not said:
            self._bury(child)
            return
        if renderer.READY in said and not child.ready:
            child.ready = True
            self._failures = 0
        child.said = (child.said + said.replace(renderer.READY, b""))[-_MOST_SAID:]

    def _bury(self, child: Child) -> None:
        self._selector.unregister(child.pipe)
        os.close(child.pipe)
        del self._children[child.pid]
        os.kill(child.pid, signal.SIGKILL)
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            _log(f"renderer {child.pid} ended with {code}\n{child.said.decode(errors='replace')}")
        if not child.ready:
            self._wait_longer()

    def _wait_longer(self) -> None:
        """Another renderer that never became ready: pause before the next, longer each time in a row."""
        self._failures = min(self._failures + 1, 10)
        self._pause_until = time.monotonic() + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._failures)

    def _welcome(self, _door: object) -> None:
        try:
            lifeline, _ = self._life.accept()
        except OSError:
            return  # it has hung up already
        lifeline.setblocking(False)
        self._lifelines.add(lifeline)
        self._selector.register(lifeline, selectors.EVENT_READ, self._ask)

    def _ask(self, lifeline: socket.socket) -> None:
        """A client asks how many renderers are ready, or has let go."""
        try:
            if lifeline.recv(64):
                lifeline.send(b"%d\n" % sum(child.ready for child in self._children.values()))
                return
        except OSError:
            pass
        self._selector.unregister(lifeline)
        self._lifelines.discard(lifeline)
        lifeline.close()
        self._last_seen = time.monotonic()


def _close_all_but(*kept: int) -> None:
    # One by one as they are: to count up to the limit may take minutes where the limit is high.
    for number in [int(entry.name) for entry in _DESCRIPTORS.iterdir()]:
        if number not in kept:
            with suppress(OSError):
                os.close(number)


def _log(text: str) -> None:
    """Write down what happened, in a log that cannot grow for ever."""
    if os.fstat(2).st_size > _LARGEST_LOG:
        os.ftruncate(2, 0)
    lines = [f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n" for line in text.splitlines()]
    os.write(2, "".join(lines).encode())


class Door:
    """A listening socket with a name in the directory, which is free again when the keeper leaves."""

    def __init__(self, folder: int, name: str, backlog: int) -> None:
        self._folder = folder
        self._name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._unlink()
        # A path by way of the descriptor is always short enough.
        self.socket.bind(f"/proc/self/fd/{folder}/{name}")
        self._number = self._inode()
        self.socket.listen(backlog)

    def _inode(self) -> int:
        return os.stat(self._name, dir_fd=self._folder).st_ino

    def _unlink(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)

    def leave(self) -> None:
        """Take the name away, unless it is another's by now."""
        with suppress(FileNotFoundError):
            if self._inode() == self._number:
                self._unlink()
        self.socket.close()


def main(directory: str, stem: str, plan: PoolPlan, limits: Limits) -> None:
    """Listen, go into the background (who started this knows then that it listens), and keep."""
    os.umask(0o077)
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    log = os.open("pool.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600, dir_fd=folder)
    # The kernel lets one more wait than it is told.
    jobs = Door(folder, f"{stem}.{JOBS}", plan.queue - 1)
    life = Door(folder, f"{stem}.{LIFE}", 1024)
    life.socket.setblocking(False)
    if os.fork():
        os._exit(0)
    # Who holds the starter's standard error would wait for its end as long as this process lives.
    os.dup2(log, 2)
    os.close(log)
    try:
        Keeper(jobs.socket, life.socket, plan, limits).run()
    finally:
        jobs.leave()
        life.leave()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *read(sys.argv[3]))
