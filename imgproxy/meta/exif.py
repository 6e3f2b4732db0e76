"""What a camera wrote -> facts of a record: when, with what, where, by whom.

A camera whose clock was never set, or a scanner that counts zeros, says times that never were; such a time counts as not said, and the
next best is taken. Where a picture was taken stays in the record, and is shown to nobody who may not see it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from imgproxy.meta import fields

_WHEN = ("DateTimeOriginal", "DateTimeDigitized", "DateTime")
_EARLIEST = "1826"
"""The first photograph; a time before it is a clock that was never set, as is the first second of an era."""
_NEVER_SET = ("1970-01-01T00:00:00", "1980-01-01T00:00:00", "2000-01-01T00:00:00", "1904-01-01T00:00:00")
_STAMP = re.compile(r"([0-9]{4})[:/-]([0-9]{2})[:/-]([0-9]{2})[ T]([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?.*", re.DOTALL)
_RATIONAL = re.compile(r"([0-9]{1,12})/([0-9]{1,12})")


def taken_at(exif: Mapping[str, str]) -> str:
    """When the picture was taken, by the clock on the wall there; empty if nobody can tell."""
    for tag in _WHEN:
        match = _STAMP.fullmatch(exif.get(tag, ""))
        if match is None:
            continue
        year, month, day, hour, minute, second = (part or "00" for part in match.groups())
        try:
            when = fields.time(f"{year}-{month}-{day}T{hour}:{minute}:{second}")
        except ValueError:
            continue
        if when >= _EARLIEST and when not in _NEVER_SET:
            return when
    return ""


def image(exif: Mapping[str, str]) -> dict[str, Any]:
    """What the file says of itself, in the words of a record."""
    said: dict[str, Any] = {
        "camera": _camera(exif),
        "lens": exif.get("LensModel", ""),
        "exposure": _exposure(exif),
        "artist": exif.get("Artist", ""),
        "copyright": exif.get("Copyright", ""),
        "gps": _place(exif),
    }
    return {name: _clean(value) for name, value in said.items() if value}


def _camera(exif: Mapping[str, str]) -> str:
    """Maker and model, the maker once."""
    make, model = exif.get("Make", "").strip(), exif.get("Model", "").strip()
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()


def _exposure(exif: Mapping[str, str]) -> dict[str, Any]:
    said = {
        "seconds": exif.get("ExposureTime", ""),
        "f": _number(exif.get("FNumber", "")),
        "iso": _number(exif.get("PhotographicSensitivity") or exif.get("ISOSpeedRatings", "")),
        "mm": _number(exif.get("FocalLength", "")),
    }
    return {name: value for name, value in said.items() if value}


def _number(text: str) -> float | None:
    match = _RATIONAL.fullmatch(text.strip())
    if match is not None:
        above, below = float(match[1]), float(match[2])
        return round(above / below, 2) if below else None
    return float(text) if re.fullmatch("[0-9]{1,12}", text.strip()) else None


def _place(exif: Mapping[str, str]) -> dict[str, float]:
    """Degrees north and east, to about a metre."""
    north, east = _degrees(exif, "GPSLatitude", "S", 90), _degrees(exif, "GPSLongitude", "W", 180)
    return {} if north is None or east is None else {"lat": north, "lon": east}


def _degrees(exif: Mapping[str, str], tag: str, negative: str, most: int) -> float | None:
    """Degrees, minutes and seconds as one number."""
    parts = _RATIONAL.findall(exif.get(tag, ""))
    if len(parts) != 3 or len(exif[tag].split()) != 3 or any(int(below) == 0 for _, below in parts):
        return None
    degrees = sum(int(above) / int(below) / 60.0**power for power, (above, below) in enumerate(parts))
    if degrees > most:
        return None
    return round(-degrees if exif.get(f"{tag}Ref", "").strip().upper() == negative else degrees, 5)


def _clean(value: Any) -> Any:
    """Text without what no record may hold."""
    if isinstance(value, str):
        return "".join(c for c in value if c.isprintable())[:1_000].strip()
    return value
