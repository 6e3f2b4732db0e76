"""How much one request may cost: asked in the room, of everyone alike, before anything is decoded.

Who may ask at all is another question (`security.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from imgproxy.errors import TooMuch
from imgproxy.picture import Facts

FORMAT_SIDE = {"avif": 16_384, "gif": 65_535, "jpg": 65_500, "jxl": 1_000_000, "png": 1_000_000, "webp": 16_383}
"""The longest side that a format, or its encoder, can have."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one original, and one rendition, may be. Every field is a setting of the same name under `[limits]`."""

    file_bytes: int = 64 * 2**20
    side: int = 20_000
    pixels: int = 50_000_000
    avif_pixels: int = 35_000_000
    bands: int = 5
    decoded_bytes: int = 400_000_000
    pages: int = 512
    rendition_pixels: int = 50_000_000
    seconds: float = 10.0
    svg: bool = False

    def check_file(self, size: int) -> None:
        """Raise `TooMuch` if an original has more bytes than is allowed."""
        self._check(size, "bytes", "file_bytes")

    def check_source(self, facts: Facts, sample_bytes: int = 1, frames: int = 1) -> None:
        """Raise `TooMuch` if an original is too large to decode; `frames` is how many of its pictures are wanted."""
        area = facts.width * facts.height
        self._check(max(facts.width, facts.height), "pixels on a side", "side")
        self._check(area, "pixels", "avif_pixels" if facts.type in ("avif", "heic") else "pixels")
        self._check(facts.bands, "bands", "bands")
        self._check(facts.pages, "pages", "pages")
        self._check(area * facts.bands * sample_bytes * frames, "bytes when decoded", "decoded_bytes")

    def check_rendition(self, width: int, height: int, frames: int, format: str) -> None:
        """Raise `TooMuch` if a rendition is too large to make, or larger than its format can hold."""
        self._check(width * height * frames, "pixels in the rendition", "rendition_pixels")
        if max(width, height) > FORMAT_SIDE[format]:
            raise TooMuch(f"{max(width, height)} pixels on a side; {format} allows {FORMAT_SIDE[format]}")

    def check_scaled(self, width: int, height: int, frames: int) -> None:
        """Raise `TooMuch` if a picture becomes too large before the rendition is cut out of it."""
        self._check(width * height * frames, "pixels before cutting", "rendition_pixels")

    def _check(self, found: int, what: str, limit: str) -> None:
        allowed = getattr(self, limit)
        if found > allowed:
            raise TooMuch(f"{found} {what}; limits.{limit} allows {allowed}")
