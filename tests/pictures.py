"""Pictures made in code, and a look at the ones that were rendered."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import imgproxy.render  # first: it decides which loaders there are  # isort: skip
import pyvips

from imgproxy.grammar import Derived, parse
from imgproxy.limits import Limits
from imgproxy.picture import HEAD, Stamp, sniff
from imgproxy.vips.opening import LOADERS

IMAGES = Path(__file__).parent / "images"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def named(suffix: str) -> Derived:
    """The name of some original's rendition."""
    name = parse("0" * 64 + suffix)
    assert isinstance(name, Derived)
    return name


def rendered(source: bytes, suffix: str, limits: Limits | None = None, stamp: Stamp | None = None) -> Any:
    """The rendition of these bytes, looked at; it is of the format that its name says."""
    made = imgproxy.render.render(BytesIO(source), named(suffix), limits or Limits(), stamp)
    assert sniff(made[:HEAD]) == suffix.rpartition(".")[2]
    return decoded(made)


def decoded(content: bytes, **options: Any) -> Any:
    """All pixels of an image, in memory."""
    loader = LOADERS[str(sniff(content[:HEAD]))][0]
    return pyvips.Operation.call(loader, pyvips.Source.new_from_memory(content), **options).copy_memory()


def frames(content: bytes) -> list[Any]:
    """The frames of an animation."""
    column = decoded(content, n=-1)
    height = column.get("page-height")
    return [column.crop(0, top, column.width, height) for top in range(0, column.height, height)]


def at(image: Any, x: int, y: int) -> tuple[int, ...]:
    """The colour of one pixel."""
    return tuple(round(value) for value in image.getpoint(x, y))


def near(found: Sequence[float], wanted: Sequence[float], by: float = 6) -> bool:
    """Whether two colours are the same to the eye."""
    return len(found) == len(wanted) and all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


def difference(one: Any, other: Any) -> float:
    """The mean difference of two pictures, per band."""
    return float((one.cast("float") - other.cast("float")).abs().avg())


def solid(width: int, height: int, colour: Sequence[int]) -> Any:
    """One colour all over."""
    interpretation = {1: "b-w", 2: "b-w", 3: "srgb", 4: "srgb"}[len(colour)]
    return (pyvips.Image.black(width, height) + list(colour)).cast("uchar").copy(interpretation=interpretation)


def quadrants(width: int = 80, height: int = 60) -> Any:
    """Red top left, green top right, blue bottom left, white bottom right."""
    half = (width // 2, height // 2)
    return pyvips.Image.arrayjoin([solid(*half, colour) for colour in (RED, GREEN, BLUE, WHITE)], across=2)


def slope(width: int, height: int) -> Any:
    """Red grows to the right, green grows downwards."""
    place = pyvips.Image.xyz(width, height)
    red, green = place[0] * 255 / max(1, width - 1), place[1] * 255 / max(1, height - 1)
    return red.bandjoin([green, 128]).rint().cast("uchar").copy(interpretation="srgb")


def noise(width: int, height: int) -> Any:
    """Grey that no encoder can say in few words; the same every time."""
    grey = pyvips.Image.gaussnoise(width, height, sigma=40, mean=128, seed=7).cast("uchar").copy_memory()
    return grey.copy(interpretation="b-w").colourspace("srgb")


def png(image: Any) -> bytes:
    return bytes(image.pngsave_buffer(compression=1))


def jpg(image: Any) -> bytes:
    return bytes(image.jpegsave_buffer(Q=95, subsample_mode="off"))


def oriented(upright: Any, orientation: int) -> bytes:
    """A JPEG of that EXIF orientation whose upright picture is this."""
    back = {2: ("flip", 0), 3: ("", 180), 4: ("flip", 180), 5: ("flip", 270), 6: ("", 270), 7: ("flip", 90), 8: ("", 90)}
    flip, angle = back.get(orientation, ("", 0))
    stored = upright.fliphor() if flip else upright
    stored = (stored.rot(f"d{angle}") if angle else stored).copy()
    stored.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return jpg(stored)


def animation(colours: Sequence[Sequence[int]], delays: Sequence[int], loop: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """A GIF of a frame per colour."""
    column = pyvips.Image.arrayjoin([solid(*size, colour) for colour in colours], across=1).copy()
    column.set_type(pyvips.GValue.gint_type, "page-height", size[1])
    column.set_type(pyvips.GValue.gint_type, "loop", loop)
    column.set_type(pyvips.GValue.array_int_type, "delay", list(delays))
    return bytes(column.gifsave_buffer(keep_duplicate_frames=True))


def pages(colours: Sequence[Sequence[int]], size: tuple[int, int] = (40, 30)) -> bytes:
    """A TIFF of a page per colour."""
    column = pyvips.Image.arrayjoin([solid(*size, colour) for colour in colours], across=1).copy()
    column.set_type(pyvips.GValue.gint_type, "page-height", size[1])
    return bytes(column.tiffsave_buffer(compression="deflate"))


def png_header(width: int, height: int, colour_type: int = 2) -> bytes:
    """The beginning of a PNG that claims to be of that size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    end = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, end)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff_of_bands(width: int, height: int, bands: int) -> bytes:
    """A small TIFF that claims that many bands."""
    strip = zlib.compress(bytes(width * bands))
    entries = {256: (4, width), 257: (4, height), 258: (3, 8), 259: (3, 8), 262: (3, 1), 273: (4, 200), 277: (3, bands)}
    entries |= {278: (4, height), 279: (4, len(strip)), 284: (3, 1)}
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items()))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    return head.ljust(200, b"\0") + strip
