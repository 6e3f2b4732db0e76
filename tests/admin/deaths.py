"""Deaths of the processes of a server that is running: which they are, and SIGKILL for some of them at some moment."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.serving import Server

MOMENTS = {
    "": 1.0,
    "POST /admin/images": 0.02,
    "PATCH /admin/images": 0.006,
    "POST /admin/fetch": 0.01,
    "GET /v1/tasks": 0.5,
    "POST /admin/commit": 0.016,
}
"""A death comes within so many seconds after something of this kind was asked, which is about what it takes; or of the beginning."""


def children(pid: int) -> list[int]:
    """The processes that a process has started; none if it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def web_workers(server: Server) -> list[int]:
    """The web workers of a server."""
    return [pid for pid in children(server.process.pid) if not _is_keeper(pid)]


def job_workers(server: Server) -> list[int]:
    """The worker for jobs that is kept beside a server, if it lives just now."""
    return [worker for keeper in keepers(server) for worker in children(keeper)]


def keepers(server: Server) -> list[int]:
    """Who keeps that worker."""
    return [pid for pid in children(server.process.pid) if _is_keeper(pid)]


def _is_keeper(pid: int) -> bool:
    try:
        return b"imgproxy.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _both(server: Server) -> list[int]:
    web, job = web_workers(server), job_workers(server)
    return [*web, *job] if web and job else []


KINDS: dict[str, Callable[[Server], list[int]]] = {
    "a web worker": lambda server: web_workers(server)[:1],
    "all web workers": web_workers,
    "the job worker": job_workers,
    "web and job workers": _both,
}


class Deaths:
    """Kinds of death in an order of chance, each as often as any other; `counted` are those that have come."""

    def __init__(self, luck: random.Random, counted: Counter[str]) -> None:
        self._luck = luck
        self._counted = counted
        self._kinds: list[str] = []
        self._aim = ""
        self._aimed = threading.Event()

    def asked(self, what: str) -> None:
        """Hear what is about to be asked of the server."""
        if what == self._aim:
            self._aimed.set()

    @contextmanager
    def one(self, server: Server) -> Iterator[None]:
        """Let one come at some moment of the block; if the block ends before, none comes."""
        self._kinds = self._kinds or self._luck.sample(list(KINDS), len(KINDS))
        self._aim, self._aimed = self._luck.choice(list(MOMENTS)), threading.Event()
        over, wait = threading.Event(), self._luck.random() * MOMENTS[self._aim]

        def kill() -> None:
            while self._aim and not self._aimed.wait(0.02):
                if over.is_set():
                    return
            if not over.wait(wait) and self._killed(server, over):
                self._counted[self._kinds.pop()] += 1

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _killed(self, server: Server, over: threading.Event) -> bool:
        """Kill whom it is for, as soon as they are there; whether they were."""
        while not (found := KINDS[self._kinds[-1]](server)):
            if over.wait(0.02):
                return False
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True
