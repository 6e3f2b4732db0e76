"""EXIF: what makes sense is taken, what makes none is left out."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy.meta import exif
from imgproxy.meta.exif import Shot, read
from imgproxy.meta.record import edited, shown
from tests.meta.making import record

GOOD = {
    "DateTimeOriginal": "2024:05:17 13:45:00",
    "Make": "FUJIFILM\0\0",
    "Model": " X100V ",
    "LensModel": "23mm",
    "ExposureTime": "1/250",
    "FNumber": "56/10",
    "ISOSpeedRatings": "200",
    "FocalLength": "23/1",
    "Artist": "Ann",
    "Copyright": "© Ann",
    "GPSLatitude": "48/1 8/1 1326/100",
    "GPSLatitudeRef": "N",
    "GPSLongitude": "11/1 34/1 3000/100",
    "GPSLongitudeRef": "W",
    "GPSAltitude": "519/1",
    "GPSAltitudeRef": "0",
}


def test_what_is_shown_is_so() -> None:
    assert doctest.testmod(exif).attempted > 0
    assert doctest.testmod(exif).failed == 0


def test_a_camera_that_says_everything_is_understood() -> None:
    assert read(GOOD) == Shot(
        "2024-05-17T13:45:00",
        {
            "camera": "X100V",
            "maker": "FUJIFILM",
            "lens": "23mm",
            "artist": "Ann",
            "copyright": "© Ann",
            "exposure": {"seconds": 0.004, "aperture": 5.6, "iso": 200.0, "focal_length": 23.0},
            "gps": {"latitude": 48.137017, "longitude": -11.575, "altitude": 519.0},
        },
    )


@pytest.mark.parametrize(
    ("fields", "taken_at"),
    [
        ({"DateTimeOriginal": "0000:00:00 00:00:00", "DateTime": "2020:01:02 03:04:05"}, "2020-01-02T03:04:05"),
        ({"DateTimeOriginal": "2024:13:01 00:00:00", "DateTimeDigitized": "2019-12-31 23:59:59"}, "2019-12-31T23:59:59"),
        ({"DateTimeOriginal": "    :  :     :  :  "}, ""),
        ({"DateTimeOriginal": "1601:01:01 00:00:00"}, ""),
        ({"DateTimeOriginal": "9999:01:01 00:00:00"}, ""),
        ({"DateTimeOriginal": "2024:05:17 13:45:00", "OffsetTimeOriginal": "+99:00"}, "2024-05-17T13:45:00"),
        ({"DateTimeOriginal": "2024:05:17 13:45:00 (2024:05:17 13:45:00, ASCII, 20 components, 20 bytes)"}, "2024-05-17T13:45:00"),
        ({}, ""),
    ],
)
def test_the_first_date_that_makes_sense_is_taken(fields: dict[str, str], taken_at: str) -> None:
    assert read(fields).taken_at == taken_at


@pytest.mark.parametrize(
    "change",
    [
        {"GPSLatitude": "91/1 0/1 0/1"},
        {"GPSLatitude": "48/0 8/1 0/1"},
        {"GPSLatitude": "north"},
        {"GPSLatitude": ""},
        {"GPSLatitude": "0/1 0/1 0/1", "GPSLongitude": "0/1 0/1 0/1"},
    ],
)
def test_what_is_no_place_on_this_earth_is_left_out(change: dict[str, str]) -> None:
    assert "gps" not in read(GOOD | change).image


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), st.text(max_size=60) | st.from_regex(r"[0-9/: .-]{0,30}", fullmatch=True)))
def test_whatever_a_camera_wrote_fits_into_a_record(fields: dict[str, str]) -> None:
    shot = read(fields)
    one = edited(record(1), {"taken_at": shot.taken_at})
    said: dict[str, Any] = shown(one, private=True)
    from imgproxy.meta.record import read as read_record

    assert read_record({name: value for name, value in said.items() if name != "version"} | {"image": shot.image}).image == shot.image
