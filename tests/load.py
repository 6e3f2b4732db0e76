"""A steady load of reads and uploads, which knows for each answer whether it is right.

Everything is named by its SHA-256, so a body proves itself. What reads and uploads really do is for the test to say: calls of a store, or
requests over HTTP; and so is what is uploaded, what is asked for of what is known, and whether a body is right. An answer is one of

    right     the bytes of that name
    wrong     other bytes
    absent    "there is no such thing", of a thing that was acknowledged
    failed    an error that was raised
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

Answer = Literal["right", "wrong", "absent", "failed"]
Dice = random.Random
Read = Callable[[str], bytes | None]
Write = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class Event:
    """One request: what it was, how it was answered, when it began and ended by the monotonic clock."""

    verb: Literal["read", "upload"]
    answer: Answer
    began: float
    ended: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a stretch of load came to."""

    events: tuple[Event, ...]

    def count(self, answer: Answer, verb: str = "") -> int:
        return sum(event.answer == answer and verb in ("", event.verb) for event in self.events)

    @property
    def slowest(self) -> float:
        return max((event.ended - event.began for event in self.events), default=0.0)

    @property
    def why(self) -> dict[str, int]:
        """The errors, and how often."""
        return dict(Counter(event.why for event in self.events if event.answer == "failed"))

    def recovery(self, mended: float) -> float:
        """Seconds from `mended` until the last request that did not go right had ended."""
        return max((event.ended - mended for event in self.events if event.answer != "right" and event.ended > mended), default=0.0)

    def since(self, moment: float) -> Tally:
        """Only what began after a moment."""
        return Tally(tuple(event for event in self.events if event.began >= moment))

    def row(self, fault: str, mended: float | None = None) -> str:
        """A line of the table: fault, requests, failures, wrong bytes, false absence, slowest, time to recover."""
        recovered = "-" if mended is None else f"{self.recovery(mended):.2f} s"
        counts = (len(self.events), self.count("failed"), self.count("wrong"), self.count("absent"))
        return f"{fault:44} {counts[0]:8} {counts[1]:8} {counts[2]:6} {counts[3]:7} {self.slowest:7.2f} s {recovered:>9}"


HEADING = f"{'fault':44} {'requests':>8} {'failures':>8} {'wrong':>6} {'absent':>7} {'slowest':>9} {'recovery':>9}"


def proves_itself(name: str, body: bytes) -> bool:
    """Whether these are the bytes of that SHA-256."""
    return hashlib.sha256(body).hexdigest() == name


@dataclass(frozen=True, slots=True)
class Subject:
    """What the load is about: something new to upload, what to ask for of something known, and whether that is what came."""

    new: Callable[[Dice], bytes] = lambda dice: dice.randbytes(dice.choice((2_000, 40_000, 300_000)))
    wanted: Callable[[Dice, str], str] = lambda _dice, name: name
    right: Callable[[str, bytes], bool] = proves_itself


@dataclass
class Load:
    """Threads that read what is known to be there and upload what is new, while the context lasts; it may be entered again."""

    read: Read
    write: Write
    readers: int = 6
    writers: int = 2
    pause: float = 0.005
    subject: Subject = Subject()
    known: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []

    def seed(self, count: int) -> None:
        """Upload so much to begin with, or fail."""
        dice = random.Random(time.monotonic_ns())
        for _ in range(count):
            self._upload(dice)
        assert all(event.answer == "right" for event in self.events), self.events
        self.events.clear()

    def __enter__(self) -> Load:
        self._done.clear()
        self._threads.clear()
        for number in range(self.readers + self.writers):
            turn = self._upload if number < self.writers else self._look
            thread = threading.Thread(target=self._run, args=(turn, random.Random(number + time.monotonic_ns())))
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(60)

    def tally(self) -> Tally:
        """What has come so far."""
        return Tally(tuple(self.events))

    def settle(self, mended: float, quiet: float = 1.0, limit: float = 10.0) -> None:
        """Go on until nothing has gone wrong for so long after a repair, or there is no hope."""
        while time.monotonic() < mended + limit:
            time.sleep(0.1)
            if time.monotonic() > mended + self.tally().recovery(mended) + quiet:
                return

    def check(self, names: Iterable[str]) -> dict[str, tuple[Answer, str]]:
        """Read each of these once, and return those that are not there as they were uploaded, with what was answered."""
        answers = {name: self._answer(name) for name in names}
        return {name: answer for name, answer in answers.items() if answer[0] != "right"}

    def _run(self, turn: Callable[[Dice], None], dice: Dice) -> None:
        while not self._done.wait(self.pause):
            turn(dice)

    def _look(self, dice: Dice) -> None:
        name = self.subject.wanted(dice, dice.choice(self.known))
        began = time.monotonic()
        answer, why = self._answer(name)
        self.events.append(Event("read", answer, began, time.monotonic(), why))

    def _answer(self, name: str) -> tuple[Answer, str]:
        try:
            body = self.read(name)
        except Exception as error:
            return "failed", f"{type(error).__name__}: {error}"
        if body is None:
            return "absent", ""
        return ("right" if self.subject.right(name, body) else "wrong"), ""

    def _upload(self, dice: Dice) -> None:
        body = self.subject.new(dice)
        name = hashlib.sha256(body).hexdigest()
        began = time.monotonic()
        try:
            self.write(name, body)
        except Exception as error:
            self.events.append(Event("upload", "failed", began, time.monotonic(), f"{type(error).__name__}: {error}"))
        else:
            self.events.append(Event("upload", "right", began, time.monotonic()))
            self.known.append(name)
