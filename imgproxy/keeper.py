"""Keeps a worker beside a server: starts it, starts it again when it dies, and ends it with the server.

Run as `python -m imgproxy.keeper ADDRESS COMMAND...` by a process that is about to become the server at that address. It loads nothing
of the house. The kernel tells it when the server is gone, and tells the worker when the keeper is; should the keeper be killed, whoever
is its parent by then has another one take its place.

The worker begins when the server is ready: what nobody waits for does not take the processors from what everybody waits for.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from types import FrameType

from imgproxy.knocking import is_well

KEEPER = "_IMGPROXY_KEEPER"
"""The variable by which the server knows its keeper: the process, and the words that start it."""

_DIE_WITH_PARENT = 1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_LONG_LIFE = 60.0
_PATIENCE = 15.0


def start(command: Sequence[str], address: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Have a worker kept beside this process, which serves at that address; the environment to go on with."""
    return {**environ, KEEPER: _started([sys.executable, "-P", "-m", "imgproxy.keeper", address, *command], environ)}


def mind(environ: MutableMapping[str, str]) -> None:
    """A child has died, whichever: if it was the keeper, and it was killed, start another."""
    if not environ.get(KEEPER):
        return
    pid, _ = json.loads(environ[KEEPER])
    try:
        buried(environ, *os.waitpid(pid, os.WNOHANG))
    except ChildProcessError:  # somebody else has buried it, and does not know who it was
        buried(environ, pid, signal.SIGKILL)


def buried(environ: MutableMapping[str, str], dead: int, status: int) -> bool:
    """This child has died like this: if it was the keeper, and it was killed, start another; whether that was so."""
    if not environ.get(KEEPER) or not os.WIFSIGNALED(status):
        return False
    pid, words = json.loads(environ[KEEPER])
    if dead != pid:
        return False
    environ[KEEPER] = _started(words, environ)
    return True


def end(environ: MutableMapping[str, str], grace: float) -> None:
    """End the worker that is kept beside this process, and wait for it."""
    said = environ.pop(KEEPER, "")
    if not said:
        return
    pid, until = json.loads(said)[0], time.monotonic() + grace
    with suppress(ProcessLookupError, ChildProcessError):
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return
        os.kill(pid, signal.SIGTERM)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)


def unkept(environ: Mapping[str, str]) -> dict[str, str]:
    """The same environment, for a child that is not to be taken for the server."""
    return {name: value for name, value in environ.items() if name != KEEPER}


def _started(words: list[str], environ: Mapping[str, str]) -> str:
    return json.dumps([subprocess.Popen(words, env=unkept(environ), stdin=subprocess.DEVNULL).pid, words])


class _Keeper:
    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._over = False

    def run(self, address: str, parent: int) -> None:
        """Keep the command running, from when the parent is ready until we are told to stop, or the parent is gone."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        _die_with_parent()
        self._wait_for(address)
        pause = _FIRST_PAUSE
        while not self._over and os.getppid() == parent:
            began = time.monotonic()
            self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
            if self._over:
                self._child.terminate()
            self._child.wait()
            pause = _FIRST_PAUSE if time.monotonic() - began > _LONG_LIFE else min(pause * 2, _LONGEST_PAUSE)
            until = time.monotonic() + pause
            while not self._over and time.monotonic() < until:
                time.sleep(0.05)

    def _wait_for(self, address: str) -> None:
        """Wait until the server there is ready; not for ever, since its store may be away for long."""
        until = time.monotonic() + _PATIENCE
        while not self._over and time.monotonic() < until and not is_well(address, "/readyz"):
            time.sleep(0.05)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._over = True
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.terminate()


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


if __name__ == "__main__":
    _Keeper(sys.argv[2:]).run(sys.argv[1], os.getppid())
