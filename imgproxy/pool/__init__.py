"""Renders in processes that may die: one set of jailed renderers for a whole host, which every process of it shares.

`Pool` is what a client has: it starts the keeper when nobody keeps yet (`keeper.py`, started by exec, with a clean environment), hands
a job to whichever renderer is free (`renderer.py`), waits no longer than it may, and kills what overruns. The kernel is the queue: a
job is a connection in the backlog of a socket on which all renderers accept. So there is nothing to coordinate, nothing to repair after
a crash, and a full queue refuses at once.

No client ever loads libvips.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from imgproxy.errors import Busy, RendererLost
from imgproxy.grammar import Derived
from imgproxy.limits import Limits
from imgproxy.picture import Facts, Stamp, Study
from imgproxy.pool.answers import raise_refusal, read_abilities, read_facts, read_size, read_study
from imgproxy.pool.company import Company, pause
from imgproxy.pool.lost import Ledger
from imgproxy.pool.plan import PoolPlan
from imgproxy.pool.sources import own_descriptor
from imgproxy.pool.wire import Cut, Head, Wire

__all__ = ["Pool", "PoolPlan"]


class Pool:
    """The renderers of this host, as one of their clients.

    May be used by many threads at once, and by a process that is forked from one that has used it. `patience` is how many seconds a job
    may wait for a renderer (then `Busy`); how long it may take from there is `limits.seconds` (then `RendererLost`).
    """

    def __init__(self, directory: Path, limits: Limits, plan: PoolPlan) -> None:
        self._limits = limits
        self._company = Company(directory, limits, plan)
        self._ledger = Ledger(directory.absolute() / "lost")

    def render(self, source: BinaryIO, name: Derived, stamp: Stamp | None, patience: float) -> bytes:
        """The rendition of that name from all of `source`; an original that has cost too many renderers of late is refused untried."""
        self._ledger.refuse(name.hash)
        mark = None if stamp is None else asdict(stamp.mark)
        sources = [source] if stamp is None else [source, stamp.picture]
        try:
            _, body = self._ask({"verb": "render", "name": str(name), "mark": mark}, sources, patience)
        except RendererLost:
            # When all renderers went with their keeper, it was not this original's fault.
            if self._company.is_kept():
                self._ledger.add(name.hash)
            raise
        return body

    def probe(self, source: BinaryIO, patience: float) -> Facts:
        """What the header of `source` says."""
        head, _ = self._ask({"verb": "probe"}, [source], patience)
        return read_facts(head)

    def study(self, source: BinaryIO, patience: float) -> Study:
        """What a look at `source` finds."""
        head, _ = self._ask({"verb": "study"}, [source], patience)
        return read_study(head)

    def abilities(self, patience: float) -> tuple[frozenset[str], frozenset[str]]:
        """The types that can be read here, and the formats that can be written."""
        head, _ = self._ask({"verb": "abilities"}, [], patience)
        return read_abilities(head)

    def check(self, patience: float = 2.0) -> None:
        """Return if a renderer is there, at work or not, else raise `RendererLost`; never waits in the queue."""
        until = time.monotonic() + patience
        with _reached():
            while not self._company.ready(until):
                if time.monotonic() >= until:
                    raise RendererLost("no renderer is ready")
                time.sleep(0.02)

    def close(self) -> None:
        """Let go: the renderers leave a few seconds after their last client."""
        self._company.leave()

    def _ask(self, ask: Head, sources: Sequence[BinaryIO], patience: float) -> tuple[Head, bytes]:
        """Have a job done; one that is cut off before a renderer took it up, or with all renderers and their keeper, is queued again."""
        until = time.monotonic() + patience
        orphaned = False
        with _reached(), _descriptors(sources, self._limits.file_bytes) as files:
            while True:
                with self._company.connect(until) as wire:
                    renderer = _started(wire, ask, files, until)
                    if renderer is not None:
                        try:
                            return self._result(wire, renderer)
                        except RendererLost:
                            if orphaned or self._company.is_kept():
                                raise
                            orphaned = True
                pause(until)

    def _result(self, wire: Wire, renderer: int) -> tuple[Head, bytes]:
        """The answer of a renderer that has begun, or its end at the deadline."""
        until = time.monotonic() + self._limits.seconds
        try:
            head, _ = wire.hear(until)
            raise_refusal(head)
            return head, wire.take(read_size(head), until)
        except TimeoutError as error:
            _kill(renderer)
            raise RendererLost(f"rendering took longer than {self._limits.seconds:g} seconds") from error
        except Cut as error:
            _kill(renderer)
            raise RendererLost("the renderer died at work") from error
        finally:
            os.close(renderer)


@contextmanager
def _reached() -> Iterator[None]:
    """Turn what the system refuses on the way to a renderer (no descriptor left, no directory, no room) into a lack of capacity."""
    try:
        yield
    except OSError as error:
        raise Busy("no renderer can be reached", 2) from error


@contextmanager
def _descriptors(sources: Sequence[BinaryIO], most: int) -> Iterator[list[int]]:
    with ExitStack() as held:
        files = []
        for source in sources:
            files.append(own_descriptor(source, most))
            held.callback(os.close, files[-1])
        yield files


def _started(wire: Wire, ask: Head, files: list[int], until: float) -> int | None:
    """Queue a job; return a descriptor of the process that has begun it, or None if the connection was lost before one had."""
    try:
        wire.say(ask, *files)
        _, beside = wire.hear(until)
    except TimeoutError as error:
        raise Busy("all renderers are busy", 2) from error
    except Cut:
        return None
    if len(beside) == 1:
        return beside[0]
    for file in beside:
        os.close(file)
    return None


def _kill(renderer: int) -> None:
    with suppress(OSError):
        signal.pidfd_send_signal(renderer, signal.SIGKILL)
