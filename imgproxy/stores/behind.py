"""Written behind: a tier that takes at once, and hands on to a slower one when nobody waits.

What waits is bounded in bytes. When that is not enough, a write is dropped and the caller told (`StoreFull`): a tier may forget.
What waits can be read. A process that dies takes what waited with it; `close` waits for it a moment. What another process has forgotten
meanwhile is not left there.
"""

from __future__ import annotations

import atexit
import io
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from imgproxy.errors import StoreFull, StoreTrouble
from imgproxy.stores import Blob, Item, Store, checked_key, sweep, whole

_PATIENCE = 5.0
"""So many seconds `close` waits for what is still to be written."""
_AFTER_YOU = 0.01
"""What came just now waits so many seconds: whoever brought it has an answer to send first."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    data: bytes
    type: str
    note: Mapping[str, str]
    since: float
    mark: bytes

    def item(self, key: str) -> Item:
        return Item(key, len(self.data), self.type, self.note, self.since)


class Behind:
    """A tier whose puts go to `store` by a thread of their own; `lost` is told of each that failed there.

    `mark` says of a key what changes when something of that name is forgotten, by whichever process.
    """

    def __init__(self, store: Store, room: int, lost: Callable[[str, StoreTrouble], None], mark: Callable[[str], bytes]) -> None:
        self._store = store
        self._room = room
        self._lost = lost
        self._mark = mark
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._held = 0
        self._closed = False
        self._writing = ""
        self._thread: tuple[int, threading.Thread] | None = None

    def get(self, key: str, *, fresh: bool = False) -> Blob | None:
        """What waits, or else what the store has."""
        with self._changed:
            waiting = self._waiting.get(checked_key(key))
        if waiting is not None:
            return Blob(waiting.item(key), io.BytesIO(waiting.data))
        return self._store.get(key, fresh=fresh)

    def head(self, key: str, *, fresh: bool = False) -> Item | None:
        """What is said of what waits, or else of what the store has."""
        with self._changed:
            waiting = self._waiting.get(checked_key(key))
        if waiting is not None:
            return waiting.item(key)
        return self._store.head(key, fresh=fresh)

    def put(self, key: str, source: BinaryIO, *, type: str = "", note: Mapping[str, str] | None = None, create: bool = False) -> bool:
        """Take it if there is room."""
        mark = self._mark(checked_key(key))
        if create and self.head(key) is not None:
            return False
        data = whole(source)
        with self._changed:
            if self._held + len(data) > self._room:
                raise StoreFull("too much waits to be written")
            self._drop(key)
            self._waiting[key] = _Waiting(data, type, dict(note or {}), time.time(), mark)
            self._held += len(data)
            self._start()
            self._changed.notify_all()
        return True

    def delete(self, key: str) -> bool:
        """Remove it, here and there."""
        checked_key(key)
        with self._changed:
            waited = self._drop(key)
            self._changed.wait_for(lambda: self._writing != key)
        return self._store.delete(key) or waited

    def delete_prefix(self, prefix: str) -> int:
        """Remove what begins with `prefix`, here and there."""
        with self._changed:
            for key in [key for key in self._waiting if key.startswith(prefix)]:
                self._drop(key)
            self._changed.wait_for(lambda: not self._writing.startswith(prefix))
        return sweep(self._store, prefix)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Item]:
        """What the store has: what waits is not yet there."""
        self.flush(_PATIENCE)
        return self._store.list(prefix, after)

    def check(self) -> None:
        """As the store has it."""
        self._store.check()

    def flush(self, patience: float) -> bool:
        """Wait until nothing waits; False if that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, patience)

    def close(self) -> None:
        """Write what waits, within a moment, and close the store."""
        self.flush(_PATIENCE)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._store.close()

    def _drop(self, key: str) -> bool:
        dropped = self._waiting.pop(key, None)
        if dropped is not None:
            self._held -= len(dropped.data)
        return dropped is not None

    def _start(self) -> None:
        """Have a thread in this process: one that was there before a fork is not here."""
        if self._thread is None or self._thread[0] != os.getpid():
            thread = threading.Thread(target=self._write, name="behind", daemon=True)
            self._thread = (os.getpid(), thread)
            thread.start()
            atexit.register(self.flush, _PATIENCE)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                key, waiting = next(iter(self._waiting.items()))
                self._writing = key
            time.sleep(min(_AFTER_YOU, max(0.0, waiting.since + _AFTER_YOU - time.time())))
            try:
                try:
                    self._store.put(key, io.BytesIO(waiting.data), type=waiting.type, note=waiting.note)
                finally:  # a store may have taken what it did not answer
                    if self._mark(key) != waiting.mark:
                        self._store.delete(key)
            except StoreTrouble as error:
                self._lost(key, error)
                time.sleep(0.05)  # a store in trouble is not helped by haste
            with self._changed:
                self._writing = ""
                if self._waiting.get(key) is waiting:
                    self._drop(key)
                self._changed.notify_all()
