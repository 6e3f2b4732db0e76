"""From whatever the pixels mean to sRGB of 8 bits, with or without transparency."""

from __future__ import annotations

from typing import Any

import pyvips

_PROFILE = "icc-profile-data"


def srgb(image: Any) -> Any:
    """The same picture in sRGB: three bands of 8 bits, and a fourth where there is transparency."""
    image = _transformed(image) if image.get_typeof(_PROFILE) else _converted(image)
    if image.format != "uchar":
        image = image.cast("uchar")
    return image[0:4] if image.bands > 4 else image


def plain(image: Any) -> Any:
    """Pixels that can be resized: libvips' packed codings are unpacked."""
    return image if image.coding == "none" else image.colourspace("srgb")


def _transformed(image: Any) -> Any:
    """By the embedded profile; by what the pixels claim to be where that profile is broken."""
    fallback = "cmyk" if image.interpretation == "cmyk" else "srgb"
    try:
        done = image.icc_transform("srgb", embedded=True, input_profile=fallback, black_point_compensation=True, depth=8)
    except pyvips.Error:
        image = image.copy()
        image.remove(_PROFILE)
        return _converted(image)
    return _converted(done)


def _converted(image: Any) -> Any:
    if image.interpretation == "multiband":
        image = image.copy(interpretation="b-w" if image.bands < 3 else "srgb")
    return image.colourspace("srgb")
