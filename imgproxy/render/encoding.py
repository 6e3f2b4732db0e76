"""From finished frames to the bytes of a rendition, and the little metadata that goes with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pyvips

from imgproxy.errors import Error
from imgproxy.grammar import Derived
from imgproxy.render.drawing import Drawing
from imgproxy.render.failing import decoding

_CREDITS = ("exif-ifd0-Copyright", "exif-ifd0-Artist")
_NOTHING, _EXIF = 0, 1


def encoded(drawing: Drawing, name: Derived) -> bytes:
    """The bytes of the rendition."""
    credits = _credits(drawing.header) if name.format != "gif" else {}
    image = drawing.frames[0] if len(drawing.frames) == 1 else pyvips.Image.arrayjoin(drawing.frames, across=1)
    image = _bare(image) if credits else image.copy()
    for field, text in credits.items():
        image.set_type(pyvips.GValue.gstr_type, field, text)
    _set_timing(image, drawing)
    saved: bytes = _SAVERS[name.format](image, name, _EXIF if credits else _NOTHING)
    return saved


@functools.cache
def can_encode(format: str) -> bool:
    """Whether libvips can encode that format here: a tiny picture is tried, a name proves nothing."""
    try:
        with decoding():
            return bool(_SAVERS[format](pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb"), Derived("0" * 64, format), _NOTHING))
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


def _bare(image: Any) -> Any:
    """The pixels alone: a copy without any metadata."""
    pixels = image.write_to_memory()
    return pyvips.Image.new_from_memory(pixels, image.width, image.height, image.bands, "uchar").copy(interpretation="srgb")


def _set_timing(image: Any, drawing: Drawing) -> None:
    """Say which rows are a frame, and for how long; a still picture has nothing of the kind."""
    for field in ("page-height", "n-pages", "delay", "loop", "gif-delay", "gif-loop"):
        if image.get_typeof(field):
            image.remove(field)
    if len(drawing.frames) > 1:
        image.set_type(pyvips.GValue.gint_type, "page-height", drawing.frames[0].height)
        image.set_type(pyvips.GValue.gint_type, "loop", drawing.header.get("loop"))
        image.set_type(pyvips.GValue.array_int_type, "delay", drawing.header.get("delay"))


def _avif(image: Any, name: Derived, keep: int) -> Any:
    if name.lossless:
        return image.heifsave_buffer(compression="av1", lossless=True, effort=4, keep=keep)
    return image.heifsave_buffer(compression="av1", Q=name.quality, effort=4, keep=keep)


def _gif(image: Any, _: Derived, keep: int) -> Any:
    return image.gifsave_buffer(keep_duplicate_frames=True, keep=keep)


def _jpg(image: Any, name: Derived, keep: int) -> Any:
    return image.jpegsave_buffer(Q=name.quality, optimize_coding=True, keep=keep)


def _jxl(image: Any, name: Derived, keep: int) -> Any:
    if name.lossless:
        return image.jxlsave_buffer(lossless=True, keep=keep)
    return image.jxlsave_buffer(Q=name.quality, keep=keep)


def _png(image: Any, _: Derived, keep: int) -> Any:
    return image.pngsave_buffer(keep=keep)


def _webp(image: Any, name: Derived, keep: int) -> Any:
    if name.lossless:
        return image.webpsave_buffer(lossless=True, keep=keep)
    return image.webpsave_buffer(Q=name.quality, keep=keep)


_SAVERS: dict[str, Callable[[Any, Derived, int], Any]] = {
    "avif": _avif,
    "gif": _gif,
    "jpg": _jpg,
    "jxl": _jxl,
    "png": _png,
    "webp": _webp,
}
