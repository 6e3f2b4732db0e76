"""Rendering: an original and a name become the bytes of a rendition. The one home of libvips.

Two questions are asked of an original: what it is (`probe`, from its header alone) and what a name makes of it (`render`).
Both are guarded: the type is known by its first bytes, libvips must agree with it, and the header is held against the
limits before a single pixel is decoded. Nothing is ever opened by path; `source` is an open file, read from its beginning
wherever it stands, by its descriptor if it is a plain file. Its position afterwards is anybody's guess, so no two threads
may render from the same open file at once; otherwise all of this may be used by many threads.

Importing this forbids libvips, for the whole process, every loader but the few that are named in `vips/opening.py`.
It starts no thread and runs no operation, so a process may still fork.

    vips/opening.py    bytes -> a guarded original, of which nothing is decoded yet
    vips/drawing.py    the pipeline: page, upright, crop, flip, turn, size, blur, sharpen, mark
    vips/colour.py     whatever the pixels mean -> sRGB of 8 bits
    vips/encoding.py   pixels -> bytes, and what is kept of the metadata
    vips/studying.py   what is found out for the words about a picture
    vips/failing.py    what libvips says -> what we say
"""

from __future__ import annotations

import functools
from typing import BinaryIO

from imgproxy.errors import CannotWrite, Missing
from imgproxy.grammar import FORMATS, TYPES, Derived
from imgproxy.limits import Limits
from imgproxy.picture import EDITION, Facts, Stamp, Study
from imgproxy.vips.drawing import drawn
from imgproxy.vips.encoding import can_encode, encoded
from imgproxy.vips.failing import decoding
from imgproxy.vips.opening import can_decode, opened
from imgproxy.vips.studying import studied

__all__ = ["EDITION", "abilities", "probe", "render", "study"]


@functools.cache
def abilities() -> tuple[frozenset[str], frozenset[str]]:
    """The types that can be decoded here and the formats that can be encoded: each really tried, once."""
    return frozenset(filter(can_decode, TYPES)), frozenset(filter(can_encode, FORMATS))


def probe(source: BinaryIO, limits: Limits) -> Facts:
    """What the header of an original says, if it is one that would be rendered."""
    with decoding():
        return opened(source, limits).facts


def study(source: BinaryIO, limits: Limits) -> Study:
    """What a look at an original finds: it is decoded, as small as that can be, so that a damaged one is noticed."""
    with decoding():
        return studied(opened(source, limits), limits)


def render(source: BinaryIO, name: Derived, limits: Limits, stamp: Stamp | None = None) -> bytes:
    """The rendition of that name: the whole of it, or an error."""
    if not can_encode(name.format):
        raise CannotWrite(f"{name.format} cannot be encoded here")
    if name.mark is not None and stamp is None:
        raise Missing(f"no watermark profile {name.mark}")
    with decoding():
        original = opened(source, limits, name.page or 1)
        mark = opened(stamp.picture, limits) if stamp is not None and name.mark is not None else None
        drawing = drawn(original, name, limits)
        if stamp is not None and mark is not None:
            drawing = drawing.marked(mark, stamp.mark)
        return encoded(drawing.flattened(name), name)
