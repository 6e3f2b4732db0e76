"""Purges: what is deleted here is to be forgotten by the caches of others, and they are told until they have heard it.

    <folder>/<hash>   to be told; its time of change is when it is due; in it are a point for each time that failed, and the caches that
                      have heard it, a word for each

- A file is there before a deletion counts as done, so that no crash forgets it. Whoever runs next goes on with what is left.
- The first time is a little after the deletion: by then nobody has the picture any more who could give it to such a cache anew. For the
  same reason every node tells, when it has forgotten by itself: the last one to forget is the last one to tell.
- One process of a node tells at a time, in a thread that is there only while there is something to tell.
- Who does not answer is not asked again in the same round: one that hangs holds up neither the others nor the end of a command.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from imgproxy.errors import TooMuch

if TYPE_CHECKING:
    from imgproxy.calls import Request

SETTLED = 2.0
"""So many seconds after a deletion nobody of this node gives the picture any more: nginx holds files open for one."""

_LONGEST_PAUSE = 900.0
_TROUBLED_PAUSE = 30.0
_TRIES = 700  # about a week
_WELL = frozenset((*range(200, 300), 404, 410))
_MOST = 65_536


@dataclass(frozen=True, slots=True)
class Hook:
    """A request that makes a cache forget: `{hash}` in its URL, its headers or its body is the original's."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    @property
    def word(self) -> str:
        """What stands for this cache where it is noted that it has heard something."""
        return sha256(f"{self.method} {self.url}".encode()).hexdigest()[:16]

    def request(self, hash: str) -> Request:
        """The request for one original."""
        from imgproxy.calls import Request  # nobody waits for a client of HTTP who has nothing to tell

        headers = {name: _filled(value, hash) for name, value in self.headers.items()}
        return Request(
            self.method, _filled(self.url, hash), headers, _filled(self.body, hash).encode() or None, until=time.monotonic() + 10
        )


def _filled(text: str, hash: str) -> str:
    return text.replace("{hash}", hash)


Told = Callable[[str, str], object]
"""Hears of each failure: the hash, and why."""


class _Silent(Exception):
    """A cache does not answer at all."""


class Purges:
    """What is still to be told, and the telling of it."""

    def __init__(self, folder: Path, hooks: Sequence[Hook], failed: Told = lambda _hash, _why: None, *, settled: float = SETTLED) -> None:
        self._folder = folder
        self._hooks = tuple(hooks)
        self._failed = failed
        self._settled = settled
        self._lock = threading.Lock()
        self._woken = threading.Condition(self._lock)
        self._closing = False
        self._silent: dict[str, str] = {}
        self._thread: threading.Thread | None = None

    def add(self, hash: str) -> None:
        """See that every cache is told of this original; when this returns, no crash forgets it."""
        if not self._hooks:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._folder / f"~{token_hex(8)}"
        draft.touch()
        self._put_off(draft, self._settled)
        draft.rename(self._folder / hash)
        _sync(self._folder)
        self.start()

    def start(self) -> None:
        """Go on with what is left, if anything is."""
        with self._lock:
            if self._hooks and self._thread is None and self.waiting():
                self._thread = threading.Thread(target=self._run, name="purges", daemon=True)
                self._thread.start()
            self._woken.notify_all()

    def waiting(self) -> int:
        """How many originals are still to be told of."""
        return sum(1 for _ in self._files())

    def close(self) -> None:
        """Try once what was not tried yet, with those who answer; what fails stays for whoever runs next."""
        with self._lock:
            self._closing = True
            self._woken.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _files(self) -> Iterator[os.DirEntry[str]]:
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("~"))

    def _run(self) -> None:
        while True:
            trouble = False
            try:
                with self._telling() as ours:
                    pause = self._round() if ours else 1.0
            except OSError:  # the disk may be full: what is to be told is still there, and is told later
                pause, trouble = _TROUBLED_PAUSE, True
            with self._lock:
                left = self._has_untried() if self._closing else self.waiting()
                if not left or (trouble and self._closing):
                    self._thread = None
                    return
                self._woken.wait(0.1 if self._closing or pause is None else pause)

    @contextmanager
    def _telling(self) -> Iterator[bool]:
        with (self._folder / "~lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _has_untried(self) -> bool:
        return any(entry.stat().st_size == 0 for entry in self._files())

    def _round(self) -> float | None:
        """Tell of all that is due; how long until the next is, or None if nothing is left."""
        pauses = []
        if not self._closing:
            self._silent.clear()
        for path in [Path(entry.path) for entry in self._files()]:
            with suppress(FileNotFoundError):
                facts = path.stat()
                pause = facts.st_mtime - time.time()
                if 0 < pause <= _LONGEST_PAUSE and not (self._closing and facts.st_size):
                    pauses.append(pause)
                elif not (self._closing and facts.st_size):
                    pauses += self._tell(path, facts)
        return min(pauses, default=None)

    def _tell(self, path: Path, facts: os.stat_result) -> list[float]:
        """Tell one original to every cache that has not heard it; the pause until that is tried again, if it has to be."""
        noted = path.read_text("ascii", "replace").replace(".", " ").split()
        tries = facts.st_size - sum(len(word) + 1 for word in noted)
        refused = {hook.word: self._refused(hook, path.name) for hook in self._hooks if hook.word not in noted}
        if path.stat().st_ino != facts.st_ino:
            return [self._settled]  # deleted once more meanwhile
        why = "; ".join(filter(None, refused.values()))
        if why:
            self._failed(path.name, why)
        if not why or tries + 1 >= _TRIES:
            path.unlink()
            return []
        with path.open("a") as file:
            file.write("." + "".join(f"{word} " for word, why in refused.items() if not why))
        pause = min(2.0**tries, _LONGEST_PAUSE)
        self._put_off(path, pause)
        return [pause]

    def _refused(self, hook: Hook, hash: str) -> str:
        """Why a cache has not heard it, or nothing."""
        if hook.word not in self._silent:
            try:
                return _answered(hook.request(hash))
            except _Silent as silent:
                self._silent[hook.word] = str(silent)
        return self._silent[hook.word]

    def _put_off(self, path: Path, pause: float) -> None:
        due = time.time() + pause
        os.utime(path, (due, due))


def _answered(request: Request) -> str:
    """What a cache has against it, or nothing; raise `_Silent` if there is no answer."""
    from imgproxy.calls import Line

    try:
        with Line(seconds=5.0) as line, line.call(request) as answer:
            answer.read(_MOST)
            return "" if answer.status in _WELL else f"answered {answer.status}"
    except TooMuch as error:
        return str(error)
    except Exception as error:  # whatever is wrong with an address, nobody has heard it there, and the others are still to be told
        raise _Silent(str(error) or type(error).__name__) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
