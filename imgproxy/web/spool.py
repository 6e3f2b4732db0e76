"""Files on their way in: written down without a name and hashed as they come, one as a whole body, or several as the parts of a form.

Whatever happens to this process, nothing is left of them. All of a body is read before anything is done with its files: of one that ends
too early, comes too slowly, or is not what its digest says, nothing is kept.
"""

from __future__ import annotations

import base64
import hmac
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from falcon.media import MultipartFormHandler
from falcon.media.multipart import MultipartParseError, MultipartParseOptions

from imgproxy.errors import BadBody, BadRecord, Busy, Error, NotAnImage, TooLarge
from imgproxy.images import Summing, Sums
from imgproxy.picture import HEAD, MEDIA_TYPES, sniff
from imgproxy.stores.files import nameless, spoken, write
from imgproxy.web.body import PIECE, Body

MULTIPART = "multipart/form-data"
PARTS = 64
"""So many files may come in one form."""

_OPEN = threading.BoundedSemaphore(512)
"""So many files may be on their way in one process: each is a descriptor."""

_HEADERS = ("repr-digest", "content-digest")
_SHA256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([^:]*):")
_NAMED = re.compile(r'filename\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]+)', re.IGNORECASE)
_ALSO = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tiff": "tif", "heif": "heic"}
_TYPES = {media: type for type, media in MEDIA_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that is whole: its bytes, what they hash to, and what it was called."""

    file: BinaryIO
    sums: Sums
    name: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A file of a form that is not taken, and why."""

    name: str
    error: Error


class Source(Protocol):
    """Where the bytes of a file come from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most so many; none at the end."""


class Inbox:
    """Where files are written down that come in, each of at most so many bytes."""

    def __init__(self, directory: Path, most: int) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self.most = most

    def whole(self, body: Body, headers: Mapping[str, str], held: ExitStack) -> Arrived:
        """The file that is the body; it lives as long as `held`."""
        if body.size is not None and body.size > self.most:
            raise TooLarge(f"the file has {body.size} bytes; limits.file_bytes allows {self.most}")
        wanted = _digest(headers)
        arrived = self._written(body, _named(headers.get("content-disposition", "")), headers.get("content-type", ""), held)
        if wanted is not None and not hmac.compare_digest(wanted, bytes.fromhex(arrived.sums.sha256)):
            raise BadBody("what came is not what its digest says")
        return arrived

    def form(self, body: Body, media: str, headers: Mapping[str, str], held: ExitStack) -> list[Arrived | Refused]:
        """The files of a form, in their order; they live as long as `held`."""
        if _digest(headers) is not None:
            raise BadRecord("Repr-Digest", "is for a file that is the whole body")
        options = MultipartParseOptions()
        options.max_body_part_count = PARTS
        most = body.size if body.size is not None else 2**62
        try:
            return [self._part(part, held) for part in MultipartFormHandler(options).deserialize(body, media, most)]  # type: ignore[arg-type]
        except MultipartParseError as error:
            raise BadBody(f"the form is broken: {error.description}") from error
        except ValueError as error:
            raise BadBody("the form is broken") from error

    def _part(self, part: Any, held: ExitStack) -> Arrived | Refused:
        name = part.filename
        if name is None:
            raise BadRecord(_printable(part.name or ""), "is no file; what is said goes into the query")
        try:
            return self._written(part.stream, _printable(name), part.content_type, held)
        except (NotAnImage, TooLarge) as error:
            return Refused(_printable(name), error)

    def _written(self, source: Source, name: str, media: str, held: ExitStack) -> Arrived:
        """All of a source, in a file without a name; what is refused is read to its end all the same, so that the answer is heard."""
        file = held.enter_context(self._nameless())
        summing, size = Summing(), 0
        refusal: Error | None = None
        for data in source.pieces() if isinstance(source, Body) else iter(lambda: source.read(PIECE), b""):
            if size == 0:
                refusal = _misnamed(sniff(bytes(data[:HEAD])), name, media)
            size += len(data)
            if refusal is None and size > self.most:
                refusal = TooLarge(f"the file has more than {self.most} bytes, which is what limits.file_bytes allows")
            if refusal is None:
                summing.add(data)
                with spoken():
                    write(file, data)
        if size == 0:
            refusal = NotAnImage("the file is empty")
        if refusal is not None:
            raise refusal
        return Arrived(file, summing.sums(), name)

    @contextmanager
    def _nameless(self) -> Iterator[BinaryIO]:
        if not _OPEN.acquire(blocking=False):
            raise Busy("too many files are on their way")
        try:
            with spoken():
                file = nameless(self._directory)
            with file:
                yield file
        finally:
            _OPEN.release()


def _digest(headers: Mapping[str, str]) -> bytes | None:
    """The SHA-256 that the sender vouches for; None if none is told."""
    for header in _HEADERS:
        match = _SHA256.search(headers.get(header, ""))
        if match is None:
            continue
        try:
            digest = base64.b64decode(match[1], validate=True)
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise BadRecord(header.title(), "has no SHA-256 in base64")
        return digest
    return None


def _misnamed(type: str | None, name: str, media: str) -> NotAnImage | None:
    """Why a file is refused by its first bytes; None if it is what it is called, or is not called anything we know."""
    if type is None:
        return NotAnImage("the file begins like no image that is known here")
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    said = {_ALSO.get(ending, ending), _TYPES.get(media.partition(";")[0].strip().lower(), "")} & set(MEDIA_TYPES)
    wrong = sorted(said - {type})
    return NotAnImage(f"the file is called {wrong[0]}, and is {type}") if wrong else None


def _named(disposition: str) -> str:
    """The file name in a Content-Disposition header, if there is one."""
    match = _NAMED.search(disposition)
    return _printable(match[1].strip('"')) if match else ""


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:250])
