"""nginx alone, in front of several nodes: started, told when a node has another address, and stopped.

nginx looks names up once, when it reads its configuration, and refuses one with a name that leads nowhere. So the names are looked up
here, again and again, and nginx reads its configuration anew when a node has other addresses than before. A node that has never had one
is left out until it has; one that has lost its own is just away, and nginx finds it where it was when it comes back. What nginx works at
meanwhile goes on.

    SIGTERM, SIGINT   nginx finishes what is in flight; a second one ends it at once
    SIGHUP            the settings are read again, the names are looked up, and nginx gets a new configuration
    nginx dies        so do we, with 1, and what is left of it
    we are killed     the system tells nginx to stop
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, TypeAlias

from imgproxy import observe
from imgproxy.config import Settings, with_nodes
from imgproxy.edge.nginx import folder
from imgproxy.edge.together import (
    Lines,
    command,
    end_workers,
    nginx,
    only_one,
    read_again,
    started_apart,
    write_configuration,
)
from imgproxy.errors import BadSettings

LOOK = 1.0
"""Names are looked up again after so many seconds."""

Found: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""The nodes that have addresses, and which."""


def spread(settings: Settings) -> int:
    """Run nginx until told to stop, or until it dies; what to leave with."""
    if not settings.edge_nodes:
        raise BadSettings(["edge_nodes: say which nodes to spread names over"])
    observe.configure(settings.log_level, settings.log_format)
    program = nginx()
    folder(settings).mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_one(folder(settings) / "lock"):
        return Spread(settings, program).run()


def found(nodes: tuple[str, ...], look: Callable[[str, int], tuple[str, ...]] | None = None) -> Found:
    """The nodes that have addresses just now, in their order."""
    look = look or _addresses
    parted = [(node, *node.rpartition(":")[::2]) for node in nodes]
    return tuple((node, there) for node, host, port in parted if (there := look(host.strip("[]"), int(port))))


def _addresses(host: str, port: int) -> tuple[str, ...]:
    try:
        return tuple(sorted({str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}))
    except OSError:
        return ()


class Spread:
    """One nginx and what happens to it, in a queue: who was found, a signal, its end."""

    def __init__(self, settings: Settings, program: str) -> None:
        self._settings = settings
        self._program = program
        self._events: queue.SimpleQueue[Found | signal.Signals | int] = queue.SimpleQueue()
        self._nginx: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._again = threading.Event()

    def run(self) -> int:
        """Start, watch, stop."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._events.put(signal.Signals(number)))
        threading.Thread(target=self._look, daemon=True).start()
        until = float("inf")
        while True:
            try:
                event = self._events.get(timeout=None if until == float("inf") else max(0.0, until - time.monotonic()))
            except queue.Empty:
                event = signal.SIGTERM
            if isinstance(event, tuple):
                self._take(event)
            elif event is signal.SIGHUP:
                self._read_again()
            elif isinstance(event, signal.Signals):
                if self._nginx is None:
                    return 0
                self._nginx.send_signal(signal.SIGTERM if self._stopping else signal.SIGQUIT)
                self._stopping, until = True, time.monotonic() + self._settings.grace + 2
            else:
                return 0 if self._stopping else 1

    def _look(self) -> None:
        known: Found | None = None
        while True:
            told = self._again.wait(0 if known is None else LOOK)
            self._again.clear()
            now = found(self._settings.edge_nodes)
            if told or known is None or set(now) - set(known):
                known = now
                self._events.put(now)

    def _read_again(self) -> None:
        """Take up new settings, and have the names looked up; settings that are wrong change nothing."""
        try:
            settings = read_again(self._settings, os.environ)
            if not settings.edge_nodes:
                raise BadSettings(["edge_nodes: say which nodes to spread names over"])
        except BadSettings as error:
            observe.event("the new settings are wrong, and the old ones stay", {"why": str(error)}, level="error")
            return
        self._settings = settings
        self._again.set()

    def _take(self, now: Found) -> None:
        """Have nginx spread names over these nodes; nothing changes when there are none, or when it does not take them."""
        nodes = tuple(node for node, _ in now)
        missing = [node for node in self._settings.edge_nodes if node not in nodes]
        observe.event("nodes were looked up", {"nodes": list(nodes), "missing": missing}, level="warning" if missing else "info")
        if not nodes or self._stopping:
            return
        settings = with_nodes(self._settings, nodes)
        try:
            write_configuration(settings, self._program)
        except BadSettings as error:
            observe.event("nginx does not take its nodes", {"why": str(error)}, level="error")
            return
        if self._nginx is not None:
            self._nginx.send_signal(signal.SIGHUP)
            return
        self._nginx = started_apart(command(settings, self._program), stderr=subprocess.PIPE)
        listener = threading.Thread(target=_listen, args=(self._nginx.stderr,), daemon=True)
        listener.start()
        threading.Thread(target=self._wait_for, args=(self._nginx, listener), daemon=True).start()

    def _wait_for(self, child: subprocess.Popen[bytes], listener: threading.Thread) -> None:
        """Tell when nginx is gone, with all that is left of it."""
        code = child.wait()
        end_workers(child)
        listener.join(1.0)
        self._events.put(code)


def _listen(said: BinaryIO) -> None:
    """Pass on what nginx says, as long as anybody is there who could."""
    lines = Lines()
    while data := said.read1(65_536):  # type: ignore[attr-defined]
        lines.add(data)
