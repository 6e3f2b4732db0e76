"""The write-ahead log on its way into the database, beside everything else.

SQLite would copy it at the end of a commit, at the cost of whoever commits then: after an import that is a gigabyte. Here a thread of its
own does it when the log has become large; readers and writers go on meanwhile, and where several processes would, one does. The log
begins anew when a commit finds that nothing is left to copy: where commits are too quick for that, one of them copies the rest itself.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

LARGE = 2**27
"""A log of so many bytes is copied into the database; until then pages that change often are written there only once."""


class Checkpoint:
    """Keeps the log of one database small; `connect` opens a connection to it."""

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._log = f"{path}-wal"
        self._connect = connect
        self._thread: threading.Thread | None = None
        self._copied = False  # since the log was last small

    def consider(self) -> None:
        """After a commit: begin to copy, if there is much, and nobody of this process does it already."""
        try:
            large = os.stat(self._log).st_size > LARGE  # noqa: PTH116 - at every commit
        except OSError:
            return
        if not large:
            self._copied = False
        elif self._thread is not None and self._thread.is_alive():
            pass
        elif self._copied:
            self._run()
        else:
            self._copied = True
            thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
            with suppress(RuntimeError):  # no thread is to be had: the commit has happened all the same
                thread.start()
                self._thread = thread

    def wait(self) -> None:
        """Return when nothing is being copied."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        # What cannot be copied now, because it is still being read or the disk is in trouble, is copied after a later commit.
        with suppress(sqlite3.Error), closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
