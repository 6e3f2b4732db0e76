"""What one request may cost."""

from __future__ import annotations

import pytest

from imgproxy.errors import TooMuch
from imgproxy.limits import FORMAT_SIDE, Limits
from imgproxy.picture import Facts

LIMITS = Limits(file_bytes=1000, side=200, pixels=10_000, avif_pixels=5_000, bands=4, decoded_bytes=30_000, pages=3, rendition_pixels=2_000)


def facts(width: int = 10, height: int = 10, *, type: str = "jpg", bands: int = 3, pages: int = 1) -> Facts:
    return Facts(type, width, height, bands, pages, alpha=False, orientation=1)


def test_what_is_exactly_at_the_limit_passes() -> None:
    LIMITS.check_file(1000)
    LIMITS.check_source(facts(100, 100))
    LIMITS.check_source(facts(50, 50, bands=4, pages=3), frames=3)
    LIMITS.check_source(facts(50, 100, type="avif"), sample_bytes=2)
    LIMITS.check_rendition(20, 50, 2, "gif")


def test_a_file_of_too_many_bytes_is_refused_by_name() -> None:
    with pytest.raises(TooMuch, match=r"^1001 bytes; limits\.file_bytes allows 1000$"):
        LIMITS.check_file(1001)


@pytest.mark.parametrize(
    ("found", "sample_bytes", "frames", "text"),
    [
        (facts(201, 1), 1, 1, "201 pixels on a side; limits.side allows 200"),
        (facts(1, 201), 1, 1, "201 pixels on a side; limits.side allows 200"),
        (facts(101, 100), 1, 1, "10100 pixels; limits.pixels allows 10000"),
        (facts(51, 100, type="avif"), 1, 1, "5100 pixels; limits.avif_pixels allows 5000"),
        (facts(51, 100, type="heic"), 1, 1, "5100 pixels; limits.avif_pixels allows 5000"),
        (facts(bands=5), 1, 1, "5 bands; limits.bands allows 4"),
        (facts(pages=4), 1, 1, "4 pages; limits.pages allows 3"),
        (facts(100, 100, bands=4), 1, 1, "40000 bytes when decoded; limits.decoded_bytes allows 30000"),
        (facts(100, 60), 2, 1, "36000 bytes when decoded; limits.decoded_bytes allows 30000"),
        (facts(100, 60, pages=2), 1, 2, "36000 bytes when decoded; limits.decoded_bytes allows 30000"),
    ],
)
def test_a_source_beyond_a_limit_is_refused_by_its_name(found: Facts, sample_bytes: int, frames: int, text: str) -> None:
    with pytest.raises(TooMuch) as refusal:
        LIMITS.check_source(found, sample_bytes, frames)
    assert str(refusal.value) == text


def test_a_rendition_is_counted_with_all_its_frames() -> None:
    LIMITS.check_rendition(40, 50, 1, "webp")
    with pytest.raises(TooMuch, match=r"^4000 pixels in the rendition; limits\.rendition_pixels allows 2000$"):
        LIMITS.check_rendition(40, 50, 2, "webp")


def test_a_picture_too_large_before_it_is_cut_is_refused() -> None:
    LIMITS.check_scaled(40, 50, 1)
    with pytest.raises(TooMuch, match=r"^2050 pixels before cutting; limits\.rendition_pixels allows 2000$"):
        LIMITS.check_scaled(41, 50, 1)


@pytest.mark.parametrize("format", FORMAT_SIDE)
def test_a_format_has_a_longest_side_of_its_own(format: str) -> None:
    most = FORMAT_SIDE[format]
    Limits().check_rendition(most, 1, 1, format)
    with pytest.raises(TooMuch, match=f"^{most + 1} pixels on a side; {format} allows {most}$"):
        Limits().check_rendition(1, most + 1, 1, format)
