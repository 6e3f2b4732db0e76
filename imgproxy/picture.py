"""What a picture is, before any library is asked: its type by its first bytes, its facts, and the marks put upon it.

Pure values and pure functions: nothing here decodes, nothing here imports anything foreign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

EDITION = 1
"""Raised whenever the same name gives other bytes than before: caches of the old edition are dropped, names stay."""

EDITION_TIME = 1_700_000_000 + EDITION
"""The modification time of every published rendition: with it nginx's `ETag` is the same on every node, and the one of `etag`."""

HEAD = 1024
"""So many first bytes are enough for `sniff`."""

SIGNAL_HEAD = 65_536
"""So many first bytes are enough for `colour_signal`, but for files that no encoder writes."""

MEDIA_TYPES = {
    "avif": "image/avif",
    "gif": "image/gif",
    "heic": "image/heic",
    "jp2": "image/jp2",
    "jpg": "image/jpeg",
    "jxl": "image/jxl",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tif": "image/tiff",
    "webp": "image/webp",
}
"""Type or format of a name -> media type."""

_MAGIC = re.compile(
    rb"""(?P<jpg>\xff\xd8\xff)
    | (?P<png>\x89PNG\r\n\x1a\n)
    | (?P<gif>GIF8[79]a)
    | (?P<webp>RIFF....WEBP)
    | (?P<tif>II(?:\*\0|\+\0\x08\0\0\0) | MM(?:\0\*|\0\+\0\x08\0\0))
    | (?P<jxl>\xff\x0a | \0\0\0\x0cJXL\x20\r\n\x87\n)
    | (?P<jp2>\0\0\0\x0cjP\x20\x20\r\n\x87\n)
    | (?P<pdf>%PDF-)
    | (?P<svg>(?:\xef\xbb\xbf)? (?>\s+ | <\?.*?\?> | <!--.*?--> | <!DOCTYPE(?:[^>\[]|\[.*?\])*+>)*+ <(?:\w+:)?svg[\s/>])""",
    re.DOTALL | re.VERBOSE,
)
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))

_SIGNALS = {
    "avif": re.compile(rb"\0\0\0\x13colrnclx(..)(..)", re.DOTALL),
    "heic": re.compile(rb"\0\0\0\x13colrnclx(..)(..)", re.DOTALL),
    "png": re.compile(rb"\0\0\0\x04cICP(.)(.)", re.DOTALL),
}

Corner = Literal["centre", "n", "ne", "e", "se", "s", "sw", "w", "nw"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the header of an image says; `width` and `height` are those of the upright picture (one frame of it)."""

    type: str
    width: int
    height: int
    bands: int
    pages: int
    alpha: bool
    orientation: int


@dataclass(frozen=True, slots=True)
class Study:
    """What a look at an original finds: a perceptual hash of 16 hex digits, what its camera wrote by the names of EXIF, and its facts."""

    facts: Facts
    phash: str
    exif: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mark:
    """A watermark profile: where its picture is put, how large and how strong.

    `size` is the mark's width in permille of the rendition's width, `margin` its distance from the edges in permille of the
    rendition's shorter side, `opacity` in percent.
    """

    place: Corner = "se"
    size: int = 200
    margin: int = 20
    opacity: int = 100


@dataclass(frozen=True, slots=True)
class Stamp:
    """A mark with its picture at hand: an open file of an image with or without transparency."""

    mark: Mark
    picture: BinaryIO


def sniff(head: bytes) -> str | None:
    """The type of the file that begins with these bytes (`HEAD` of them are enough), or None if it is none of ours."""
    match = _MAGIC.match(head)
    if match:
        return match.lastgroup
    return _heif_type(head) if head[4:8] == b"ftyp" else None


def _heif_type(head: bytes) -> str | None:
    """AVIF and HEIC are told apart by the major brand, or where that is a general one by the compatible brands."""
    end = min(int.from_bytes(head[:4]), len(head))
    major, others = head[8:12], {head[at : at + 4] for at in range(16, end - 3, 4)}
    if major in _AVIF_BRANDS or (major not in _HEIF_BRANDS - {b"mif1", b"msf1"} and others & _AVIF_BRANDS):
        return "avif"
    return "heic" if ({major} | others) & _HEIF_BRANDS else None


def colour_signal(head: bytes, type: str) -> tuple[int, int] | None:
    """The code points (ITU-T H.273) of primaries and transfer that the file states beside its pixels, or None."""
    match = _SIGNALS[type].search(head) if type in _SIGNALS else None
    return (int.from_bytes(match[1]), int.from_bytes(match[2])) if match else None


def etag(size: int) -> str:
    """The entity tag of a rendition of this edition, in nginx's spelling: modification time and size."""
    return f'"{EDITION_TIME:x}-{size:x}"'
