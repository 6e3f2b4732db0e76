"""From finished frames to the bytes of a rendition, and the little metadata that goes with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pyvips

from imgproxy.errors import Error
from imgproxy.grammar import Derived
from imgproxy.vips.drawing import Drawing
from imgproxy.vips.failing import decoding

_EXIF = "exif-data"
_CREDITS = ("exif-ifd0-Copyright", "exif-ifd0-Artist")
_KEEP_NOTHING, _KEEP_EXIF = 0, 1


def encoded(drawing: Drawing, name: Derived) -> bytes:
    """The bytes of the rendition."""
    image = drawing.frames[0] if len(drawing.frames) == 1 else pyvips.Image.arrayjoin(drawing.frames, across=1)
    credits = {} if name.format == "gif" else _credits(drawing.header)
    image = _credited(image, drawing.header, credits) if credits else image.copy()
    _set_timing(image, drawing)
    saved: bytes = _SAVERS[name.format](image, name, _KEEP_EXIF if credits else _KEEP_NOTHING)
    return saved


@functools.cache
def can_encode(format: str) -> bool:
    """Whether libvips can encode that format here: a tiny picture is tried, a name proves nothing."""
    try:
        with decoding():
            return bool(
                _SAVERS[format](pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb"), Derived("0" * 64, format), _KEEP_NOTHING)
            )
    except Error:
        return False


def _credits(header: Any) -> dict[str, str]:
    """Who made the picture and whose it is, as the original says it, if that can be read."""
    found = {}
    for field in _CREDITS:
        try:
            if header.get_typeof(field):
                found[field] = header.get(field)
        except UnicodeDecodeError:
            continue
    return found


def _credited(image: Any, header: Any, credits: dict[str, str]) -> Any:
    """The pixels with no metadata but the credits.

    libvips drops from the EXIF block every entry for which the image has no field, and leaves alone, byte for byte, those whose
    field says what the entry says; a field without the block would be spelled anew, in ASCII. To set the block sets the fields.
    """
    pixels = image.write_to_memory()
    bare = pyvips.Image.new_from_memory(pixels, image.width, image.height, image.bands, "uchar").copy(interpretation="srgb")
    bare.set_type(pyvips.GValue.blob_type, _EXIF, header.get(_EXIF))
    for field in bare.get_fields():
        if field.startswith("exif-ifd"):
            bare.remove(field)
    for field, text in credits.items():
        bare.set_type(pyvips.GValue.gstr_type, field, text)
    return bare


def _set_timing(image: Any, drawing: Drawing) -> None:
    """Say which rows are a frame, and for how long; a still picture has nothing of the kind, and no picture is still to be turned."""
    for field in ("orientation", "page-height", "n-pages", "delay", "loop", "gif-delay", "gif-loop"):
        if image.get_typeof(field):
            image.remove(field)
    if len(drawing.frames) > 1:
        image.set_type(pyvips.GValue.gint_type, "page-height", drawing.frames[0].height)
        image.set_type(pyvips.GValue.gint_type, "loop", drawing.header.get("loop"))
        image.set_type(pyvips.GValue.array_int_type, "delay", drawing.header.get("delay"))


def _avif(image: Any, name: Derived, keep: int) -> Any:
    """The larger the picture, the less effort a pixel gets: the encoder needs from 0.05 to 0.5 seconds a megapixel."""
    effort = next(effort for effort, most in ((3, 1), (2, 4), (1, 16), (0, 10_000)) if _megapixels(image) <= most)
    if name.lossless:
        return image.heifsave_buffer(compression="av1", lossless=True, effort=effort, keep=keep)
    return image.heifsave_buffer(compression="av1", Q=name.quality, effort=effort, keep=keep)


def _gif(image: Any, _: Derived, keep: int) -> Any:
    return image.gifsave_buffer(effort=4, keep_duplicate_frames=True, keep=keep)


def _jpg(image: Any, name: Derived, keep: int) -> Any:
    """Optimised Huffman tables would save 1 % and double the time; the quantisation table saves 8 % for nothing."""
    return image.jpegsave_buffer(Q=name.quality, quant_table=3, keep=keep)


def _jxl(image: Any, name: Derived, keep: int) -> Any:
    if name.lossless:
        return image.jxlsave_buffer(lossless=True, keep=keep)
    return image.jxlsave_buffer(Q=name.quality, keep=keep)


def _png(image: Any, _: Derived, keep: int) -> Any:
    """Row filters save up to two thirds of a picture, and of a drawing too."""
    return image.pngsave_buffer(compression=6, filter="all", keep=keep)


def _webp(image: Any, name: Derived, keep: int) -> Any:
    if name.lossless:
        return image.webpsave_buffer(lossless=True, effort=4 if _megapixels(image) <= 8 else 0, keep=keep)
    return image.webpsave_buffer(Q=name.quality, effort=4, keep=keep)


def _megapixels(image: Any) -> float:
    return float(image.width * image.height / 1e6)


_SAVERS: dict[str, Callable[[Any, Derived, int], Any]] = {
    "avif": _avif,
    "gif": _gif,
    "jpg": _jpg,
    "jxl": _jxl,
    "png": _png,
    "webp": _webp,
}
