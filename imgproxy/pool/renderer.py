"""A renderer: one disposable process, jailed, that takes a job at a time from the queue and knows nothing but what came with it.

It is forked by the keeper, which has loaded libvips but never used it, and lives until it is recycled, killed, or crashes. Whatever
happens to it happens to one job.
"""

from __future__ import annotations

import ctypes
import io
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from imgproxy import errors, grammar, render
from imgproxy.limits import Limits
from imgproxy.picture import Mark, Stamp
from imgproxy.pool.answers import is_loss, write_abilities, write_facts, write_refusal, write_size, write_study
from imgproxy.pool.plan import PoolPlan
from imgproxy.pool.wire import Cut, Head, Wire, same_user
from imgproxy.vips.tiny import TINY

READY = b"\0"
"""What a renderer writes to its standard error, which the keeper reads, when it is ready for its first job."""

BELT = 2.0
"""So long after the deadline a renderer ends itself, should nobody be left to kill it."""

_HEAD_SECONDS = 2.0
_OUT_OF_MEMORY_FIRST = 500
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_PURGE_ALL_ARENAS = b"arena.4096.purge"
_LIBC = ctypes.CDLL(None, use_errno=True)


class Renderer:
    """Takes jobs from `door` until it has done its share, or has grown too large."""

    def __init__(self, door: socket.socket, limits: Limits, plan: PoolPlan) -> None:
        self._door = door
        self._limits = limits
        self._plan = plan
        self._served = 0
        # Both are opened before the jail closes; the first is what a client ends this very process by, whoever has its number.
        self._self = os.pidfd_open(os.getpid())
        self._memory = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def live(self) -> int:
        """Serve, and return the exit status."""
        _jail(self._plan)
        _warm_up(self._limits)
        os.write(2, READY)
        while self._served < self._plan.renders and not self._is_too_large():
            if not self._next():
                return 1
        return 0

    def _next(self) -> bool:
        """Wait for a connection and serve it; False if this process had better not serve another."""
        connection, _ = self._door.accept()
        with Wire(connection) as wire, ExitStack() as held:
            if not same_user(connection):
                return True
            try:
                ask, numbers = wire.hear(time.monotonic() + _HEAD_SECONDS)
                files: list[BinaryIO] = [held.enter_context(os.fdopen(number, "rb")) for number in numbers]
                return self._serve(wire, ask, files)
            except (Cut, TimeoutError):
                return True
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _serve(self, wire: Wire, ask: Head, files: list[BinaryIO]) -> bool:
        # The default action of SIGALRM is the end, wherever in libvips the process may be.
        signal.setitimer(signal.ITIMER_REAL, self._limits.seconds + BELT)
        # Fails if the client has given up meanwhile: nothing is rendered for nobody.
        wire.say({"started": os.getpid()}, self._self)
        self._served += 1
        head, body = self._answer(ask, files)
        with suppress(Cut):  # whoever hangs up early: a renderer that is good for nothing is so all the same
            wire.say(head)
            wire.pour(body)
            # The client may be about to kill this process for being late: so long as it has not hung up, no other job is taken.
            wire.wait_for_end()
        return not is_loss(head)

    def _answer(self, ask: Head, files: list[BinaryIO]) -> tuple[Head, bytes]:
        try:
            return _VERBS[ask["verb"]](ask, files, self._limits)
        except errors.Error as error:
            return write_refusal(error), b""
        except Exception:
            traceback.print_exc()
            return write_refusal(errors.RendererLost("the renderer failed in an unforeseen way")), b""

    def _is_too_large(self) -> bool:
        if self._resident() > self._plan.resident:
            _give_back()
        return self._served > 0 and self._resident() > self._plan.resident

    def _resident(self) -> int:
        return int(os.pread(self._memory, 128, 0).split()[1]) * resource.getpagesize()


def _render(ask: Head, files: list[BinaryIO], limits: Limits) -> tuple[Head, bytes]:
    name = grammar.parse(ask["name"])
    if not isinstance(name, grammar.Derived):
        raise errors.Impossible("an original is not rendered")
    stamp = None if ask["mark"] is None else Stamp(Mark(**ask["mark"]), files[1])
    body = render.render(files[0], name, limits, stamp)
    return write_size(body), body


def _probe(_ask: Head, files: list[BinaryIO], limits: Limits) -> tuple[Head, bytes]:
    return write_facts(render.probe(files[0], limits)), b""


def _study(_ask: Head, files: list[BinaryIO], limits: Limits) -> tuple[Head, bytes]:
    return write_study(render.study(files[0], limits)), b""


def _abilities(_ask: Head, _files: list[BinaryIO], _limits: Limits) -> tuple[Head, bytes]:
    return write_abilities(render.abilities()), b""


_VERBS: dict[str, Callable[[Head, list[BinaryIO], Limits], tuple[Head, bytes]]] = {
    "render": _render,
    "probe": _probe,
    "study": _study,
    "abilities": _abilities,
}


def _jail(plan: PoolPlan) -> None:
    """Give up all that rendering does not need; the one place where this is done, and where a filter of system calls belongs."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Path("/proc/self/oom_score_adj").write_text(str(_OUT_OF_MEMORY_FIRST))
    for limit, most in (
        (resource.RLIMIT_AS, plan.memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _warm_up(limits: Limits) -> None:
    """Try every type and format, and render a tiny picture: what is set up at the first use is set up before the first job."""
    render.abilities()
    render.render(io.BytesIO(TINY["jpg"]), grammar.Derived("0" * 64, "jpg", width=4, height=4), limits, None)


def _give_back() -> None:
    """Hand memory that is held but free back to the system."""
    if hasattr(_LIBC, "mallctl"):
        _LIBC.mallctl(_PURGE_ALL_ARENAS, None, None, None, 0)
    else:
        _LIBC.malloc_trim(0)


def run(door: socket.socket, limits: Limits, plan: PoolPlan) -> None:
    """Be a renderer in this process, to its end."""
    status = 1
    try:
        status = Renderer(door, limits, plan).live()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
