"""A proxy on loopback that misbehaves: between a client and a server, it cuts, hangs, dawdles, lies or refuses, as it is told."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Rule:
    """What befalls a connection after `after` bytes went `way`: "down" are the server's bytes, "up" the client's.

    `cut` closes it, `hang` lets nothing pass any more, `flip` changes one bit and goes on, `drip` lets one byte pass each tenth of a
    second, `refuse` resets it at once.
    """

    what: Literal["cut", "hang", "flip", "drip", "refuse"]
    after: int = 0
    way: Literal["down", "up"] = "down"


class Cutter:
    """Listens on a port of its own and passes everything on to `target`; `rule` says what is to go wrong."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._ear = socket.create_server((HOST, 0))
        self._rule: Rule | None = None
        self._times = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._done = threading.Event()
        self.connections = 0
        self.struck = 0
        self.passed = {"up": 0, "down": 0}

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._ear.getsockname()[1]
        return port

    @property
    def good(self) -> bool:
        """Whether connections are left alone."""
        return self._rule is None

    def misbehave(self, rule: Rule | None, times: int = 1_000_000) -> None:
        """Treat the next `times` connections so; those that are open are closed, so that none escapes the rule."""
        with self._lock:
            self._rule, self._times = rule, times
        self._close_all()

    def __enter__(self) -> Cutter:
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        with suppress(OSError):
            self._ear.shutdown(socket.SHUT_RDWR)
        self._ear.close()
        self._close_all()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._done.is_set():
            try:
                client = self._ear.accept()[0]
            except OSError:
                return
            with self._lock:
                self.connections += 1
                rule = self._rule if self._times > 0 else None
                self._times -= 1
            self._spawn(partial(self._connect, client, rule))

    def _connect(self, client: socket.socket, rule: Rule | None) -> None:
        if rule is not None and rule.what == "refuse":
            self.struck += 1
            _reset(client)
            return
        try:
            server = socket.create_connection((HOST, self._target), 5)
        except OSError:
            _reset(client)
            return
        with self._lock:
            self._open |= {client, server}
        up = self._spawn(lambda: self._pass("up", client, server, rule))
        self._pass("down", server, client, rule)
        up.join()
        for line in (client, server):
            with self._lock:
                self._open.discard(line)
            line.close()

    def _pass(self, way: str, source: socket.socket, sink: socket.socket, rule: Rule | None) -> None:
        """Carry bytes one way until either end has had enough, or the rule strikes."""
        passed = 0
        struck = False
        with suppress(OSError):
            while data := source.recv(2**16):
                if rule is not None and rule.way == way and not struck and passed + len(data) > rule.after:
                    struck = True
                    with self._lock:
                        self.struck += 1
                    before, data = data[: rule.after - passed], data[rule.after - passed :]
                    sink.sendall(before)
                    if not self._strike(rule, source, sink, data):
                        return
                    continue
                sink.sendall(data)
                passed += len(data)
                self.passed[way] += len(data)
        _half_close(sink)

    def _strike(self, rule: Rule, source: socket.socket, sink: socket.socket, data: bytes) -> bool:
        """Do what the rule says; True if the connection lives on."""
        if rule.what == "flip":
            sink.sendall(bytes([data[0] ^ 1]) + data[1:])
            return True
        if rule.what == "drip":
            self._drip(source, sink, data)
        elif rule.what == "hang":
            self._wait_closed(source)
        for line in (source, sink):
            _end(line)
        return False

    def _drip(self, source: socket.socket, sink: socket.socket, data: bytes) -> None:
        with suppress(OSError):
            while data:
                for byte in data:
                    sink.sendall(bytes([byte]))
                    if self._done.wait(0.1) or sink.fileno() < 0:
                        return
                data = source.recv(2**16)

    def _wait_closed(self, line: socket.socket) -> None:
        while not self._done.is_set() and line in self._open:
            time.sleep(0.05)

    def _close_all(self) -> None:
        with self._lock:
            lines, self._open = self._open, set()
        for line in lines:
            _end(line)

    def _spawn(self, run: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread


def _end(line: socket.socket) -> None:
    """Close it for both sides, and wake whoever waits for its bytes; its descriptor is closed by its owner."""
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _reset(line: socket.socket) -> None:
    """Close it with an RST."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


def _half_close(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_WR)
