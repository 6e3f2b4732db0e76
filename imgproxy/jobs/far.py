"""Tasks in Redis, for several nodes, and workers whose life is a lease there that they renew.

What Redis loses, the tasks lose: it should write its log (`appendonly yes`). Every step of a task is a transaction that begins anew if
somebody else was faster.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from secrets import token_hex
from typing import Any

import msgspec
from msgspec.structs import replace

from imgproxy.errors import BadTask, TaskUnfinished
from imgproxy.jobs.queue import Speaking
from imgproxy.jobs.task import LANES, LONGEST_PAUSE, Edit, Lane, Task, Tasks, Wanted

_SPACE = "imgproxy:jobs:"
_ALL, _HELD, _DEAD, _ENDED, _COUNT = (_SPACE + word for word in ("all", "held", "dead", "ended", "count"))
_PAGE = 200
_MOST_LOOKED_AT = 20_000
_LEASE = 30.0
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Task).decode


class FarLedger:
    """Tasks in the Redis of a client."""

    def __init__(self, client: Any, spoken: Speaking) -> None:
        self._redis = client
        self._spoken = spoken

    def add(self, task: Task) -> Task:
        """Keep a new task, for good; or return the unfinished one of the same key."""

        def step(pipe: Any) -> Task:
            same = self._unfinished(pipe, task.key)
            pipe.multi()
            if same is not None:
                return same
            numbered = replace(task, number=number)
            pipe.zadd(_ALL, {task.id: number})
            pipe.set(_same(task.key), task.id)
            _write(pipe, numbered)
            return numbered

        with self._spoken():
            number = self._redis.incr(_COUNT)
            kept: Task = self._redis.transaction(step, _same(task.key), value_from_callable=True)
        return kept

    def change(self, id: str, edit: Edit) -> Task | None:
        """Give a task another state, if `edit` has one, while nobody else changes it; None if nothing was changed."""

        def step(pipe: Any) -> Task | None:
            body = pipe.get(_task(id))
            before = _decode(body) if body is not None else None
            changed = edit(before) if before is not None else None
            if changed is not None and not changed.finished:
                pipe.watch(_same(changed.key))
                other = self._unfinished(pipe, changed.key)
                if other is not None and other.id != id:
                    raise TaskUnfinished("another task is just doing the same")
            pipe.multi()
            if before is not None and changed is not None:
                if not changed.finished:
                    pipe.set(_same(changed.key), id)
                elif not before.finished:
                    pipe.delete(_same(changed.key))
                _write(pipe, changed)
            return changed

        with self._spoken():
            kept: Task | None = self._redis.transaction(step, _task(id), value_from_callable=True)
        return kept

    def find(self, id: str) -> Task | None:
        """The task of that id."""
        with self._spoken():
            body = self._redis.get(_task(id))
        return _decode(body) if body is not None else None

    def same(self, key: str) -> Task | None:
        """The unfinished task of that key."""
        with self._spoken():
            return self._unfinished(self._redis, key)

    def page(self, wanted: Wanted, most: int, cursor: str) -> Tasks:
        """Some of those that are wanted, the newest first; the search for rare ones goes on at the cursor."""
        found: list[Task] = []
        place, looked = _place(cursor), 0
        while looked < _MOST_LOOKED_AT:
            with self._spoken():
                rows = self._redis.zrevrangebyscore(
                    _DEAD if wanted.dead else _ALL, f"({place}", "-inf", start=0, num=_PAGE, withscores=True
                )
                tasks = self._bodies(id for id, _ in rows)
            for task, (_, number) in zip(tasks, rows, strict=True):
                if task is not None and wanted.fits(task):
                    if len(found) == most:
                        return Tasks(tuple(found), str(place))
                    found.append(task)
                place = int(number)
            looked += len(rows)
            if len(rows) < _PAGE:
                return Tasks(tuple(found), "")
        return Tasks(tuple(found), str(place))

    def due(self, lane: Lane, node: str, now: float, most: int) -> list[Task]:
        """Open tasks of a lane and a node that nobody holds, and that may be looked at; those first that wait longest."""
        index = _open(lane, node)
        with self._spoken():
            ids = self._redis.zrangebyscore(index, "-inf", now, start=0, num=most)
            ids += self._redis.zrangebyscore(index, f"({now + LONGEST_PAUSE}", "+inf", start=0, num=most)
            return [task for task in self._bodies(ids) if task is not None and task.open and not task.holder]

    def held(self) -> list[Task]:
        """Open tasks that somebody holds."""
        with self._spoken():
            return [task for task in self._bodies(self._redis.smembers(_HELD)) if task is not None and task.holder]

    def forget(self, before: float) -> int:
        """Forget what ended before that moment and is not open; how many that were."""
        count = 0
        while True:
            with self._spoken():
                ids = [id.decode() for id in self._redis.zrangebyscore(_ENDED, "-inf", f"({before}", start=0, num=_PAGE)]
                if not ids:
                    return count
                with self._redis.pipeline() as pipe:
                    pipe.delete(*map(_task, ids))
                    for index in (_ALL, _DEAD, _ENDED):
                        pipe.zrem(index, *ids)
                    pipe.execute()
            count += len(ids)

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()

    def _unfinished(self, pipe: Any, key: str) -> Task | None:
        id = pipe.get(_same(key))
        body = pipe.get(_task(id.decode())) if id is not None else None
        task = _decode(body) if body is not None else None
        return task if task is not None and not task.finished else None

    def _bodies(self, ids: Iterable[bytes]) -> list[Task | None]:
        keys = [_task(id.decode()) for id in ids]
        return [_decode(body) if body is not None else None for body in self._redis.mget(keys)] if keys else []


class FarLife:
    """The lives of workers of all nodes: leases that lapse when nobody renews them."""

    def __init__(self, client: Any, spoken: Speaking) -> None:
        self._redis = client
        self._spoken = spoken
        self._name = ""

    def begin(self) -> str:
        """Begin to live; the name by which others ask."""
        self._name = f"{socket.gethostname()}-{os.getpid()}-{token_hex(6)}"
        self.beat()
        return self._name

    def lives(self, name: str) -> bool:
        """Whether that worker lives, or did so within the last half minute."""
        with self._spoken():
            return bool(self._redis.exists(_life(name)))

    def sweep(self) -> None:
        """Nothing is left of dead workers."""

    def beat(self) -> None:
        """Live on for another half minute."""
        with self._spoken():
            self._redis.set(_life(self._name), b"", px=round(_LEASE * 1000))

    def end(self) -> None:
        """Die, in an orderly way."""
        with self._spoken():
            self._redis.delete(_life(self._name))


def _write(pipe: Any, task: Task) -> None:
    """Write a task, and the indexes of what is to be done about it."""
    pipe.set(_task(task.id), _encode(task))
    for lane in LANES:
        waits = task.open and not task.holder and lane == task.lane
        pipe.zadd(_open(lane, task.node), {task.id: task.due}) if waits else pipe.zrem(_open(lane, task.node), task.id)
    pipe.sadd(_HELD, task.id) if task.holder else pipe.srem(_HELD, task.id)
    pipe.zrem(_ENDED, task.id) if task.open else pipe.zadd(_ENDED, {task.id: task.ended})
    pipe.zadd(_DEAD, {task.id: task.number}) if task.delivery.state == "dead" else pipe.zrem(_DEAD, task.id)


def _task(id: str) -> str:
    return f"{_SPACE}task:{id}"


def _same(key: str) -> str:
    return f"{_SPACE}same:{key}"


def _open(lane: Lane, node: str) -> str:
    return f"{_SPACE}open:{lane}:{node}"


def _life(name: str) -> str:
    return f"{_SPACE}life:{name}"


def _place(cursor: str) -> int:
    if not cursor:
        return 2**53
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
        raise BadTask("cursor", "is none of ours")
    return int(cursor)
