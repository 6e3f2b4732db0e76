"""Whatever the pixels of an original mean, the rendition shows it in sRGB of 8 bits."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import pytest
import pyvips

from imgproxy.limits import Limits
from imgproxy.picture import SIGNAL_HEAD, colour_signal
from imgproxy.render import render
from tests.pictures import BLUE, GREEN, IMAGES, RED, at, decoded, difference, jpg, named, near, png, quadrants, rendered, slope, solid


def shown(file: str, suffix: str) -> Any:
    return rendered((IMAGES / file).read_bytes(), suffix)


def tif(image: Any, **options: Any) -> bytes:
    return bytes(image.tiffsave_buffer(compression="deflate", **options))


@pytest.mark.parametrize("suffix", ["-full.png", "-40x.png", "-full-crop_4x4x40x30.png", "-60x60-fill.jpg"])
@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("grey", png(solid(80, 60, (100,)))),
        ("grey with alpha", png(solid(80, 60, (100, 255)))),
        ("grey jpeg", jpg(solid(80, 60, (100,)))),
        ("16 bits", png((solid(80, 60, (100, 100, 100)).cast("ushort") * 257).cast("ushort").copy(interpretation="rgb16"))),
        ("16 bits of grey", png((solid(80, 60, (100,)).cast("ushort") * 257).cast("ushort").copy(interpretation="grey16"))),
        ("Lab", tif(solid(80, 60, (100, 100, 100)).colourspace("lab"))),
        ("floats", tif(solid(80, 60, (100, 100, 100)).colourspace("scrgb"))),
        ("a palette", bytes(solid(80, 60, (100, 100, 100)).pngsave_buffer(palette=True))),
    ],
)
def test_grey_stays_that_grey_however_it_is_stored(kind: str, source: bytes, suffix: str) -> None:
    image = rendered(source, suffix)
    assert (image.format, image.interpretation) == ("uchar", "srgb"), kind
    assert near(at(image, image.width // 2, image.height // 2)[:3], (100, 100, 100), 3)
    assert not image.get_typeof("icc-profile-data")


def test_one_bit_is_black_and_white() -> None:
    source = bytes(solid(80, 60, (0,)).insert(solid(40, 60, (255,)), 40, 0).tiffsave_buffer(compression="ccittfax4", bitdepth=1))
    image = rendered(source, "-full.png")
    assert (at(image, 10, 30), at(image, 70, 30)) == ((0, 0, 0), (255, 255, 255))


def test_a_wide_profile_is_followed() -> None:
    """The reddest red of Display P3 is beyond sRGB; 200 of it is as red as 218 of ours."""
    assert near(at(shown("good/sharp__p3.png", "-full.png"), 4, 4), (255, 0, 0, 255))
    p3 = solid(40, 40, (200, 100, 50)).icc_transform("p3", input_profile="srgb")
    assert p3.get_typeof("icc-profile-data")
    assert at(p3, 5, 5) != (200, 100, 50)
    for suffix in ("-full.png", "-20x.png", "-20x-crop_3x3x30x30.png", "-20x.webp"):
        assert near(at(rendered(png(p3), suffix), 5, 5), (200, 100, 50), 3)


def test_prophoto_shows_a_colour_that_its_bare_numbers_are_not() -> None:
    bare = at(decoded((IMAGES / "good/sharp__prophoto.png").read_bytes()), 0, 0)
    assert (bare, at(shown("good/sharp__prophoto.png", "-full.png"), 0, 0)) == ((131, 141, 192), (117, 160, 210))


def test_a_broken_profile_is_ignored() -> None:
    broken = solid(40, 40, (10, 120, 230)).copy()
    broken.set_type(pyvips.GValue.blob_type, "icc-profile-data", b"not a profile at all" * 20)
    assert near(at(rendered(jpg(broken), "-20x.png"), 5, 5), (10, 120, 230))
    grey = solid(40, 40, (77,)).copy()
    grey.set_type(pyvips.GValue.blob_type, "icc-profile-data", b"not a profile at all" * 20)
    assert near(at(rendered(jpg(grey), "-20x.png"), 5, 5), (77, 77, 77))


@pytest.mark.parametrize("colour", [(170, 80, 70), (90, 130, 80), (70, 90, 150), (250, 250, 250), (60, 60, 60)])
def test_cmyk_with_and_without_a_profile_shows_its_colours(colour: tuple[int, ...]) -> None:
    inks = solid(80, 60, colour).icc_transform("cmyk", input_profile="srgb", black_point_compensation=True)
    assert inks.bands == 4
    bare = inks.copy()
    bare.remove("icc-profile-data")
    for source in (jpg(inks), jpg(bare), tif(inks)):
        for suffix in ("-full.png", "-40x.png", "-full.webp"):
            image = rendered(source, suffix)
            assert near(at(image, 5, 5), colour, 12)


def test_a_cmyk_photograph_looks_like_one() -> None:
    image = shown("good/sharp__Channel_digital_image_CMYK_color.jpg", "-100x.jpg")
    assert (image.width, image.height, image.bands) == (100, 67, 3)
    assert all(90 < image[band].avg() < 170 for band in range(3))
    bench = image.crop(0, 50, 30, 17)
    assert bench[1].avg() > bench[2].avg()


def test_the_signal_of_an_avif_without_profile_is_followed() -> None:
    """Rec. 2020 in linear light, in PQ, and sRGB show the same scene: red to the left, green to the right, white below."""
    for kind in ("sdr_rec2020", "hdr_rec2020"):
        file = next((IMAGES / "odd").glob(f"*wcg_{kind}.avif"))
        content = file.read_bytes()
        signal = colour_signal(content[:SIGNAL_HEAD], "avif")
        assert signal is not None
        assert signal[0] == 9
        image = rendered(content, "-full.png")
        left, right = at(image, 5, 80), at(image, 195, 80)
        assert left[0] > 200 > 40 > max(left[1:]), (kind, left)
        assert right[1] > 200 > 40 > max(right[0], right[2]), (kind, right)


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.58069), (18, 0.75)])
def test_the_white_of_paper_stays_near_white_in_hdr(transfer: int, white: float) -> None:
    """203 candela are a little below white, so that there is room for what shines."""
    signal = [white, white * 0.5, 1.0]
    points = [at(rendered(with_signal(solid(8, 8, (round(255 * v),) * 3), 1, transfer), "-full.png"), 4, 4)[0] for v in signal]
    assert 205 <= points[0] <= 250
    assert points[1] < 0.6 * points[0]
    assert points[0] < points[2] <= 255


def with_signal(image: Any, primaries: int, transfer: int) -> bytes:
    """A PNG with a chunk that names primaries and transfer."""
    plain = bytes(image.pngsave_buffer(keep=0))
    chunk = b"cICP" + bytes((primaries, transfer, 0, 1))
    return plain[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]


def test_the_signal_of_a_png_is_followed_and_its_transparency_kept() -> None:
    green = at(rendered(with_signal(solid(8, 8, (100, 200, 100)), 12, 13), "-full.png"), 4, 4)
    assert near(green, at(solid(8, 8, (100, 200, 100)).icc_transform("srgb", input_profile="p3"), 4, 4), 2)
    clear = at(rendered(with_signal(solid(8, 8, (100, 200, 100, 60)), 12, 13), "-full.png"), 4, 4)
    assert near(clear, (*green, 60), 1)


def test_srgb_by_signal_changes_nothing() -> None:
    assert difference(rendered(with_signal(slope(40, 30), 1, 13), "-full.png"), slope(40, 30)) == 0


def test_a_gain_map_is_left_out_and_the_base_picture_shown() -> None:
    image = shown("odd/libavif__2e4310a0__apple_gainmap_old.jpg", "-64x64.jpg")
    assert (image.width, image.height) == (48, 64)
    assert not any(field.startswith("gainmap") for field in image.get_fields())


def test_transparency_by_one_colour_or_by_palette_is_kept() -> None:
    for file in ("Pillow__00fb7d14__p_trns_single.png", "Pillow__1d3973fe__rgb_trns.png", "Pillow__2af16c8f__l_trns.png"):
        image = shown(f"odd/{file}", "-full.png")
        assert image.hasalpha()
        assert (image[3].min(), image[3].max()) == (0, 255)


def test_vivid_colours_are_exact_without_conversion() -> None:
    source = png(quadrants())
    content = render(BytesIO(source), named("-full.png"), Limits())
    assert [at(decoded(content), x, y) for x, y in ((5, 5), (75, 5), (5, 55))] == [RED, GREEN, BLUE]
