"""A Swift as one account sees it: connections, one pass for all threads, tries within a deadline, and what its errors mean.

Three things here are not as the client library would do them, each for a reason that was measured:

- A connection serves one request at a time, from its first byte to the last of its answer, and is lent from a pool. (The
  library's connection reads whatever answer came last, so two users of one get each other's bytes.)
- The pass is shared. When it lapses, one thread renews it and the others wait for that, or for its failure.
- Nothing waits for ever: each try has its timeouts, all tries together have a deadline.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import ParseResult

from swiftclient.client import HTTPConnection, http_connection  # type: ignore[import-untyped]

from imgproxy.errors import StoreDown
from imgproxy.stores.swift.account import Pass, SwiftAccount, Timeout, close_mouthed
from imgproxy.stores.swift.faults import Fault, fault_of, fault_of_entry

T = TypeVar("T")

_IDLE = 64
_RENEWALS = 3
_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long Swift may take, in seconds.

    `connect` and `read` are for each try, and `read` is the longest silence: keep it above the `node_timeout` (10 s, if nobody changed
    it) after which Swift's proxy leaves a hung server for the next, or that server costs an error rather than a moment. `total`
    is for all tries of a request together, and for reading what it answered, which may take another second for each MiB. (Only the head
    of an answer has no other limit than `read` between its bytes.)
    """

    connect: float = 2.0
    read: float = 15.0
    total: float = 30.0
    tries: int = 3
    pause: float = 0.1


class _NoPass(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Line:
    """A connection on loan, and the pass to show: the first arguments of each of the library's functions."""

    url: str
    token: str
    http: tuple[ParseResult, HTTPConnection]
    until: float
    pid: int

    def cut(self) -> None:
        """Close the connection; whatever was still on its way is lost."""
        self.http[1].close()


@dataclass(frozen=True, slots=True)
class Loan(Generic[T]):
    """An answer, with the connection that it still comes from; it has to be given back or cut."""

    answer: T
    line: Line


class _Shared:
    """What the threads of one process have in common."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.idle: deque[tuple[str, tuple[ParseResult, HTTPConnection]]] = deque()
        self.pass_: Pass | None = None
        self.fault: Fault | None = None
        self.rounds = 0


class Swift:
    """One account's Swift; may be used by many threads, and by the children of a fork."""

    def __init__(self, account: SwiftAccount, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._account = account
        self._held = _Shared()

    def ask(self, call: Callable[[Line], T], where: str, none_on: Set[int] = _NONE) -> T | None:
        """Return what `call` returns, tried as often as patience allows; None if the answer's status is one of `none_on`."""
        loan = self.borrow(call, where, none_on)
        if loan is None:
            return None
        self.give_back(loan.line)
        return loan.answer

    def borrow(self, call: Callable[[Line], T], where: str, none_on: Set[int] = _NONE) -> Loan[T] | None:
        """Like `ask`, but the connection stays with the answer, of which a part is still to be read."""
        return self._tried(_Tries(self.patience, where), call, none_on)

    def send(self, call: Callable[[Line], T], where: str, rewind: Callable[[], bool], none_on: Set[int] = _NONE) -> T | None:
        """Like `ask`, for a request that takes as long as its body is; tried again only while `rewind` says that it can be."""
        tries = _Tries(self.patience, where, rewind)
        loan = self._tried(tries, call, none_on)
        if loan is None:
            return None
        self.give_back(loan.line)
        return loan.answer

    def give_back(self, line: Line) -> None:
        """Take a connection back whose answer has been read to its end, unless it is that of a parent process."""
        idle = self._shared().idle
        if len(idle) < _IDLE and line.pid == os.getpid():
            idle.append((line.url, line.http))
        else:
            line.cut()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        idle = self._shared().idle
        with suppress(IndexError):
            while True:
                idle.pop()[1][1].close()

    def _tried(self, tries: _Tries, call: Callable[[Line], T], none_on: Set[int]) -> Loan[T] | None:
        shown: Pass | None = None
        while True:
            line = None
            try:
                shown = self._pass(shown if tries.refused else None, tries)
                line = self._line(shown, tries)
                return Loan(call(line), line)
            except _NoPass as error:
                tries.after(error.fault, error)
            except Exception as error:
                fault = fault_of(error, tries.where, self._account.settings)
                expected = fault.status is not None and fault.status in none_on
                if line is not None:
                    # An answer that came before all of a body was sent leaves the rest of that body on the line.
                    self.give_back(line) if expected and not tries.sending else line.cut()
                if expected:
                    return None
                tries.after(fault, error)
            except BaseException:
                if line is not None:
                    line.cut()
                raise

    def _line(self, shown: Pass, tries: _Tries) -> Line:
        idle = self._shared().idle
        try:
            url, http = idle.pop()
            while url != shown.url:
                http[1].close()
                url, http = idle.pop()
        except IndexError:
            http = close_mouthed(http_connection(shown.url, cacert=self._account.cacert or None))
        http[1].requests_args["timeout"] = tries.timeout()
        return Line(shown.url, shown.token, http, tries.until, os.getpid())

    def _pass(self, refused: Pass | None, tries: _Tries) -> Pass:
        """The pass of all; a new one in place of `refused`, fetched by one thread while the others wait for it."""
        held = self._shared()
        before = held.rounds
        shown = held.pass_
        if shown is not None and shown is not refused:
            return shown
        timeout = tries.timeout()
        if not held.lock.acquire(timeout=sum(timeout)):
            raise _NoPass(Fault(StoreDown, f"container {tries.where}: Swift gives no token"))
        try:
            # Whoever waited here takes what the one before him came back with, be it a pass or a refusal.
            if held.rounds == before:
                self._renew(held, timeout, tries.where)
            if held.pass_ is None:
                assert held.fault is not None
                raise _NoPass(held.fault)
            return held.pass_
        finally:
            held.lock.release()

    def _renew(self, held: _Shared, timeout: Timeout, where: str) -> None:
        try:
            held.pass_, held.fault = self._account.enter(timeout), None
        except Exception as error:
            held.pass_, held.fault = None, fault_of_entry(error, where, self._account.settings)
        held.rounds += 1

    def _shared(self) -> _Shared:
        """A forked child shares no connection, and no lock that another thread of its parent may have held."""
        if self._held.pid != os.getpid():
            self._held = _Shared()
        return self._held


class _Tries:
    """How often, and how long, one request is tried."""

    def __init__(self, patience: Patience, where: str, rewind: Callable[[], bool] | None = None) -> None:
        self.where = where
        self.until = time.monotonic() + patience.total
        self.refused = False
        self.sending = rewind is not None
        self._patience = patience
        self._rewind = rewind
        self._left = patience.tries
        self._renewals = _RENEWALS
        self._pause = patience.pause

    def timeout(self) -> Timeout:
        """The timeouts of the next try. While a body is sent, the library holds the first of them against each block."""
        connect, read = self._patience.connect, self._patience.read
        if self.sending:
            return max(connect, read), read
        left = max(0.05, self.until - time.monotonic())
        return min(connect, left), min(read, left)

    def after(self, fault: Fault, error: Exception) -> None:
        """Return if it is to be tried again, when it is time to; else raise what the fault means."""
        self.refused = fault.status == 401 and not isinstance(error, _NoPass)
        if self.refused and self._renewals:
            self._renewals -= 1
        elif fault.again and self._left > 1:
            self._left -= 1
            pause = self._pause * random.uniform(0.5, 1.5)  # noqa: S311 - only so that the tries of many do not meet
            self._pause *= 3
            if time.monotonic() + pause >= self.until:
                raise fault.kind(fault.text) from error
            time.sleep(pause)
        else:
            raise fault.kind(fault.text) from error
        if self._rewind is not None and not self._rewind():
            raise fault.kind(fault.text) from error
