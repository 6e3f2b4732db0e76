"""Uploads that are interrupted, gone on with, vouched for, finished, refused, ended, forgotten; by several at once, and after a kill."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy.errors import Busy, Locked, Mismatch, Missing, NotAnImage, OutOfStep, StoreDown, TooLarge
from imgproxy.resumable import ALGORITHMS, Digest, Spool, Terms

BYTES = bytes(range(256)) * 1024
"""A quarter of a megabyte: several blocks."""


class Desk:
    """Keeps what it is given, or refuses."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.said: list[Mapping[str, Any]] = []
        self.refusal: Exception | None = None

    def __call__(self, file: BinaryIO, said: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        self.kept.append(file.read())
        self.said.append(said)
        return {"hash": hashlib.sha256(self.kept[-1]).hexdigest()}


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def spool(tmp_path: Path, desk: Desk) -> Spool:
    return Spool(tmp_path / "spool", Terms(2**20), desk)


class Broken:
    """Yields some bytes, and then the line goes dead."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if not data:
            raise ConnectionResetError
        return data


def files(spool: Spool) -> list[str]:
    return sorted(path.name for path in spool._directory.iterdir() if path.name != "lock")


def test_an_upload_arrives_in_parts_and_becomes_what_the_desk_makes_of_it(spool: Spool, desk: Desk) -> None:
    upload = spool.create(len(BYTES), {"title": "é"})
    assert (upload.offset, upload.result) == (0, None)
    assert spool.append(upload.id, 0, io.BytesIO(BYTES[:100_000])).offset == 100_000
    assert spool.look(upload.id).offset == 100_000
    done = spool.append(upload.id, 100_000, io.BytesIO(BYTES[100_000:]))
    assert (done.offset, done.result) == (len(BYTES), {"hash": hashlib.sha256(BYTES).hexdigest()})
    assert (desk.kept, desk.said) == ([BYTES], [{"title": "é"}])


def test_who_did_not_hear_the_end_can_ask_again_and_nothing_is_made_twice(spool: Spool, desk: Desk) -> None:
    upload = spool.create(3, {})
    done = spool.append(upload.id, 0, io.BytesIO(b"abc"))
    assert spool.look(upload.id) == done
    assert spool.append(upload.id, 3, io.BytesIO(b"")).result == done.result
    with pytest.raises(OutOfStep):
        spool.append(upload.id, 0, io.BytesIO(b"abc"))
    with pytest.raises(OutOfStep):
        spool.append(upload.id, 3, io.BytesIO(b"d"))
    assert desk.kept == [b"abc"]
    assert files(spool) == [upload.id]


def test_what_came_before_the_line_went_dead_counts(spool: Spool) -> None:
    upload = spool.create(len(BYTES), {})
    with pytest.raises(ConnectionResetError):
        spool.append(upload.id, 0, Broken(BYTES[:200_001]))
    offset = spool.look(upload.id).offset
    assert offset == 200_001
    assert spool.append(upload.id, offset, io.BytesIO(BYTES[offset:])).result is not None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bytes_that_are_vouched_for_count_when_they_are_right_and_whole(spool: Spool, algorithm: str) -> None:
    upload = spool.create(len(BYTES), {})
    right = Digest(algorithm, hashlib.new(algorithm, BYTES[:150_000]).digest())
    with pytest.raises(Mismatch):
        spool.append(upload.id, 0, io.BytesIO(BYTES[1:150_001]), right)
    with pytest.raises(ConnectionResetError):
        spool.append(upload.id, 0, Broken(BYTES[:140_000]), right)
    assert spool.look(upload.id).offset == 0
    assert spool.append(upload.id, 0, io.BytesIO(BYTES[:150_000]), right).offset == 150_000
    assert files(spool) == [upload.id, f"{upload.id}.part"]


def test_bytes_for_another_offset_are_refused(spool: Spool) -> None:
    upload = spool.create(10, {})
    spool.append(upload.id, 0, io.BytesIO(b"abc"))
    for offset in (0, 2, 4):
        with pytest.raises(OutOfStep):
            spool.append(upload.id, offset, io.BytesIO(b""))
    assert spool.look(upload.id).offset == 3


@pytest.mark.parametrize("digest", [None, Digest("md5", b"")])
def test_more_bytes_than_were_announced_are_refused(spool: Spool, digest: Digest | None) -> None:
    upload = spool.create(5, {})
    with pytest.raises(TooLarge):
        spool.append(upload.id, 0, io.BytesIO(b"abcdef"), digest)
    assert spool.look(upload.id).offset == 0


def test_a_dead_line_that_wakes_up_is_out_of_step(spool: Spool, desk: Desk) -> None:
    """Two connections believe in the same offset; the bytes of both are never mixed."""
    upload = spool.create(200_000, {})
    asleep, woken = threading.Event(), threading.Event()
    sources = [BYTES[:50_000], BYTES[50_000:]]

    class Sleepy:
        def read(self, size: int = -1) -> bytes:
            if len(sources) == 1:
                asleep.set()
                assert woken.wait(60)
            return sources.pop(0)

    outcome: list[type] = []

    def first() -> None:
        try:
            spool.append(upload.id, 0, Sleepy())
        except OutOfStep as error:
            outcome.append(type(error))

    thread = threading.Thread(target=first)
    thread.start()
    assert asleep.wait(60)
    spool.append(upload.id, 50_000, io.BytesIO(BYTES[50_000:60_000]))
    woken.set()
    thread.join(60)
    assert outcome == [OutOfStep]
    spool.append(upload.id, 60_000, io.BytesIO(BYTES[60_000:200_000]))
    assert desk.kept == [BYTES[:200_000]]


@pytest.mark.parametrize("digest", [None, Digest("sha1", hashlib.sha1(b"abc").digest())])
def test_who_comes_after_the_finish_or_the_end_is_told_which(spool: Spool, digest: Digest | None) -> None:
    """Another request finishes or ends the upload while the bytes of this one are still on their way."""

    def overtaken(by: Callable[[str], object]) -> None:
        upload = spool.create(3, {})
        data = [b"abc", b""]

        class Late:
            def read(self, size: int = -1) -> bytes:
                if len(data) == 2:
                    by(upload.id)
                return data.pop(0)

        spool.append(upload.id, 0, Late(), digest)

    with pytest.raises(OutOfStep, match="finished"):
        overtaken(lambda one: spool.append(one, 0, io.BytesIO(b"abc")))
    with pytest.raises(Missing):
        overtaken(spool.remove)


def test_what_is_refused_for_good_leaves_nothing(spool: Spool, desk: Desk) -> None:
    desk.refusal = NotAnImage("nothing like one")
    upload = spool.create(3, {})
    with pytest.raises(NotAnImage):
        spool.append(upload.id, 0, io.BytesIO(b"abc"))
    assert files(spool) == []
    with pytest.raises(Missing):
        spool.look(upload.id)


def test_what_could_not_be_finished_just_now_is_finished_by_who_asks_next(spool: Spool, desk: Desk) -> None:
    desk.refusal = StoreDown("not now")
    upload = spool.create(3, {})
    with pytest.raises(StoreDown):
        spool.append(upload.id, 0, io.BytesIO(b"abc"))
    with pytest.raises(StoreDown):
        spool.look(upload.id)
    desk.refusal = None
    assert spool.look(upload.id).result is not None


def test_one_of_many_finishes_and_the_others_hear_of_it(tmp_path: Path, desk: Desk) -> None:
    started, release = threading.Event(), threading.Event()

    def slow(file: BinaryIO, said: Mapping[str, Any]) -> Mapping[str, Any]:
        started.set()
        assert release.wait(60)
        return desk(file, said)

    one = Spool(tmp_path, Terms(2**20), slow)
    hasty = Spool(tmp_path, Terms(2**20, patience=0.1), slow)
    upload = one.create(3, {})
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(one.append(upload.id, 0, io.BytesIO(b"abc")).result))]
    threads[0].start()
    assert started.wait(60)
    with pytest.raises(Locked):
        hasty.look(upload.id)
    with pytest.raises(Locked):
        hasty.remove(upload.id)
    threads += [threading.Thread(target=lambda: answers.append(one.look(upload.id).result)) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    release.set()
    for thread in threads:
        thread.join(60)
    assert answers == [{"hash": hashlib.sha256(b"abc").hexdigest()}] * 4
    assert desk.kept == [b"abc"]


def test_an_upload_may_be_ended(spool: Spool) -> None:
    begun, finished = spool.create(3, {}), spool.create(3, {})
    spool.append(finished.id, 0, io.BytesIO(b"abc"))
    for upload in (begun, finished):
        spool.remove(upload.id)
        for ask in (spool.look, spool.remove):
            with pytest.raises(Missing):
                ask(upload.id)
    assert files(spool) == []


@pytest.mark.parametrize("id", ["", "..", "lock", "a" * 31, "A" * 32, "../" + "a" * 29, "a" * 32 + ".part"])
def test_what_is_no_id_is_missing(spool: Spool, id: str) -> None:
    for ask in (spool.look, spool.remove, lambda one: spool.append(one, 0, io.BytesIO(b""))):
        with pytest.raises(Missing):
            ask(id)


def test_there_may_be_so_many_and_so_large_ones(tmp_path: Path, desk: Desk) -> None:
    spool = Spool(tmp_path, Terms(2**20, uploads=3, bytes=2**20), desk)
    with pytest.raises(TooLarge):
        spool.create(2**20 + 1, {})
    first = spool.create(2**20 - 10, {})
    spool.create(5, {})
    with pytest.raises(Busy):
        spool.create(6, {})
    spool.create(5, {})
    with pytest.raises(Busy):
        spool.create(0, {})
    spool.remove(first.id)
    assert spool.create(6, {}).length == 6


def finished(spool: Spool, age: float = 0) -> str:
    """An upload that was finished so many seconds ago."""
    id = spool.append(spool.create(3, {}).id, 0, io.BytesIO(b"abc")).id
    then = (spool._directory / id).stat().st_mtime - age
    os.utime(spool._directory / id, (then, then))
    return id


def test_finished_ones_are_in_nobodys_way_and_only_the_last_are_remembered(tmp_path: Path, desk: Desk) -> None:
    spool = Spool(tmp_path, Terms(2**20, uploads=2), desk)
    done = [finished(spool, age) for age in (400, 100, 300, 200)]
    going = [spool.create(3, {}) for _ in range(2)]
    with pytest.raises(Busy):
        spool.create(0, {})
    assert [spool.look(id).result is not None for id in (done[1], done[3])] == [True, True]
    for gone in (done[0], done[2]):
        with pytest.raises(Missing):
            spool.look(gone)
    assert files(spool) == sorted([done[1], done[3], *(upload.id + end for upload in going for end in ("", ".part"))])


def aged(spool: Spool, name: str) -> None:
    """Let the last change of a file be longer ago than an upload is kept."""
    then = (spool._directory / name).stat().st_mtime - spool.terms.seconds - 1
    os.utime(spool._directory / name, (then, then))


def test_an_upload_expires_when_nothing_comes_any_more(spool: Spool) -> None:
    old, active, finished = (spool.create(3, {}) for _ in range(3))
    spool.append(finished.id, 0, io.BytesIO(b"abc"))
    for name in files(spool):
        aged(spool, name)
    spool._part(active.id).touch()
    for gone in (old, finished):
        with pytest.raises(Missing, match="expired"):
            spool.look(gone.id)
    assert spool.sweep() == 3
    assert spool.look(active.id).offset == 0
    assert files(spool) == [active.id, f"{active.id}.part"]


def test_what_a_crash_has_left_is_swept(spool: Spool) -> None:
    left = [f"{'a' * 32}.part", f"{'b' * 32}.draft"]
    for name in left:
        (spool._directory / name).touch()
    assert spool.sweep() == 0
    for name in left:
        aged(spool, name)
    assert spool.sweep() == 2


def test_a_crash_after_the_finish_has_finished_it(spool: Spool, desk: Desk) -> None:
    upload = spool.create(3, {})
    done = spool.append(upload.id, 0, io.BytesIO(b"abc"))
    spool._part(upload.id).write_bytes(b"abc")
    assert spool.look(upload.id) == done
    assert desk.kept == [b"abc"]


def test_a_disk_that_refused_once_is_not_believed_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = spool.create(10, {})

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(StoreDown):
            spool.append(upload.id, 0, io.BytesIO(b"abc"))
    with pytest.raises(Missing):
        spool.look(upload.id)


def test_an_offset_is_synced_before_it_is_told(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = spool.create(10, {})
    synced: list[int] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", noted)
    assert spool.append(upload.id, 0, io.BytesIO(b"abc")).offset == synced.pop() == 3
    assert spool.look(upload.id).offset == synced.pop() == 3


WRITER = """
import sys
from pathlib import Path
from imgproxy.resumable import Spool, Terms
spool = Spool(Path(sys.argv[1]), Terms(2**40), lambda file, said: {})
spool.append(sys.argv[2], 0, sys.stdin.buffer)
"""


def test_what_a_killed_process_has_put_down_counts(spool: Spool) -> None:
    upload = spool.create(2**20, {})
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(spool._directory), upload.id], stdin=subprocess.PIPE)
    assert writer.stdin is not None
    writer.stdin.write(BYTES)
    writer.stdin.flush()
    while spool.look(upload.id).offset < 2**17:
        assert writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    writer.wait(60)
    writer.stdin.close()
    offset = spool.look(upload.id).offset
    assert spool._part(upload.id).read_bytes() == BYTES[:offset]
    assert spool.append(upload.id, offset, io.BytesIO((BYTES * 4)[offset:])).result is not None


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=12))
def test_whatever_is_interrupted_the_bytes_are_those_that_were_sent(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, bool, bool]]
) -> None:
    desk = Desk()
    spool = Spool(tmp_path_factory.mktemp("spool"), Terms(2**20), desk)
    whole = BYTES[:200]
    upload = spool.create(len(whole), {})
    offset = 0
    for size, breaks, vouched in parts:
        data = whole[offset : min(offset + size, len(whole) - 1)]
        digest = Digest("sha1", hashlib.sha1(data).digest()) if vouched else None
        try:
            spool.append(upload.id, offset, Broken(data) if breaks else io.BytesIO(data), digest)
        except ConnectionResetError:
            assert breaks
        offset += 0 if breaks and vouched else len(data)
        assert spool.look(upload.id).offset == offset
    spool.append(upload.id, offset, io.BytesIO(whole[offset:]))
    assert desk.kept == [whole]
