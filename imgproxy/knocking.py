"""Knocking at the door of a server of ours: whether somebody is there, and well. It loads next to nothing."""

from __future__ import annotations

import socket
from contextlib import suppress

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "::1"}  # noqa: S104 - an address to be asked is no address to listen on


def reached(address: str, seconds: float) -> socket.socket:
    """A line to whoever listens at `host:port` or `unix:path`; no word of his may take longer than that."""
    if address.startswith("unix:"):
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(seconds)
        try:
            line.connect(address.removeprefix("unix:"))
        except BaseException:
            line.close()
            raise
        return line
    host, _, port = address.rpartition(":")
    return socket.create_connection((_EVERYWHERE.get(host, host.strip("[]")), int(port)), seconds)


def is_well(address: str, path: str = "/healthz", seconds: float = 1.0) -> bool:
    """Whether what is there answers with 200."""
    with suppress(OSError), reached(address, seconds) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return line.recv(64).startswith(b"HTTP/1.1 200 ")
    return False
