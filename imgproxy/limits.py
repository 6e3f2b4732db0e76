"""How much one request may cost: asked in the room, of everyone alike, before anything is decoded.

Who may ask at all is another question (`security.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from imgproxy.errors import TooMuch
from imgproxy.picture import Facts


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
