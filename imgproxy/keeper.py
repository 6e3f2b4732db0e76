"""Keeps a worker beside a server: starts it, starts it again when it dies, and ends it with the server.

Run as `python -m imgproxy.keeper ADDRESS COMMAND...` by a process that is about to become the server at that address. It loads nothing
of the house. The kernel tells it when the server is gone, and tells the worker when the keeper is; should the keeper be killed, whoever
is its parent by then has another one take its place.

    SIGTERM, SIGINT   the worker is ended, and the keeper with it
    SIGHUP            the worker is ended, and another one begins, with the settings of that moment

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
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from types import FrameType

from imgproxy.knocking import is_well

KEEPER = "_IMGPROXY_KEEPER"
"""The variable by which the server knows its keeper: the process, the words that start it, and when it was told to stop."""

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
    pid = json.loads(environ[KEEPER])[0]
    try:
        buried(environ, *os.waitpid(pid, os.WNOHANG))
    except ChildProcessError:  # somebody else has buried it, and does not know who it was
        buried(environ, pid, signal.SIGKILL)


def buried(environ: MutableMapping[str, str], dead: int, status: int) -> bool:
    """This child has died like this: if it was the keeper, and it was killed, start another; whether that was so."""
    if not environ.get(KEEPER) or not os.WIFSIGNALED(status):
        return False
    pid, words, told = json.loads(environ[KEEPER])
    if dead != pid or told:
        return False
    environ[KEEPER] = _started(words, environ)
    return True


def renew(environ: Mapping[str, str]) -> None:
    """Have the worker that is kept beside this process replaced by one with new settings."""
    if environ.get(KEEPER):
        _signal(json.loads(environ[KEEPER])[0], signal.SIGHUP)


def stop(environ: MutableMapping[str, str]) -> None:
    """Tell the worker that is kept beside this process to end; `end` waits for it."""
    if not environ.get(KEEPER):
        return
    pid, words, told = json.loads(environ[KEEPER])
    if not told:
        environ[KEEPER] = json.dumps([pid, words, time.monotonic()])
        _signal(pid, signal.SIGTERM)


def end(environ: MutableMapping[str, str], grace: float) -> None:
    """End the worker that is kept beside this process, and wait until so many seconds after it was first told."""
    stop(environ)
    said = environ.pop(KEEPER, "")
    if not said:
        return
    pid, _, told = json.loads(said)
    until = told + grace
    with suppress(ProcessLookupError, ChildProcessError):
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)


def unkept(environ: Mapping[str, str]) -> dict[str, str]:
    """The same environment, for a child that is not to be taken for the server."""
    return {name: value for name, value in environ.items() if name != KEEPER}


def _signal(pid: int, number: int) -> None:
    """Send a child that signal; one that is gone is none of ours, and its number may be somebody else's."""
    with suppress(ProcessLookupError, ChildProcessError):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(pid, number)


def _started(words: list[str], environ: Mapping[str, str]) -> str:
    child = subprocess.Popen(words, env=unkept(environ), stdin=subprocess.DEVNULL, preexec_fn=tied(signal.SIGTERM))
    return json.dumps([child.pid, words, 0.0])


def tied(last_word: int) -> Callable[[], None]:
    """What a child does before it is what it is to be: it will get that signal should we be gone, and is nothing if we are by now."""
    libc, us = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        with suppress(AttributeError):
            libc.prctl(_DIE_WITH_PARENT, last_word)
        if os.getppid() != us:
            os._exit(1)

    return tie


class _Keeper:
    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._over = False
        self._renewed = False

    def run(self, address: str, parent: int) -> None:
        """Keep the command running, from when the parent is ready until we are told to stop, or the parent is gone."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._renew)
        self._wait_for(address)
        pause = _FIRST_PAUSE
        while not self._over and os.getppid() == parent:
            began, self._renewed = time.monotonic(), False
            self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, preexec_fn=tied(signal.SIGTERM))
            if self._over or self._renewed:
                self._child.terminate()
            self._child.wait()
            pause = _FIRST_PAUSE if time.monotonic() - began > _LONG_LIFE else min(pause * 2, _LONGEST_PAUSE)
            until = time.monotonic() + pause
            while not (self._over or self._renewed) and time.monotonic() < until:
                time.sleep(0.05)

    def _wait_for(self, address: str) -> None:
        """Wait until the server there is ready; not for ever, since its store may be away for long."""
        until = time.monotonic() + _PATIENCE
        while not self._over and time.monotonic() < until and not is_well(address, "/readyz"):
            time.sleep(0.05)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._over = True
        self._end_child()

    def _renew(self, _number: int, _frame: FrameType | None) -> None:
        self._renewed = True
        self._end_child()

    def _end_child(self) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.terminate()


if __name__ == "__main__":
    _Keeper(sys.argv[2:]).run(sys.argv[1], os.getppid())
