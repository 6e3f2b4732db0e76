"""A look at an original for the words about it: what its camera wrote, and a hash that pictures which look alike nearly share."""

from __future__ import annotations

import re
from typing import Any

from imgproxy.grammar import rendition
from imgproxy.limits import Limits
from imgproxy.picture import Study
from imgproxy.vips.drawing import drawn
from imgproxy.vips.opening import Original

_TAGS = {
    "exif-ifd0": ("Make", "Model", "DateTime", "Artist", "Copyright", "ImageDescription"),
    "exif-ifd2": tuple(
        (
            "DateTimeOriginal DateTimeDigitized OffsetTimeOriginal OffsetTimeDigitized OffsetTime"
            " LensModel ExposureTime FNumber ISOSpeedRatings FocalLength"
        ).split()
    ),
    "exif-ifd3": ("GPSLatitude", "GPSLatitudeRef", "GPSLongitude", "GPSLongitudeRef", "GPSAltitude", "GPSAltitudeRef"),
}
_TOLD = re.compile(r"(.*?) \((.*), ([A-Za-z]+), [0-9]+ components?, [0-9]+ bytes?\)", re.DOTALL)
_LONGEST = 1_000
_NINE_BY_EIGHT = rendition("0" * 64, "-9x8-stretch-up.png")


def studied(original: Original, limits: Limits) -> Study:
    """Look at an original: it is decoded, as small as that can be."""
    return Study(original.facts, _perceptual(original, limits), _written(original.header))


def _perceptual(original: Original, limits: Limits) -> str:
    """Of a picture of 9 x 8 shades of grey, whether each is lighter than the next in its row: 64 bits, as hex."""
    small = drawn(original, _NINE_BY_EIGHT, limits).frames[0]
    grey = (small.flatten(background=255) if small.hasalpha() else small).colourspace("b-w").write_to_memory()
    bits = [grey[9 * row + place] > grey[9 * row + place + 1] for row in range(8) for place in range(8)]
    return f"{int(''.join('01'[bit] for bit in bits), 2):016x}"


def _written(header: Any) -> dict[str, str]:
    found = {}
    for block, tags in _TAGS.items():
        for tag in tags:
            text = _text(header, f"{block}-{tag}")
            if text:
                found[tag] = text
    return found


def _text(header: Any, field: str) -> str:
    """The value of a tag; libvips tells it twice, the second time with its type and size."""
    try:
        told = header.get(field) if header.get_typeof(field) else ""
    except UnicodeDecodeError:
        return ""
    match = _TOLD.fullmatch(told)
    if match is None:
        return ""
    raw, _, kind = match.groups()
    if kind == "ASCII":
        twice = told[: match.start(3) - 2]
        half = (len(twice) - 2) // 2
        raw = twice[:half] if twice[:half] == twice[half + 2 :] else raw
    return str(raw.strip("\0 \n")[:_LONGEST])
