"""What a picture is, before any library is asked: its type by its first bytes, its facts, and the marks put upon it.

Pure values and pure functions: nothing here decodes, nothing here imports anything foreign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Literal

EDITION = 1
"""Raised whenever the same name gives other bytes than before: caches of the old edition are dropped, names stay."""

EDITION_TIME = 1_700_000_000 + EDITION
"""The modification time of every published rendition: with it nginx's `ETag` is the same on every node, and the one of `etag`."""

HEAD = 64
"""So many first bytes are enough for `sniff`."""

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


def etag(size: int) -> str:
    """The entity tag of a rendition of this edition, in nginx's spelling: modification time and size."""
    return f'"{EDITION_TIME:x}-{size:x}"'
