"""From bytes to a guarded original: its type, its header, and the way to its pixels.

The guard, all of it before anything is decoded: the first bytes name the type, the type names the loader, libvips' own
choice must be that same loader, and what the header says must be within the limits.
"""

from __future__ import annotations

import functools
import logging
import os
import stat
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyvips
from pyvips import ffi, vips_lib

from imgproxy.errors import CannotRead, Error, Impossible, NotAnImage
from imgproxy.geometry import LYING, Size
from imgproxy.grammar import TYPES
from imgproxy.limits import Limits
from imgproxy.picture import HEAD, SIGNAL_HEAD, Facts, colour_signal, sniff
from imgproxy.vips.failing import decoding
from imgproxy.vips.tiny import TINY

LOADERS = {
    "avif": ("heifload_source", "VipsForeignLoadHeifSource"),
    "gif": ("gifload_source", "VipsForeignLoadNsgifSource"),
    "heic": ("heifload_source", "VipsForeignLoadHeifSource"),
    "jpg": ("jpegload_source", "VipsForeignLoadJpegSource"),
    "png": ("pngload_source", "VipsForeignLoadPngSource"),
    "svg": ("svgload_source", "VipsForeignLoadSvgSource"),
    "tif": ("tiffload_source", "VipsForeignLoadTiffSource"),
    "webp": ("webpload_source", "VipsForeignLoadWebpSource"),
}
"""Type -> the operation that reads it, and the class by which libvips knows that operation."""

SAMPLE_BYTES = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8, "complex": 8, "dpcomplex": 16}
"""Band format -> bytes of one sample."""

_AT_ONCE = 2**24
"""So many decoded bytes are had at once, which is a twentieth faster; what is larger is read line by line, as it is needed."""

logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # a line for every broken tile; what matters is in the error
pyvips.operation_block_set("VipsForeignLoad", True)
for _known, (_, _loader) in LOADERS.items():
    if _known != "svg":
        pyvips.operation_block_set(_loader, False)
pyvips.concurrency_set(1)
pyvips.cache_set_max(0)


@dataclass(frozen=True, slots=True)
class Original:
    """A guarded original: `content` is its descriptor or its bytes, `page` (from 1) the one that was asked for."""

    content: int | bytes
    facts: Facts
    header: Any
    page: int = 1

    @property
    def upright(self) -> Size:
        """The size of one frame, as people see it."""
        return Size(self.facts.width, self.facts.height)

    @property
    def stored(self) -> Size:
        """The size of one frame, as the file has it."""
        return self.upright.turned(self.facts.orientation in LYING)

    @property
    def signal(self) -> tuple[int, int] | None:
        """The code points for primaries and transfer, where the file says any."""
        return colour_signal(_head(self.content, SIGNAL_HEAD), self.facts.type)

    @property
    def sample_bytes(self) -> int:
        """How many bytes one band of one pixel takes."""
        return SAMPLE_BYTES[self.header.format]

    def pixels(self, frames: int, shrink: float) -> Any:
        """The page, or all `frames` in one column, decoded smaller by up to `shrink` where the format makes that cheap."""
        options: dict[str, Any] = {"fail_on": "error"}
        if frames > 1:
            options["n"] = frames
        if self.page > 1:
            options["page"] = self.page - 1
        if self.facts.type == "jpg":
            # As far as it goes: what the decoder's own scaling loses was never more than what JPEG of quality 80 loses afterwards.
            options["shrink"] = next(step for step in (8, 4, 2, 1) if step == 1 or shrink >= step)
        elif self.facts.type == "webp" and shrink > 2:
            options["scale"] = 2 / shrink
        elif self.facts.type == "svg":
            options["scale"] = 1 / shrink
        if self._decoded_bytes * frames > _AT_ONCE * options.get("shrink", 1) ** 2:
            options["access"] = "sequential"
        return loaded(self.content, self.facts.type, options)

    @property
    def _decoded_bytes(self) -> int:
        return self.facts.width * self.facts.height * self.facts.bands * self.sample_bytes


def opened(source: BinaryIO, limits: Limits, page: int = 1) -> Original:
    """The original in an open file, with nothing of it decoded, if it is one that may be."""
    content = _content(source, limits)
    type = _type(content, limits)
    original = _read(content, type, limits, 1)
    if page == 1:
        return original
    if page > original.facts.pages:
        raise Impossible(f"page {page} of an original that has {original.facts.pages}")
    return _read(content, type, limits, page)


def loaded(content: int | bytes, type: str, options: dict[str, Any]) -> Any:
    """Call the loader of that type."""
    return pyvips.Operation.call(LOADERS[type][0], _source(content), **options)


@functools.cache
def can_decode(type: str) -> bool:
    """Whether libvips can decode that type here: a tiny picture is tried, a name proves nothing."""
    if type == "svg":
        return bool(pyvips.type_find("VipsForeignLoad", "svgload_source"))
    if type not in LOADERS:
        return False
    try:
        with decoding():
            loaded(TINY[type], type, {"fail_on": "error"}).avg()
    except Error:
        return False
    return True


def _content(source: BinaryIO, limits: Limits) -> int | bytes:
    """The descriptor of a plain file, or else everything that the file yields."""
    try:
        descriptor = source.fileno()
        status = os.fstat(descriptor)
    except (AttributeError, OSError):
        descriptor, status = -1, None
    if status is not None and stat.S_ISREG(status.st_mode):
        limits.check_file(status.st_size)
        return descriptor
    if source.seekable():
        source.seek(0)
    content = source.read(limits.file_bytes + 1)
    limits.check_file(len(content))
    return content


def _head(content: int | bytes, length: int) -> bytes:
    return content[:length] if isinstance(content, bytes) else os.pread(content, length, 0)


def _source(content: int | bytes) -> pyvips.Source:
    if isinstance(content, bytes):
        return pyvips.Source.new_from_memory(content)
    os.lseek(content, 0, os.SEEK_SET)
    return pyvips.Source.new_from_descriptor(content)


def _type(content: int | bytes, limits: Limits) -> str:
    """The type by the first bytes, if it may be decoded, can be decoded, and libvips sees the same in it."""
    type = sniff(_head(content, HEAD))
    if type is None:
        raise NotAnImage(f"not an image of a type known here: {', '.join(TYPES)}")
    if type == "svg" and not limits.svg:
        raise CannotRead("svg is not accepted here (limits.svg)")
    if not can_decode(type):
        raise CannotRead(f"{type} cannot be decoded here{': no HEVC decoder' if type == 'heic' else ''}")
    if type == "svg":
        pyvips.operation_block_set(LOADERS["svg"][1], False)
    choice = vips_lib.vips_foreign_find_load_source(_source(content).pointer)
    if choice == ffi.NULL:
        raise pyvips.Error("no loader")
    if ffi.string(choice).decode() != LOADERS[type][1]:
        raise NotAnImage(f"begins like {type}, but is something else")
    return type


def _read(content: int | bytes, type: str, limits: Limits, page: int) -> Original:
    """The original by the header of one page, within the limits."""
    header = loaded(content, type, {"fail_on": "error"} | ({"page": page - 1} if page > 1 else {}))
    orientation = header.get("orientation") if header.get_typeof("orientation") else 1
    size = Size(header.width, header.height).turned(orientation in LYING)
    pages = header.get("n-pages") if header.get_typeof("n-pages") else 1
    facts = Facts(type, *size, header.bands, pages, bool(header.hasalpha()), orientation)
    limits.check_source(facts, SAMPLE_BYTES[header.format])
    return Original(content, facts, header, page)
