"""The queue: which task is next, and which later. It carries the ids of tasks and nothing else, so that nothing is ever unpacked from it.

It may lose an id, or carry one twice: the ledger knows what is to be done, and a worker takes a task only once. There are lanes, so that
who waits for a fetch does not wait for a night's work, and in each lane a place for every node beside the one for all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from huey.storage import BaseStorage, RedisStorage, SqliteStorage

from imgproxy.jobs.near import moved_aside
from imgproxy.jobs.task import LANES, Lane, Task
from imgproxy.meta.database import translated

Speaking: TypeAlias = Callable[[], AbstractContextManager[None]]
"""In which the errors of some library become our own."""


class Queue:
    """The lanes as one node sees them; `nodes` are the places that it takes from, its own first."""

    def __init__(self, open_storage: Callable[[str], BaseStorage], spoken: Speaking, nodes: tuple[str, ...]) -> None:
        self._open = open_storage
        self._spoken = spoken
        self.nodes = nodes
        self._storages: dict[tuple[Lane, str], BaseStorage] = {}
        self._lock = threading.Lock()

    def push(self, task: Task) -> None:
        """Have a task looked at when it is due."""
        with self._spoken():
            self._storage(task.lane, task.node).enqueue(task.id.encode())

    def push_later(self, task: Task) -> None:
        """Have a task looked at at the moment that it is due."""
        with self._spoken():
            self._storage(task.lane, task.node).add_to_schedule(task.id.encode(), datetime.fromtimestamp(task.due, UTC))

    def pull(self, lanes: Iterable[Lane]) -> str | None:
        """The id of the task that is next in these lanes, if there is one; nobody else is given it."""
        with self._spoken():
            for storage in self._ours(lanes):
                data = storage.dequeue()
                if data is not None:
                    return bytes(data).decode("ascii", "replace")
        return None

    def wake(self, now: float) -> None:
        """Bring what is due by now from later to next."""
        with self._spoken():
            for storage in self._ours(LANES):
                for data in storage.read_schedule(datetime.fromtimestamp(now, UTC)):
                    storage.enqueue(bytes(data))

    def is_empty(self, lane: Lane, node: str) -> bool:
        """Whether nothing is next in a lane at a node's place."""
        with self._spoken():
            return bool(self._storage(lane, node).queue_size() == 0)

    def carried(self, lane: Lane, node: str) -> set[str]:
        """The ids of all that is next there."""
        with self._spoken():
            return {bytes(data).decode("ascii", "replace") for data in self._storage(lane, node).enqueued_items()}

    def close(self) -> None:
        """Let go of what is held open."""
        for storage in self._storages.values():
            storage.close()

    def _ours(self, lanes: Iterable[Lane]) -> Iterator[BaseStorage]:
        for lane in lanes:
            for node in self.nodes:
                yield self._storage(lane, node)

    def _storage(self, lane: Lane, node: str) -> BaseStorage:
        with self._lock:
            if (lane, node) not in self._storages:
                self._storages[lane, node] = self._open(f"{lane}{node}")
            return self._storages[lane, node]


def near_queue(path: Path) -> Queue:
    """A queue in a file of this machine; one that is damaged is made anew."""
    moved_aside(path)

    def open_storage(name: str) -> BaseStorage:
        storage = SqliteStorage(name, filename=str(path), cache_mb=1, timeout=15)
        storage.conn.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes from here, the ledger still knows
        return storage

    return Queue(open_storage, translated, ("",))


def far_queue(client: Any, spoken: Speaking, node: str) -> Queue:
    """A queue in Redis, that all nodes share; `node` is this one."""
    place = sha256(node.encode()).hexdigest()[:16]
    return Queue(lambda name: RedisStorage(f"imgproxy:{name}", blocking=False, connection_pool=client.connection_pool), spoken, (place, ""))
