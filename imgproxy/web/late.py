"""What takes its time to be there: a database that comes out of the store first. Whoever asks too early is told to come again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from imgproxy import observe
from imgproxy.errors import Busy, Error

Thing = TypeVar("Thing")

_PATIENCE = 10.0
_LONGEST_PAUSE = 30.0


class Late(Generic[Thing]):
    """A thing that is made by a thread of its own, again and again until that succeeds."""

    def __init__(self, make: Callable[[], Thing], what: str) -> None:
        self._make = make
        self._what = what
        self._settled = threading.Event()
        self._stopped = threading.Event()
        self._thing: Thing | None = None
        self._why = ""
        self._heirs: list[Callable[[Thing], object]] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to make it."""
        threading.Thread(target=self._run, name=self._what, daemon=True).start()

    def get(self) -> Thing:
        """It, if it is there within some seconds; else raise `Busy`, with what keeps it."""
        self._settled.wait(_PATIENCE)
        if self._thing is None:
            raise Busy(f"{self._what} cannot be used yet" + (f": {self._why}" if self._why else ""), retry_after=5)
        return self._thing

    def then(self, heir: Callable[[Thing], object]) -> None:
        """Have a call made with it once it is there."""
        with self._lock:
            if self._thing is None:
                self._heirs.append(heir)
                return
        heir(self._thing)

    def stop(self) -> None:
        """Give up."""
        self._stopped.set()

    def _run(self) -> None:
        pause = 0.5
        while not self._stopped.is_set():
            try:
                thing = self._make()
            except Error as error:
                self._why = str(error)
                observe.event(f"{self._what} cannot be used yet", {"why": self._why}, level="warning")
            except Exception as error:
                self._why = "a mistake of ours"
                observe.surprised(error)
            else:
                self._hand_over(thing)
                return
            self._settled.set()
            self._stopped.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _hand_over(self, thing: Thing) -> None:
        with self._lock:
            self._thing, heirs = thing, self._heirs
        self._settled.set()
        for heir in heirs:
            heir(thing)
