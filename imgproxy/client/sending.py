"""Files on their way to a server: in one request, or in parts that survive an interruption (tus 1.0)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from imgproxy.client.answers import Kept, value_of
from imgproxy.client.asking import Asking, Heard, Question
from imgproxy.errors import CallFailed, Error, Locked, OutOfStep, StoreLied

Progress = Callable[[int, int], object]
"""Hears how many bytes are there, of how many."""

_CHUNK = 2**17
_UPLOADS = "/admin/uploads"
_TUS = {"tus-resumable": "1.0.0", "accept": "application/json"}
_OFFSET = "application/offset+octet-stream"


def unheard(_sent: int, _size: int) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file to be sent from its beginning, its size and its SHA-256."""

    file: BinaryIO
    size: int
    sha256: str

    @classmethod
    def of(cls, file: BinaryIO) -> Parcel:
        """Measure a file."""
        file.seek(0)
        sum, size = hashlib.sha256(), 0
        while data := file.read(_CHUNK):
            sum.update(data)
            size += len(data)
        return cls(file, size, sum.hexdigest())

    def bytes(self, start: int, end: int, told: Progress) -> Iterator[bytes]:
        """A part of it, piece by piece."""
        self.file.seek(start)
        while start < end and (data := self.file.read(min(_CHUNK, end - start))):
            yield data
            start += len(data)
            told(start, self.size)


def send_whole(asking: Asking, parcel: Parcel, said: Mapping[str, object], told: Progress) -> Kept:
    """Send a file in one request. It may be sent twice: the second time it is there already."""
    headers = {"content-type": "application/octet-stream", "content-length": str(parcel.size)}
    question = Question("POST", "/admin/images", said, headers, lambda: parcel.bytes(0, parcel.size, told), again=True)
    return checked(parcel, asking.ask(question))


def send_in_parts(asking: Asking, parcel: Parcel, said: Mapping[str, str], part: int, told: Progress) -> Kept:
    """Send a file in parts of so many bytes, go on where an interruption left off, and have the server forget the upload in the end."""
    headers = {**_TUS, "upload-length": str(parcel.size), "upload-metadata": metadata(parcel, said), "content-length": "0"}
    begun = asking.ask(Question("POST", _UPLOADS, headers=headers, again=True))  # one that nobody heard of expires
    path = f"{_UPLOADS}/{begun.headers.get('location', '').rpartition('/')[2]}"
    heard, failures = begun, 0
    while "image-hash" not in heard.headers:
        offset = _offset(heard)
        try:
            heard = _send_part(asking, path, parcel, offset, min(offset + part, parcel.size), told)
            failures = 0
        except (CallFailed, Locked, OutOfStep) as error:
            if isinstance(error, CallFailed) and not error.again:
                raise
            heard = asking.ask(Question("HEAD", path, headers=_TUS))
            failures = 0 if _offset(heard) > offset else failures + 1
            if failures >= asking.patience.tries:
                raise
            asking.pause(failures)
    told(parcel.size, parcel.size)
    with suppress(Error):  # the server forgets it by itself, only later
        asking.ask(Question("DELETE", path, headers=_TUS))
    return _kept(parcel, heard)


def metadata(parcel: Parcel, said: Mapping[str, str]) -> str:
    """What is said with an upload in parts, as its header has it."""
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in {**said, "sha256": parcel.sha256}.items())


def _send_part(asking: Asking, path: str, parcel: Parcel, start: int, end: int, told: Progress) -> Heard:
    headers = {**_TUS, "content-type": _OFFSET, "upload-offset": str(start), "content-length": str(end - start)}
    return asking.ask(Question("PATCH", path, headers=headers, body=lambda: parcel.bytes(start, end, told)))


def _offset(heard: Heard) -> int:
    text = heard.headers.get("upload-offset", "")
    if not (text.isascii() and text.isdigit()):
        raise CallFailed("the server does not say where the upload stands", again=False)
    return int(text)


def _kept(parcel: Parcel, heard: Heard) -> Kept:
    told = {name: heard.headers.get(f"image-{name}", "") for name in ("hash", "name", "url")}
    new, said = heard.headers.get("image-new") == "true", heard.headers.get("image-said") != "false"
    return _right(parcel, Kept(**told, new=new, said=said))


def checked(parcel: Parcel, heard: Heard) -> Kept:
    """What was kept, if it is what was sent."""
    told = heard.json()
    return _right(parcel, value_of(Kept, told[0] if isinstance(told, list) and len(told) == 1 else told))


def _right(parcel: Parcel, kept: Kept) -> Kept:
    if kept.hash != parcel.sha256:
        raise StoreLied("the server has kept something else than it was sent")
    return kept
