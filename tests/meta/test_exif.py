"""What a camera wrote, and what of it is believed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from imgproxy.meta.exif import image, taken_at


@pytest.mark.parametrize(
    ("exif", "when"),
    [
        ({"DateTimeOriginal": "2004:03:20 14:54:55"}, "2004-03-20T14:54:55"),
        ({"DateTimeOriginal": "2004:03:20 14:54"}, "2004-03-20T14:54:00"),
        ({"DateTimeOriginal": "2004-03-20T14:54:55.12"}, "2004-03-20T14:54:55"),
        ({"DateTimeOriginal": "0000:00:00 00:00:00", "DateTimeDigitized": "2004:03:20 14:54:55"}, "2004-03-20T14:54:55"),
        ({"DateTimeOriginal": "2004:02:30 14:54:55", "DateTime": "2005:01:02 03:04:05"}, "2005-01-02T03:04:05"),
        ({"DateTimeOriginal": "1970:01:01 00:00:00"}, ""),
        ({"DateTimeOriginal": "0101:01:01 10:00:00"}, ""),
        ({"DateTimeOriginal": "    :  :     :  :  "}, ""),
        ({"DateTimeOriginal": "yesterday"}, ""),
        ({}, ""),
    ],
)
def test_the_best_time_that_can_be_is_taken(exif: Mapping[str, str], when: str) -> None:
    assert taken_at(exif) == when


def test_the_maker_is_named_once() -> None:
    assert image({"Make": "Canon", "Model": "Canon EOS 300D"})["camera"] == "Canon EOS 300D"
    assert image({"Make": "SONY", "Model": "ILCE-7M3"})["camera"] == "SONY ILCE-7M3"
    assert image({"Make": "Leica"})["camera"] == "Leica"


def test_an_exposure_is_told_in_numbers() -> None:
    exif = {"ExposureTime": "1/640", "FNumber": "28/10", "ISOSpeedRatings": "100", "FocalLength": "50/1"}
    assert image(exif)["exposure"] == {"seconds": "1/640", "f": 2.8, "iso": 100.0, "mm": 50.0}


@pytest.mark.parametrize(("tag", "text"), [("FNumber", "1/0"), ("FNumber", "x"), ("ISOSpeedRatings", "-5"), ("FocalLength", "")])
def test_nonsense_says_nothing(tag: str, text: str) -> None:
    assert image({tag: text}) == {}


def test_a_place_is_north_and_east() -> None:
    exif = {
        "GPSLatitude": "33/1 51/1 2191/100",
        "GPSLatitudeRef": "S",
        "GPSLongitude": "151/1 12/1 4080/100",
        "GPSLongitudeRef": "E",
    }
    assert image(exif)["gps"] == {"lat": -33.85609, "lon": 151.21133}


@pytest.mark.parametrize("latitude", ["", "33/1", "33/1 51/1 1/0", "200/1 0/1 0/1", "a b c"])
def test_a_place_that_cannot_be_is_none(latitude: str) -> None:
    assert "gps" not in image({"GPSLatitude": latitude, "GPSLongitude": "151/1 12/1 0/1"})


def test_text_of_a_camera_is_made_harmless() -> None:
    assert image({"Artist": "An\x00na\n\ud800 Muster" + "x" * 5000})["artist"].startswith("Anna Muster")
    assert len(image({"Copyright": "x" * 5000})["copyright"]) == 1000
