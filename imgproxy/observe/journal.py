"""What became of requests, written down a moment later, many at once, by a thread of its own.

So a request costs an `append`, the lines of many go out together, and many answers of a kind are one sum. A process that is killed takes
the last moment with it. What waits is bounded: where the log cannot be written for long, the oldest entries are lost, and no request.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from imgproxy.observe import log

Entry = TypeVar("Entry")

MOMENT = 0.05
"""So many seconds an entry waits at most, while the machine keeps up."""

_MOST = 20_000


class Journal(Generic[Entry]):
    """Entries on their way to `write`."""

    def __init__(self, write: Callable[[list[Entry]], None]) -> None:
        self._write = write
        self._entries: deque[Entry] = deque(maxlen=_MOST)
        self._thread = 0
        self._begin()
        atexit.register(self.flush)
        os.register_at_fork(after_in_child=self._begin)

    def add(self, entry: Entry) -> None:
        """Have an entry written within a moment."""
        self._entries.append(entry)
        if not self._waiting.is_set():
            self._waiting.set()
            if not self._thread:
                self._start()

    def flush(self) -> None:
        """Write all that waits."""
        with self._writing:
            entries = [self._entries.popleft() for _ in range(len(self._entries))]
            if entries:
                self._write(entries)

    def _begin(self) -> None:
        """Begin with nothing, also in a child: what waited is the parent's to write, and its thread is not here."""
        self._entries.clear()
        self._thread = 0
        self._writing = threading.Lock()
        self._waiting = threading.Event()

    def _start(self) -> None:
        with self._writing:
            if not self._thread:
                self._thread = 1
                threading.Thread(target=self._run, name="journal", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._waiting.wait()
            time.sleep(MOMENT)
            self._waiting.clear()
            try:
                self.flush()
            except Exception as error:  # what follows is still to be written
                log.surprised(error)
