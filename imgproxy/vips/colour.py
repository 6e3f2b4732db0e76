"""From whatever the pixels mean to sRGB of 8 bits, with or without transparency.

What they mean is said by an embedded ICC profile; or where there is none by the signal of AVIF and PNG (code points of
ITU-T H.273 for primaries and transfer), which libvips does not follow; or else by the interpretation that libvips gives them.
"""

from __future__ import annotations

import functools
from typing import Any

import pyvips

PROFILE = "icc-profile-data"

_DISPLAY_P3 = (1.224940, -0.224940, 0.0, -0.042057, 1.042057, 0.0, -0.019638, -0.078636, 1.098274)
_BT_2020 = (1.660491, -0.587641, -0.072850, -0.124550, 1.132900, -0.008349, -0.018151, -0.100579, 1.118730)
_BT_709 = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_PRIMARIES = {9: _BT_2020, 11: _DISPLAY_P3, 12: _DISPLAY_P3}
"""Code point -> the matrix that takes linear light to that of sRGB; all others are taken for sRGB's own."""

_LINEAR, _PQ, _HLG = 8, 16, 18
_FAR_FROM_SRGB = frozenset((_LINEAR, _PQ, _HLG))
"""The transfers that are followed; the others are near enough to that of sRGB."""

_KNEE = 0.6
"""Above this share of white, light beyond white is squeezed in instead of clipped."""


def srgb(image: Any, signal: tuple[int, int] | None) -> Any:
    """The same picture in sRGB: three bands of 8 bits, and a fourth where there is transparency."""
    if image.get_typeof(PROFILE) or image.interpretation == "cmyk":
        image = _by_profile(image)
    elif signal is not None and image.bands >= 3 and (signal[0] in _PRIMARIES or signal[1] in _FAR_FROM_SRGB):
        image = _by_signal(image, *signal)
    else:
        image = _by_interpretation(image)
    if image.format != "uchar":
        image = image.cast("uchar")
    return image[0:4] if image.bands > 4 else image


def plain(image: Any) -> Any:
    """Pixels that can be resized: libvips' packed codings are unpacked."""
    return image if image.coding == "none" else image.colourspace("srgb")


def _by_profile(image: Any) -> Any:
    """By the embedded profile; where it is broken by what the pixels claim to be, and CMYK by a common press."""
    fallback = "cmyk" if image.interpretation == "cmyk" else "srgb"
    try:
        image = image.icc_transform("srgb", embedded=True, input_profile=fallback, black_point_compensation=True, depth=8)
    except pyvips.Error:
        image = image.copy()
        image.remove(PROFILE)
    return _by_interpretation(image)


def _by_interpretation(image: Any) -> Any:
    if image.interpretation == "multiband":
        image = image.copy(interpretation="b-w" if image.bands < 3 else "srgb")
    return image.colourspace("srgb")


def _by_signal(image: Any, primaries: int, transfer: int) -> Any:
    """To linear light, to the primaries of sRGB, and to its transfer."""
    matrix = pyvips.Image.new_from_array([list(_PRIMARIES.get(primaries, _BT_709)[row : row + 3]) for row in (0, 3, 6)])
    wide = image.colourspace("rgb16")
    colour, rest = wide[0:3], wide[3:4] if wide.bands > 3 else None
    light = colour.maplut(_light(transfer)) if transfer in _FAR_FROM_SRGB else colour.colourspace("scrgb")
    done = light.recomb(matrix).cast("float").copy(interpretation="scrgb").colourspace("srgb")
    return done if rest is None else done.bandjoin((rest >> 8).cast("uchar"))


@functools.cache
def _light(transfer: int) -> Any:
    """A table of 16-bit signals: linear light, 1.0 being the white of paper (203 candela), what is beyond squeezed below 1.0."""
    signal = pyvips.Image.identity(ushort=True) / 65535
    if transfer == _LINEAR:
        return signal.cast("float").copy_memory()
    light = _pq(signal) if transfer == _PQ else _hlg(signal)
    squeezed = 1 - (1 - _KNEE) * (((light - _KNEE) / (_KNEE - 1)).exp())
    return (light <= _KNEE).ifthenelse(light, squeezed).cast("float").copy_memory()


def _pq(signal: Any) -> Any:
    """SMPTE ST 2084."""
    root = signal ** (32 / 2523)
    over = root - 0.8359375
    return ((over > 0).ifthenelse(over, 0) / (18.8515625 - 18.6875 * root)) ** (8192 / 1305) * (10_000 / 203)


def _hlg(signal: Any) -> Any:
    """ARIB STD-B67, with the system gamma of a display of 1,000 candela."""
    high = (((signal - 0.55991073) / 0.17883277).exp() + 0.28466892) / 12
    return ((signal <= 0.5).ifthenelse(signal * signal / 3, high)) ** 1.2 / 0.203
