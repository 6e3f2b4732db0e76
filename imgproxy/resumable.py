"""Uploads that survive an interruption: what has arrived of each lies in a spool on this machine, and is gone on with.

An upload is a file of what is known of it (`<id>`), and one of the bytes that have come (`<id>.part`), whose size is the offset. All
processes of a node share the spool; locks (`flock`) go with the process that holds them.

- **An offset that was told is on the disk**: whoever tells one syncs the file first. What came and was not told yet outlives the
  process that wrote it, but not a power cut.
- Bytes are put down block by block, each only where the file ends at that moment. So a connection that died without a word holds no
  lock: the next one goes on, and the dead one finds itself out of step.
- Bytes with a checksum stay in a nameless file until it was right. After a crash there is nothing to take back.
- Who finds an upload complete, finishes it, under its lock. What it has become is kept as long as an upload, for clients that did not
  hear it, but of so many at most; what is refused for good leaves nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, NamedTuple, Protocol

from imgproxy.errors import (
    BadRecord,
    Busy,
    CannotRead,
    Damaged,
    Locked,
    Mismatch,
    Missing,
    NoSession,
    NotAnImage,
    OutOfStep,
    TooLarge,
    TooMuch,
)
from imgproxy.stores.files import in_words, spoken, sync_directory, write

ALGORITHMS = ("sha1", "sha256", "md5")
"""How bytes may be vouched for."""

REFUSALS = (BadRecord, CannotRead, Damaged, Mismatch, NoSession, NotAnImage, TooLarge, TooMuch)
"""What is wrong with an upload for good."""

_BLOCK = 2**16
_PAUSE = 0.02
_ID = re.compile("[0-9a-f]{32}")

Told = Mapping[str, Any]
"""A JSON object: what was said of an upload, or what it has become."""

Keep = Callable[[BinaryIO, Told], Told]
"""What makes of a file, and what was said of it, what it becomes."""


class Source(Protocol):
    """Where bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most so many; none at the end."""


class Digest(NamedTuple):
    """What bytes should hash to."""

    algorithm: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Terms:
    """How large an upload may be, how many may be under way and how large together, for how long each is kept when nothing comes.

    What became of the last ones that are finished is remembered: of as many as may be under way.
    """

    file_bytes: int
    uploads: int = 1_000
    bytes: int = 10 * 2**30
    seconds: float = 86_400.0
    patience: float = 20.0


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as it stands: `said` is what came with its creation, `result` what it has become, `expires` by the clock on the wall."""

    id: str
    length: int
    said: Told
    offset: int = 0
    expires: float = 0.0
    result: Told | None = None

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return self.offset == self.length


class Spool:
    """The uploads of one node."""

    def __init__(self, directory: Path, terms: Terms, keep: Keep) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._keep = keep
        self.terms = terms

    def create(self, length: int, said: Told) -> Upload:
        """Begin an upload; raise `TooLarge` if it is to be too large, `Busy` if there are too many."""
        if length > self.terms.file_bytes:
            raise TooLarge(f"the file has {length} bytes; limits.file_bytes allows {self.terms.file_bytes}")
        upload = Upload(token_hex(16), length, dict(said))
        with spoken(), self._alone():
            self._sweep()
            self._must_have_room(length)
            self._part(upload.id).touch(0o600, exist_ok=False)
            self._write(upload)
        return self.look(upload.id)

    def look(self, id: str) -> Upload:
        """An upload as it stands, its offset on the disk; a complete one is finished first. Raise `Missing` if there is none (any more).

        Raise `Locked` if somebody else is still finishing it, or what made it impossible; what is wrong for good leaves nothing.
        """
        with self._opened(id) as part:
            upload = self._known(id)
            if part is None or upload.result is not None:
                return upload
            offset = self._synced(id, part)
            return replace(upload, offset=offset) if offset < upload.length else self._finished(id, part)

    def append(self, id: str, offset: int, source: Source, digest: Digest | None = None) -> Upload:
        """Add all that `source` yields at that offset.

        Raise `OutOfStep` if the upload stands elsewhere, `Mismatch` if the bytes are not those of `digest`: then none of them count. If
        `source` raises, what came before counts, unless it was vouched for.
        """
        with self._opened(id) as part:
            upload = self._known(id)
            if part is not None and upload.result is None:
                self._add(part, upload, offset, source, digest)
            elif offset != upload.length or source.read(1):
                raise OutOfStep(f"the upload is finished, and stands at {upload.length}")
        return self.look(id)

    def _add(self, part: BinaryIO, upload: Upload, offset: int, source: Source, digest: Digest | None) -> None:
        """Put all that `source` yields into the file of an upload that was not finished a moment ago."""
        try:
            _put(part, upload.length, offset, b"")
            if digest is None:
                _pour(source, part, upload.length, offset)
            else:
                with self._proven(source, digest, upload.length - offset) as proven:
                    _pour(proven, part, upload.length, offset)
        except Missing:
            self._known(upload.id)  # or there is none any more
            raise OutOfStep(f"the upload was finished meanwhile, and stands at {upload.length}") from None

    def remove(self, id: str) -> None:
        """End an upload and forget what came of it; what it has become stays."""
        with self._opened(id) as part:
            self._known(id)
            if part is not None:
                with self._held(part):
                    self._erase(id)
            else:
                self._erase(id)

    def sweep(self) -> int:
        """Remove what has expired and what a crash has left; how many files these were."""
        with spoken(), self._alone():
            return self._sweep()

    def _synced(self, id: str, part: BinaryIO) -> int:
        """The offset, on the disk. What a disk refused to take once, it may deny later: such an upload is no longer to be trusted."""
        try:
            os.fsync(part.fileno())
        except OSError as error:
            self._erase(id)
            raise in_words(error) from error
        return os.fstat(part.fileno()).st_size

    def _finished(self, id: str, part: BinaryIO) -> Upload:
        """A complete upload, finished by us, or by who was faster."""
        with self._held(part):
            upload = self._known(id)
            if upload.result is not None:
                return upload
            try:
                with self._part(id).open("rb") as file:
                    result = dict(self._keep(file, upload.said))
            except REFUSALS:
                self._erase(id)
                raise
            with spoken():
                self._write(replace(upload, result=result))
                self._part(id).unlink()
            return self._known(id)

    # ---- files

    def _part(self, id: str) -> Path:
        return self._directory / f"{id}.part"

    @contextmanager
    def _opened(self, id: str) -> Iterator[BinaryIO | None]:
        """The file of the bytes that have come; None if the upload is finished, or there is none."""
        if not _ID.fullmatch(id):
            raise Missing("no such upload")
        try:
            part = self._part(id).open("r+b", buffering=0)
        except FileNotFoundError:
            yield None
            return
        with part:
            yield part

    @contextmanager
    def _held(self, part: BinaryIO) -> Iterator[None]:
        """The lock of an upload, against every process of this node."""
        deadline = time.monotonic() + self.terms.patience
        while not _locked(part):
            if time.monotonic() > deadline:
                raise Locked("this upload is just being finished")
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            fcntl.flock(part, fcntl.LOCK_UN)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The lock of the whole spool: held while one file is written, so that nobody waits for long."""
        with (self._directory / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _proven(self, source: Source, digest: Digest, most: int) -> Iterator[BinaryIO]:
        """All that `source` yields, in a file that has no name, when it was seen to match."""
        with spoken():
            file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed below
        with file:
            sum = hashlib.new(digest.algorithm, usedforsecurity=False)
            while data := source.read(_BLOCK):
                sum.update(data)
                most -= len(data)
                if most < 0:
                    raise TooLarge("more bytes than the upload was to have")
                with spoken():
                    file.write(data)
            if not hmac.compare_digest(sum.digest(), digest.value):
                raise Mismatch(f"the bytes do not have that {digest.algorithm}")
            file.seek(0)
            yield file

    def _known(self, id: str) -> Upload:
        """What is known of an upload, but for its offset."""
        upload = self._read(id) or self._read(id)  # it may be finished while we look
        if upload is None:
            raise Missing("no such upload, or none any more")
        if upload.expires < time.time():
            raise Missing("that upload has expired")
        return upload

    def _read(self, id: str) -> Upload | None:
        try:
            with (self._directory / id).open("rb") as file:
                told = json.loads(file.read())
                facts = os.fstat(file.fileno())
            result, offset = told["result"], told["length"]
            if result is None:
                facts, offset = self._part(id).stat(), 0
        except FileNotFoundError:
            return None
        return Upload(id, told["length"], told["said"], offset, facts.st_mtime + self.terms.seconds, result)

    def _write(self, upload: Upload) -> None:
        """Let what is known of an upload outlive a power cut."""
        told = {"length": upload.length, "said": dict(upload.said), "result": upload.result}
        draft = self._directory / f"{upload.id}.draft"
        with draft.open("wb", buffering=0) as file:
            write(file, json.dumps(told).encode())
            os.fsync(file.fileno())
        draft.rename(self._directory / upload.id)
        sync_directory(self._directory)

    def _erase(self, id: str) -> None:
        with spoken():
            for path in (self._directory / id, self._part(id)):
                path.unlink(missing_ok=True)

    # ---- how many

    def _must_have_room(self, length: int) -> None:
        """Raise `Busy` if no more may be under way. Of those that are finished as many are remembered; the oldest are forgotten."""
        names = [path.name for path in self._directory.iterdir()]
        going = {name.removesuffix(".part") for name in names if name.endswith(".part")}
        lengths = [length, *(upload.length for upload in map(self._going, going) if upload is not None)]
        if len(lengths) > self.terms.uploads or sum(lengths) > self.terms.bytes:
            raise Busy("too many uploads are under way here", retry_after=30)
        self._forget([name for name in names if _ID.fullmatch(name) and name not in going])

    def _going(self, id: str) -> Upload | None:
        """An upload that is not finished yet; None if it is, or has expired."""
        with suppress(Missing):
            upload = self._known(id)
            return upload if upload.result is None else None
        return None

    def _forget(self, finished: list[str]) -> None:
        """Erase the oldest of these uploads, but for as many as are remembered."""
        if len(finished) <= self.terms.uploads:
            return
        since: dict[str, float] = {}
        for id in finished:
            with suppress(FileNotFoundError):
                since[id] = (self._directory / id).stat().st_mtime
        for id in sorted(since, key=since.__getitem__)[: -self.terms.uploads]:
            self._erase(id)

    def _sweep(self) -> int:
        """Each file goes when it has not changed for as long as an upload is kept; one that somebody is at, stays."""
        swept = 0
        old = time.time() - self.terms.seconds
        for path in list(self._directory.iterdir()):
            id = path.name[:32]
            if not _ID.fullmatch(id):
                continue
            with suppress(OSError), path.open("rb") as file:
                if path.stat().st_mtime < old and not self._is_alive(id, old) and _locked(file):
                    path.unlink()
                    swept += 1
        return swept

    def _is_alive(self, id: str, old: float) -> bool:
        """Whether either file of an upload has changed since."""
        for path in (self._directory / id, self._part(id)):
            with suppress(OSError):
                if path.stat().st_mtime >= old:
                    return True
        return False


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pour(source: Source, part: BinaryIO, length: int, offset: int) -> None:
    while data := source.read(_BLOCK):
        _put(part, length, offset, data)
        offset += len(data)


def _put(part: BinaryIO, length: int, offset: int, data: bytes) -> None:
    """Put bytes down where the file ends, if that is there."""
    with spoken():
        fcntl.flock(part, fcntl.LOCK_EX)
        try:
            facts = os.fstat(part.fileno())
            if facts.st_nlink == 0:
                raise Missing("no such upload any more")
            if facts.st_size != offset:
                raise OutOfStep(f"the upload stands at {facts.st_size}")
            if offset + len(data) > length:
                raise TooLarge(f"more bytes than the {length} that the upload was to have")
            part.seek(offset)
            write(part, data)
        finally:
            fcntl.flock(part, fcntl.LOCK_UN)
