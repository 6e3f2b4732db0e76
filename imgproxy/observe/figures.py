"""The figures for Prometheus, and those of all processes of a node together.

Each process counts in two files of its own, in a directory that `sweep` empties before the first of them starts; `exposition` adds them
up. When a process is gone, `worker_gone` adds what it counted to the files of the departed, so that neither a figure nor the room on the
disk depends on how many there were. Without a `sweep` the figures are those of this process alone.

The files are mapped into memory: a page that the disk has no room for would kill whoever touches it. So their room is taken beforehand.
"""

from __future__ import annotations

import fcntl
import os
import threading
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgproxy.observe import log
from imgproxy.observe.answer import Answer

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client looks, when it is first imported, whether there are other processes: so it is imported late."""

_KINDS = ("counter", "histogram")
_ROOM = 256 * 1024
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


class Figures:
    """What one process counts."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry = CollectorRegistry()
        self._answers = Counter("imgproxy_answers", "Requests answered", ("status", "origin"), registry=self.registry)
        self._seconds = Histogram(
            "imgproxy_answer_seconds", "From request to answer", ("origin",), buckets=_BUCKETS, registry=self.registry
        )
        self._bytes = Counter("imgproxy_sent_bytes", "Bytes of pictures", ("origin",), registry=self.registry)
        self._refusals = Counter("imgproxy_refusals", "Requests that ended in an error", ("error",), registry=self.registry)
        self._troubles = Counter("imgproxy_tier_troubles", "Tiers that failed", ("tier",), registry=self.registry)

    def count(self, answers: Iterable[Answer]) -> None:
        """Count answers, those of a kind together."""
        kinds: dict[tuple[int, str], list[Answer]] = {}
        for answer in answers:
            kinds.setdefault((answer.status, answer.origin), []).append(answer)
            if answer.error or answer.troubles:
                self._count_trouble(answer)
        for (status, origin), alike in kinds.items():
            self._answers.labels(status, origin).inc(len(alike))
            self._bytes.labels(origin).inc(sum(answer.size for answer in alike))
            _observe_all(self._seconds.labels(origin), [answer.seconds for answer in alike])

    def _count_trouble(self, answer: Answer) -> None:
        if answer.error:
            self._refusals.labels(answer.error).inc()
        for tier in answer.troubles:
            self._troubles.labels(tier).inc()


def _observe_all(histogram: Any, values: list[float]) -> None:
    """What `observe` does with each value, done once for a bucket: one by one it is a tenth of what a hit costs."""
    buckets = Counts(bisect_left(histogram._upper_bounds, value) for value in values)  # noqa: SLF001
    histogram._sum.inc(sum(values))  # noqa: SLF001
    for bucket, count in buckets.items():
        histogram._buckets[bucket].inc(count)  # noqa: SLF001


_figures: Figures | None = None
_lock = threading.Lock()


def of_this_process() -> Figures:
    """The figures of this process, made when it first counts."""
    global _figures
    if _figures is None:
        with _lock:
            if _figures is None:
                _take_place(os.getpid())
                _figures = Figures()
    return _figures


def exposition() -> tuple[bytes, str]:
    """All figures as Prometheus reads them, and the media type of that; those of this process alone where the others' are unreadable."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    registry = of_this_process().registry
    directory = os.environ.get(_DIRECTORY)
    if directory:
        try:
            return _of_all_processes(directory), CONTENT_TYPE_LATEST
        except Exception as error:  # files that are gone or garbage raise whatever they like
            log.event("the figures of other processes cannot be read", {"why": repr(error)}, level="warning")
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _of_all_processes(directory: str) -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    together = CollectorRegistry()
    MultiProcessCollector(together, directory)
    with _locked(Path(directory), fcntl.LOCK_SH):
        return generate_latest(together)


def sweep(directory: Path) -> None:
    """Begin the figures of a node in `directory`: forget those of an earlier life; before any process counts."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in directory.glob("*.db"):
            file.unlink(missing_ok=True)
    except OSError as error:
        log.event("each process keeps its figures for itself", {"why": str(error)}, level="warning")
        return
    os.environ[_DIRECTORY] = str(directory)
    _take_place("gone")


def worker_gone(pid: int) -> None:
    """Add what a process counted to the figures of the departed; for whoever sees it die, and is never hurt by what it left."""
    directory = Path(os.environ.get(_DIRECTORY, ""))
    left = [file for kind in _KINDS if (file := directory / f"{kind}_{pid}.db").exists()]
    if not left:
        return
    try:
        with _locked(directory, fcntl.LOCK_EX):
            for file in left:
                _inherit(file, directory / f"{file.name.partition('_')[0]}_gone.db")
    except OSError as error:
        log.event("the figures of a process that is gone are lost", {"why": str(error)}, level="warning")


def _inherit(file: Path, total: Path) -> None:
    try:
        _add(file, total)
    except Exception as error:  # a file that is garbage raises whatever it likes, and must not stay to be read by others
        log.event("the figures of a process that is gone are lost", {"why": repr(error)}, level="warning")
    file.unlink()


def _add(file: Path, total: Path) -> None:
    from prometheus_client.mmap_dict import MmapedDict

    sums = MmapedDict(str(total))
    for key, value, when, _ in MmapedDict.read_all_values_from_file(str(file)):
        sums.write_value(key, sums.read_value(key)[0] + value, when)
    sums.close()


def _take_place(whose: int | str) -> None:
    directory = os.environ.get(_DIRECTORY)
    if not directory:
        return
    try:
        Path(directory).mkdir(parents=True, exist_ok=True, mode=0o700)  # it may have been removed under a server that goes on
        for kind in _KINDS:
            with (Path(directory) / f"{kind}_{whose}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _ROOM)
    except OSError as error:
        del os.environ[_DIRECTORY]
        log.event("each process keeps its figures for itself", {"why": str(error)}, level="warning")


@contextmanager
def _locked(directory: Path, how: int) -> Iterator[None]:
    """So that nobody adds up while a file is being added to the departed, and counts it twice or not at all."""
    with (directory / "lock").open("ab") as file:
        fcntl.flock(file, how)
        yield
