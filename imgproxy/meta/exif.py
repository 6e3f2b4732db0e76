"""What a camera wrote into a file -> when a picture was taken, and the `image` part of its record.

Cameras write nonsense: dates of zeros, texts with NULs, fractions by nothing. What makes no sense is left out, never an error.

    {"camera": "X100V", "maker": "FUJIFILM", "lens": "...", "artist": "...", "copyright": "...",
     "exposure": {"seconds": 0.004, "aperture": 5.6, "iso": 200, "focal_length": 23.0},
     "gps": {"latitude": 48.137, "longitude": 11.575, "altitude": 519.0}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imgproxy.meta.fields import time

_DATES = (
    ("DateTimeOriginal", "OffsetTimeOriginal"),
    ("DateTimeDigitized", "OffsetTimeDigitized"),
    ("DateTime", "OffsetTime"),
)
_TEXTS = {"camera": "Model", "maker": "Make", "lens": "LensModel", "artist": "Artist", "copyright": "Copyright"}
_NUMBERS = {"seconds": "ExposureTime", "aperture": "FNumber", "iso": "ISOSpeedRatings", "focal_length": "FocalLength"}
_DATE = re.compile(r"([0-9]{4})[:/-]([0-9]{2})[:/-]([0-9]{2})[ T]([0-9]{2}:[0-9]{2}:[0-9]{2})")
_OFFSET = re.compile(r"[+-][0-9]{2}:[0-9]{2}")
_FRACTION = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?(?:/[0-9]{1,12})?")
_UNSEEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]+")
_FIRST_PHOTOGRAPH, _TOO_LATE = "1826", "2200"
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Shot:
    """What a file says of itself: `taken_at` and `image` of a record."""

    taken_at: str = ""
    image: Mapping[str, Any] = field(default_factory=dict)


def read(exif: Mapping[str, str]) -> Shot:
    """What these EXIF fields say, by their names in the standard; fractions as `28/10`, several with spaces between.

    >>> read({"DateTimeOriginal": "2024:05:17 13:45:00", "OffsetTimeOriginal": "+02:00", "FNumber": "28/10"})
    Shot(taken_at='2024-05-17T13:45:00+02:00', image={'exposure': {'aperture': 2.8}})
    """
    image: dict[str, Any] = {name: text for name, tag in _TEXTS.items() if (text := _text(exif.get(tag, "")))}
    exposure = {name: number for name, tag in _NUMBERS.items() if (number := _number(exif.get(tag, ""))) and number > 0}
    if exposure:
        image["exposure"] = exposure
    gps = _gps(exif)
    if gps:
        image["gps"] = gps
    return Shot(_taken_at(exif), image)


def _taken_at(exif: Mapping[str, str]) -> str:
    """The first date that makes sense: taken, digitized, changed."""
    for tag, offset in _DATES:
        match = _DATE.match(exif.get(tag, "").strip())
        if match is None or not _FIRST_PHOTOGRAPH <= match[1] < _TOO_LATE:
            continue
        zone = _OFFSET.match(exif.get(offset, "").strip())
        for text in (
            f"{match[1]}-{match[2]}-{match[3]}T{match[4]}{zone[0] if zone else ''}",
            f"{match[1]}-{match[2]}-{match[3]}T{match[4]}",
        ):
            try:
                return str(time(text))
            except ValueError:
                continue
    return ""


def _text(value: str) -> str:
    return _UNSEEN.sub(" ", value[: 4 * _LONGEST]).strip()[:_LONGEST]


def _number(value: str) -> float | None:
    match = _FRACTION.match(value.strip())
    if match is None:
        return None
    above, _, below = match[0].partition("/")
    if below and not int(below):
        return None
    return round(float(above) / int(below or 1), 6)


def _gps(exif: Mapping[str, str]) -> dict[str, float]:
    latitude = _degrees(exif.get("GPSLatitude", ""), exif.get("GPSLatitudeRef", ""), "S", 90)
    longitude = _degrees(exif.get("GPSLongitude", ""), exif.get("GPSLongitudeRef", ""), "W", 180)
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0):
        return {}
    found = {"latitude": latitude, "longitude": longitude}
    altitude = _number(exif.get("GPSAltitude", ""))
    if altitude is not None:
        found["altitude"] = -altitude if exif.get("GPSAltitudeRef", "").strip().startswith("1") else altitude
    return found


def _degrees(value: str, reference: str, negative: str, most: int) -> float | None:
    """Degrees, minutes and seconds as one number; None if that is no place on this earth."""
    parts = [_number(part) for part in value.replace(",", " ").split()[:3]]
    if not parts or None in parts:
        return None
    degrees = sum((part or 0) / 60.0**place for place, part in enumerate(parts))
    if not 0 <= degrees <= most:
        return None
    return round(-degrees if reference.strip().upper().startswith(negative) else degrees, 6)
