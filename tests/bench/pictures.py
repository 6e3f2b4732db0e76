"""Originals to measure with: one photograph, made larger, and made many by a few bytes behind its end."""

from __future__ import annotations

import hashlib
import io
import itertools
from pathlib import Path

import pyvips

from imgproxy.stores import Store
from imgproxy.stores.fs import FsStore

PHOTO = Path(__file__).parents[1] / "images" / "good" / "sharp__2569067123_aca715a2ee_o.jpg"
"""A photograph of 2725 x 2225 pixels: 6 megapixels."""

_serial = itertools.count(1)


def put_copies(data: bytes, count: int, base: Store) -> list[str]:
    """Put originals that decode alike and have hashes of their own; the hashes."""
    hashes = []
    for _ in range(count):
        one = data + f"-{next(_serial)}".encode()
        hashes.append(hashlib.sha256(one).hexdigest())
        base.put(hashes[-1], io.BytesIO(one))
    return hashes


def copies(data: bytes, count: int, store: Path) -> list[Path]:
    """The same as files in a store of originals, where they lie."""
    base = store / "base"
    return [next((base / hash[:2] / hash[2:4]).glob(hash)) for hash in put_copies(data, count, FsStore(base))]


def large() -> dict[str, bytes]:
    """The photograph at 24 megapixels, in the forms that cost most."""
    image = pyvips.Image.new_from_file(str(PHOTO)).resize(2.0)
    return {
        "jpg": image.jpegsave_buffer(Q=85),
        "progressive": image.jpegsave_buffer(Q=85, interlace=True),
        "png": image.pngsave_buffer(compression=1),
        "webp": image.webpsave_buffer(Q=80, effort=0),
        "tif": image.tiffsave_buffer(compression="lzw"),
    }
