"""Load on a server of this machine: a few kept connections, each with a thread, that ask as fast as they are answered."""

from __future__ import annotations

import http.client
import queue
import re
import shutil
import subprocess
import threading

CONNECTIONS = 4


def fetch_all(port: int, paths: list[str], connections: int = CONNECTIONS) -> None:
    """Fetch each path once, over a few connections; anything but 200 is an error."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for path in paths:
        waiting.put(path)
    wrong: list[str] = []
    threads = [threading.Thread(target=_drain, args=(port, waiting, wrong)) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(paths)} failed: {wrong[0]}")


def _drain(port: int, waiting: queue.SimpleQueue[str], wrong: list[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while True:
        try:
            path = waiting.get_nowait()
        except queue.Empty:
            connection.close()
            return
        status = got(connection, path)
        if status != 200:
            wrong.append(f"{path}: {status}")


def got(connection: http.client.HTTPConnection, path: str) -> int:
    """Ask for a path and read what comes; its status."""
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def requests_per_second(port: int, path: str, seconds: int, *headers: str) -> float:
    """How many requests a second a server answers with 200 (or 304), by wrk (Debian's package)."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    words = [
        wrk,
        "-t1",
        "-c16",
        f"-d{seconds}s",
        *(word for header in headers for word in ("-H", header)),
        f"http://127.0.0.1:{port}{path}",
    ]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    match = re.search(r"Requests/sec:\s+([0-9.]+)", told)
    assert match is not None
    return float(match[1])
