"""The company of renderers seen from outside: finding their keeper, holding on to it, starting it where there is none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgproxy.errors import Busy, RendererLost
from imgproxy.limits import Limits
from imgproxy.pool.plan import JOBS, LIFE, PoolPlan, stem, written
from imgproxy.pool.start import only_starter, start_keeper
from imgproxy.pool.wire import Wire, hung_up, same_user

_PAUSE = 0.01


class Company:
    """One pool's sockets in one directory; one lifeline for each process that uses it."""

    def __init__(self, directory: Path, limits: Limits, plan: PoolPlan) -> None:
        self._directory = directory.absolute()
        self._written = written(plan, limits)
        self._stem = stem(plan, limits)
        # By process: a forked child may not take its parent's for its own. No lock, which a fork might find locked for ever.
        self._lifelines: dict[int, socket.socket] = {}

    def connect(self, until: float) -> Wire:
        """A place in the queue."""
        while True:
            self._hold_on(until)
            connection = self._reach(JOBS)
            if connection is not None:
                return Wire(connection)
            self.leave()  # what it holds on to may live, but nobody finds it any more: there must be another
            pause(until)

    def ready(self, until: float) -> int:
        """How many renderers are ready, by their keeper's word."""
        self._hold_on(until)
        connection = self._reach(LIFE)
        if connection is None:
            self.leave()
            return 0
        with connection:
            connection.settimeout(max(0.001, until - time.monotonic()))
            try:
                connection.send(b"?")
                return int(connection.recv(16))
            except (OSError, ValueError):
                return 0

    def is_kept(self) -> bool:
        """Is the keeper that this process holds on to still there?"""
        line = self._lifelines.get(os.getpid())
        return line is not None and not hung_up(line)

    def leave(self) -> None:
        """Let go of the keeper (and, in a forked process, of what was its parent's)."""
        for process in list(self._lifelines):
            line = self._lifelines.pop(process, None)
            if line is not None:
                line.close()

    def _hold_on(self, until: float) -> None:
        """Hold a lifeline, and before that start a keeper if there is none."""
        while not self._holds():
            with self._folder() as folder, only_starter(folder, "pool.lock") as starter:
                if starter and not self._holds():
                    start_keeper(self._directory, self._stem, self._written)
            if not self._holds():
                pause(until)

    def _holds(self) -> bool:
        if self.is_kept():
            return True
        self.leave()
        line = self._reach(LIFE)
        if line is None:
            return False
        if self._lifelines.setdefault(os.getpid(), line) is not line:
            line.close()  # another thread was faster
        return True

    def _reach(self, door: str) -> socket.socket | None:
        """A connection to whoever listens at that door, or None."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            with self._folder() as folder:
                # A path by way of the descriptor is always short enough.
                connection.connect(f"/proc/self/fd/{folder}/{self._stem}.{door}")
            if not same_user(connection):
                raise PermissionError
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except BlockingIOError as error:
            connection.close()
            raise Busy("too many renders are waiting") from error
        except PermissionError as error:
            connection.close()
            raise RendererLost("the renderers of this directory belong to another user") from error
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _folder(self) -> Iterator[int]:
        try:
            folder = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(folder)


def pause(until: float) -> None:
    """Wait a little before the next try, or raise `Busy` when patience is at its end."""
    if time.monotonic() >= until:
        raise Busy("no renderer can be had", 2)
    time.sleep(_PAUSE)
