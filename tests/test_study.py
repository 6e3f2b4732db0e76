"""A look at an original: what its camera wrote, and a hash by which pictures that look alike are found."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from imgproxy.errors import Damaged
from imgproxy.limits import Limits
from imgproxy.picture import Study
from imgproxy.pool import Pool, PoolPlan
from imgproxy.render import probe, render, study
from tests.pictures import IMAGES, named, noise, oriented, png, rendered, slope, solid

PHOTO = (IMAGES / "good" / "orientation__Landscape_6.jpg").read_bytes()
CAMERA = (IMAGES / "good" / "sharp__Channel_digital_image_CMYK_color.jpg").read_bytes()


def look(content: bytes) -> Study:
    return study(BytesIO(content), Limits())


def apart(one: Study, other: Study) -> int:
    return (int(one.phash, 16) ^ int(other.phash, 16)).bit_count()


def test_a_camera_is_read() -> None:
    exif = look(CAMERA).exif
    assert (exif["Make"], exif["Model"], exif["DateTimeOriginal"]) == ("Canon", "Canon EOS 300D DIGITAL", "2004:03:20 14:54:55")
    assert exif["ExposureTime"] == "1/640"


def test_its_facts_are_those_of_its_header() -> None:
    assert look(CAMERA).facts == probe(BytesIO(CAMERA), Limits())


def test_a_picture_without_a_camera_has_nothing_to_tell() -> None:
    assert look(png(solid(20, 20, (9, 9, 9)))).exif == {}


@pytest.mark.parametrize("suffix", ["-400x.jpg", "-300x-q_40.webp", "-200x.png", "-640x-sharp_5.jpg", "-500x480-stretch.jpg"])
def test_what_looks_alike_is_near(suffix: str) -> None:

    other = render(BytesIO(PHOTO), named(suffix), Limits())
    assert apart(look(PHOTO), look(other)) <= 6


def test_what_looks_different_is_far() -> None:
    assert apart(look(PHOTO), look(CAMERA)) >= 20
    assert apart(look(png(noise(64, 64))), look(PHOTO)) >= 16


@pytest.mark.parametrize("orientation", range(2, 9))
def test_it_is_the_upright_picture_that_counts(orientation: int) -> None:
    picture = rendered(PHOTO, "-300x.png")
    assert apart(look(oriented(picture, 1)), look(oriented(picture, orientation))) <= 4


def test_pictures_smaller_than_the_grid_have_a_hash_too() -> None:
    assert len(look(png(slope(3, 2))).phash) == 16


def test_a_damaged_original_is_noticed() -> None:
    with pytest.raises(Damaged):
        look(PHOTO[: len(PHOTO) // 2])


def test_the_pool_sees_the_same(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "run", Limits(), PoolPlan(renderers=1))
    try:
        assert pool.study(BytesIO(CAMERA), 60) == look(CAMERA)
    finally:
        pool.close()
