"""Every option of a name, by facts of the picture: its size, and colours at points."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest

from imgproxy.errors import Impossible, Missing, TooMuch
from imgproxy.limits import Limits
from imgproxy.picture import Mark, Stamp
from imgproxy.render import render
from tests.pictures import (
    BLUE,
    GREEN,
    RED,
    WHITE,
    animation,
    at,
    difference,
    jpg,
    named,
    near,
    noise,
    oriented,
    pages,
    png,
    quadrants,
    rendered,
    slope,
    solid,
)

FOUR = png(quadrants(80, 60))


def corners(image: Any) -> tuple[str, str, str, str]:
    """The colours at the four corners by name: top left, top right, bottom left, bottom right."""
    names = {RED: "red", GREEN: "green", BLUE: "blue", WHITE: "white"}
    right, below = image.width - 3, image.height - 3
    found = [at(image, x, y)[:3] for x, y in ((2, 2), (right, 2), (2, below), (right, below))]
    return tuple(next((name for colour, name in names.items() if near(point, colour, 12)), "?") for point in found)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("suffix", "size"),
    [
        ("-40x40.png", (40, 30)),
        ("-40x.png", (40, 30)),
        ("-x40.png", (53, 40)),
        ("-full.png", (80, 60)),
        ("-800x800.png", (80, 60)),
        ("-160x-up.png", (160, 120)),
        ("-40x40-fill.png", (40, 40)),
        ("-90x90-fill.png", (60, 60)),
        ("-90x90-fill-up.png", (90, 90)),
        ("-40x40-stretch.png", (40, 40)),
        ("-160x60-stretch.png", (80, 30)),
        ("-160x60-stretch-up.png", (160, 60)),
        ("-100x70-pad.png", (100, 70)),
        ("-40x-turn_90.png", (40, 53)),
        ("-full-turn_270.png", (60, 80)),
        ("-full-crop_10x20x30x31.png", (30, 31)),
        ("-1x1.png", (1, 1)),
        ("-x1.png", (1, 1)),
    ],
)
def test_the_size_is_the_one_that_is_asked_for(suffix: str, size: tuple[int, int]) -> None:
    image = rendered(FOUR, suffix)
    assert (image.width, image.height) == size


@pytest.mark.parametrize("format", ["avif", "gif", "jpg", "png", "webp"])
def test_every_format_shows_the_picture(format: str) -> None:
    image = rendered(FOUR, f"-40x30.{format}")
    assert (image.width, image.height) == (40, 30)
    assert corners(image) == ("red", "green", "blue", "white")


@pytest.mark.parametrize(
    ("suffix", "seen"),
    [
        ("-full-flip.png", ("green", "red", "white", "blue")),
        ("-full-turn_90.png", ("blue", "red", "white", "green")),
        ("-full-turn_180.png", ("white", "blue", "green", "red")),
        ("-full-turn_270.png", ("green", "white", "red", "blue")),
        ("-full-flip-turn_90.png", ("white", "green", "blue", "red")),
        ("-full-crop_0x0x40x30.png", ("red", "red", "red", "red")),
        ("-full-crop_0x0x40x60-turn_90.png", ("blue", "red", "blue", "red")),
        ("-full-crop_0x0x40x60-flip-turn_90.png", ("blue", "red", "blue", "red")),
        ("-full-crop_40x0x40x60.png", ("green", "green", "white", "white")),
    ],
)
def test_crop_comes_before_flip_and_flip_before_turn(suffix: str, seen: tuple[str, ...]) -> None:
    assert corners(rendered(FOUR, suffix)) == seen


@pytest.mark.parametrize(
    ("suffix", "seen"),
    [
        ("-20x60-fill_w.png", ("red", "red", "blue", "blue")),
        ("-20x60-fill_e.png", ("green", "green", "white", "white")),
        ("-80x20-fill_n.png", ("red", "green", "red", "green")),
        ("-80x20-fill_s.png", ("blue", "white", "blue", "white")),
        ("-20x60-fill_nw.png", ("red", "red", "blue", "blue")),
        ("-20x60-fill_ne.png", ("green", "green", "white", "white")),
        ("-80x20-fill_se.png", ("blue", "white", "blue", "white")),
        ("-80x20-fill_sw.png", ("blue", "white", "blue", "white")),
        ("-20x60-fill.png", ("red", "green", "blue", "white")),
        ("-20x60-fill_100x500.png", ("red", "red", "blue", "blue")),
        ("-20x60-fill_900x100.png", ("green", "green", "white", "white")),
        ("-20x60-fill_w-flip.png", ("green", "green", "white", "white")),
        ("-60x20-fill_n-turn_90.png", ("blue", "red", "blue", "red")),
        ("-60x20-fill_n-flip-turn_90.png", ("white", "green", "white", "green")),
    ],
)
def test_fill_keeps_the_side_that_is_named_in_the_final_picture(suffix: str, seen: tuple[str, ...]) -> None:
    assert corners(rendered(FOUR, suffix)) == seen


def test_the_focal_point_is_as_near_to_the_middle_as_the_edges_allow() -> None:
    image = rendered(png(slope(256, 64)), "-64x64-fill_300x500.png")
    assert near(at(image, 32, 32), (77, 130, 128))
    assert near(at(rendered(png(slope(256, 64)), "-64x64-fill_10x500.png"), 0, 32), (0, 130, 128))


@pytest.mark.parametrize("interest", ["smart", "entropy"])
def test_smart_and_entropy_find_what_there_is_to_see(interest: str) -> None:
    picture = solid(400, 100, (90, 90, 90)).insert(quadrants(60, 60), 300, 20)
    image = rendered(png(picture), f"-100x100-fill_{interest}.png")
    assert any(corners(image.crop(x, y, 60, 60)) == ("red", "green", "blue", "white") for x in range(41) for y in range(41))


def test_fill_scales_evenly() -> None:
    image = rendered(png(slope(300, 100)), "-50x50-fill.png")
    assert near(at(image, 25, 0), (128, 2, 128))
    assert near(at(image, 0, 25), (85, 129, 128))


def test_stretch_shows_the_whole_picture() -> None:
    image = rendered(png(slope(300, 100)), "-50x50-stretch.png")
    assert near(at(image, 0, 0), (2, 2, 128))
    assert near(at(image, 49, 49), (253, 253, 128))


def test_padding_is_transparent_and_the_picture_in_the_middle() -> None:
    image = rendered(FOUR, "-100x60-pad.png")
    assert [at(image, x, 30)[3] for x in (0, 9, 10, 89, 90, 99)] == [0, 0, 255, 255, 0, 0]
    assert corners(image.crop(10, 0, 80, 60)) == ("red", "green", "blue", "white")


@pytest.mark.parametrize("format", ["avif", "gif", "png", "webp"])
def test_padding_is_transparent_in_every_format_that_can(format: str) -> None:
    image = rendered(FOUR, f"-100x60-pad.{format}")
    assert [at(image, x, 30)[3] for x in (2, 50, 97)] == [0, 255, 0]


def test_padding_is_white_in_jpg() -> None:
    image = rendered(FOUR, "-100x60-pad.jpg")
    assert near(at(image, 2, 30), WHITE)
    assert near(at(image, 20, 10), RED, 12)


@pytest.mark.parametrize("format", ["avif", "gif", "jpg", "png", "webp"])
def test_a_background_is_put_under_padding_and_transparency_in_every_format(format: str) -> None:
    half = png(quadrants(80, 60).bandjoin(solid(80, 60, (0,)).insert(solid(40, 60, (255,)), 0, 0)[0]))
    image = rendered(half, f"-100x60-bg_336699-pad.{format}")
    assert not image.hasalpha() or image[3].min() == 255
    assert near(at(image, 3, 3)[:3], (0x33, 0x66, 0x99), 10)
    assert near(at(image, 70, 10)[:3], (0x33, 0x66, 0x99), 10)
    assert near(at(image, 20, 10)[:3], RED, 12)


def test_transparency_becomes_white_in_jpg_and_stays_elsewhere() -> None:
    clear = png(solid(40, 40, (255, 0, 0, 0)))
    assert near(at(rendered(clear, "-full.jpg"), 20, 20), WHITE)
    assert at(rendered(clear, "-full.png"), 20, 20)[3] == 0


def test_no_colour_seeps_out_of_what_is_transparent() -> None:
    """A red field beside transparent blue: where the two meet there is less red, but never any blue."""
    fringe = png(solid(400, 100, (0, 0, 255, 0)).insert(solid(200, 100, (255, 0, 0, 255)), 0, 0))
    for suffix in (
        "-30x.png",
        "-30x-blur_30.png",
        "-30x-sharp_20.png",
        "-33x7-stretch.png",
        "-30x.webp",
        "-400x50-stretch.png",
        "-600x-up.png",
    ):
        image = rendered(fringe, suffix)
        seen = [point for point in (at(image, x, image.height // 2) for x in range(image.width)) if point[3] > 20]
        assert len(seen) >= image.width * 2 // 5
        assert all(point[0] > 200 and point[2] < 50 for point in seen), (suffix, seen)


def test_blur_blurs_by_its_sigma() -> None:
    edge = png(solid(100, 20, (0, 0, 0)).insert(solid(50, 20, WHITE), 50, 0))
    sharp, soft, softer = (rendered(edge, f"-full{blur}.png") for blur in ("", "-blur_20", "-blur_80"))
    assert at(sharp, 48, 10) == (0, 0, 0)
    assert 20 < at(soft, 48, 10)[0] < 90
    assert at(soft, 40, 10)[0] < 3
    assert 20 < at(softer, 40, 10)[0] < 60


def test_blur_reaches_into_the_padding() -> None:
    image = rendered(png(solid(40, 40, RED)), "-80x40-blur_30-pad.png")
    assert 20 < at(image, 18, 20)[3] < 120
    assert at(image, 18, 20)[0] > 245


def test_sharp_steepens_an_edge() -> None:
    edge = rendered(png(solid(100, 20, (80, 80, 80)).insert(solid(50, 20, (180, 180, 180)), 50, 0)), "-full-blur_20.png")
    plain, steep = rendered(png(edge), "-full.png"), rendered(png(edge), "-full-sharp_20.png")
    rise = [at(image, 51, 10)[0] - at(image, 48, 10)[0] for image in (plain, steep)]
    assert rise[1] > rise[0] + 5


@pytest.mark.parametrize("sharp", [1, 10, 30, 100])
def test_sharp_draws_no_halo_along_the_outline(sharp: int) -> None:
    source = png(solid(120, 40, (0, 0, 0, 0)).insert(solid(60, 40, (120, 130, 140, 255)), 0, 0))
    image = rendered(source, f"-full-sharp_{sharp}.png")
    assert all(near(at(image, x, 20), (120, 130, 140, 255), 2) for x in range(60))
    assert all(at(image, x, 20)[3] == 0 for x in range(60, 120))


def test_quality_makes_the_difference() -> None:
    photo = png(noise(200, 200))
    for format in ("avif", "jpg", "webp"):
        sizes = [len(render(BytesIO(photo), named(f"-full{q}.{format}"), Limits())) for q in ("-q_10", "", "-q_95")]
        assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("format", ["avif", "webp"])
def test_lossless_changes_no_pixel(format: str) -> None:
    assert difference(rendered(png(noise(60, 40)), f"-full-lossless.{format}"), noise(60, 40)) == 0
    assert difference(rendered(png(noise(60, 40)), f"-full.{format}"), noise(60, 40)) > 0


def test_full_size_png_changes_no_pixel() -> None:
    half_clear = noise(60, 40).bandjoin(noise(60, 40)[0])
    assert difference(rendered(png(half_clear), "-full.png"), half_clear) == 0


def test_a_page_of_a_tiff_is_counted_from_one() -> None:
    source = pages([RED, GREEN, BLUE])
    assert at(rendered(source, "-full.png"), 20, 15) == RED
    assert at(rendered(source, "-full-page_2.png"), 20, 15) == GREEN
    assert near(at(rendered(source, "-20x-crop_5x5x10x10-page_3-turn_90.png"), 5, 5), BLUE)


def test_a_frame_of_an_animation_is_a_page() -> None:
    source = animation([RED, GREEN, BLUE], [100, 100, 100], 0)
    assert at(rendered(source, "-full-page_3.png"), 20, 15)[:3] == BLUE
    assert at(rendered(source, "-full.png"), 20, 15)[:3] == RED


def test_a_page_that_is_not_there_is_impossible() -> None:
    with pytest.raises(Impossible, match=r"^page 4 of an original that has 3$"):
        rendered(pages([RED, GREEN, BLUE]), "-full-page_4.png")
    with pytest.raises(Impossible, match=r"^page 2 of an original that has 1$"):
        rendered(FOUR, "-full-page_2.png")


@pytest.mark.parametrize("crop", ["0x0x81x60", "0x0x80x61", "80x0x1x1", "70x50x11x1", "999999x0x1x1"])
def test_a_crop_outside_the_original_is_impossible(crop: str) -> None:
    with pytest.raises(Impossible, match=f"^crop {crop} reaches outside the original of 80x60$"):
        rendered(FOUR, f"-full-crop_{crop}.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_show_the_same_picture(orientation: int) -> None:
    upright = slope(160, 96)
    source = oriented(upright, orientation)
    for suffix in ("-full.png", "-40x.png", "-30x30-fill_n.png", "-30x-crop_16x8x64x48.png", "-x30-flip-turn_90.png", "-50x50-pad.png"):
        assert difference(rendered(source, suffix), rendered(jpg(upright), suffix)) < 2.5, suffix


@pytest.mark.parametrize("format", ["avif", "gif", "jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_no_format_is_told_to_turn_once_more_what_is_upright(orientation: int, format: str) -> None:
    """Decoders turn an AVIF by a box of its own, whatever has become of the metadata."""
    seen = rendered(oriented(quadrants(96, 64), orientation), f"-full.{format}")
    assert (seen.width, seen.height) == (96, 64)
    assert corners(seen) == ("red", "green", "blue", "white")
    assert not seen.get_typeof("orientation")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_is_of_the_upright_picture(orientation: int) -> None:
    source = oriented(quadrants(96, 64), orientation)
    assert corners(rendered(source, "-full-crop_0x0x48x32.png")) == ("red",) * 4
    assert corners(rendered(source, "-full-crop_48x0x48x64.png")) == ("green", "green", "white", "white")
    with pytest.raises(Impossible, match="the original of 96x64"):
        rendered(source, "-full-crop_0x0x64x96.png")


@pytest.mark.parametrize("size", ["20x20", "100x100", "7x"])
@pytest.mark.parametrize("crop", ["0x0x640x640", "333x111x517x333", "801x601x799x599"])
def test_shrinking_while_loading_moves_a_crop_by_less_than_half_a_pixel(crop: str, size: str) -> None:
    """A slope tells its own place; a PNG of it is never shrunk while loading."""
    picture = slope(1600, 1200)
    suffix = f"-{size}-crop_{crop}.png"
    exact = rendered(png(picture), suffix)
    step = 255 / exact.width
    for source in (jpg(picture), bytes(picture.webpsave_buffer(Q=95))):
        assert difference(rendered(source, suffix)[0:2], exact[0:2]) < step / 2 + 1


# ---- the mark


def stamped(suffix: str, mark: Mark, source: bytes | None = None, picture: bytes | None = None) -> Any:
    stamp = Stamp(mark, BytesIO(picture or png(solid(40, 20, BLUE))))
    return rendered(source or png(solid(200, 100, RED)), suffix, stamp=stamp)


@pytest.mark.parametrize(
    ("place", "x", "y"),
    [
        ("nw", 10, 10),
        ("n", 80, 10),
        ("ne", 150, 10),
        ("e", 150, 40),
        ("se", 150, 70),
        ("s", 80, 70),
        ("sw", 10, 70),
        ("w", 10, 40),
        ("centre", 80, 40),
    ],
)
def test_a_mark_stands_where_its_profile_says(place: Any, x: int, y: int) -> None:
    image = stamped("-full-mark_a.png", Mark(place=place, size=200, margin=100))
    assert at(image, x + 20, y + 10) == BLUE
    assert image.bands == 3
    blue = (image[2] > 128).ifthenelse(255, 0)
    assert blue.find_trim(background=0, threshold=10) == [x, y, 40, 20]


def test_a_mark_grows_with_the_rendition() -> None:
    for width in (50, 100, 200):
        image = stamped(f"-{width}x-mark_a.png", Mark(place="centre", size=500))
        assert image[2].find_trim(background=0, threshold=128)[2] == width // 2


def test_a_mark_that_is_too_high_is_made_to_fit() -> None:
    image = stamped("-full-mark_a.png", Mark(place="se", size=1000), picture=png(solid(20, 40, BLUE)))
    assert [near(at(image, x, 50), RED) for x in (10, 140, 160, 190)] == [True, True, False, False]


def test_a_mark_has_its_opacity_and_its_own_transparency() -> None:
    half = png(solid(40, 20, (0, 0, 255, 128)))
    assert near(at(stamped("-full-mark_a.png", Mark(place="centre", opacity=50)), 100, 50), (127, 0, 127))
    assert near(at(stamped("-full-mark_a.png", Mark(place="centre"), picture=half), 100, 50), (127, 0, 127))
    assert near(at(stamped("-full-mark_a.png", Mark(place="centre", opacity=50), picture=half), 100, 50), (191, 0, 64))


def test_a_mark_upon_transparency_stays() -> None:
    image = stamped("-full-mark_a.png", Mark(place="centre"), source=png(solid(200, 100, (0, 0, 0, 0))))
    assert at(image, 100, 50) == (*BLUE, 255)
    assert at(image, 2, 2)[3] == 0


def test_a_mark_is_not_turned_with_the_picture_but_upright_by_its_own_orientation() -> None:
    image = stamped("-full-mark_a-turn_90.png", Mark(place="centre", size=800), picture=oriented(quadrants(48, 32), 6))
    assert corners(image.crop(14, 76, 72, 48)) == ("red", "green", "blue", "white")


def test_a_mark_comes_after_the_blur() -> None:
    image = stamped("-full-blur_50-mark_a.png", Mark(place="centre"))
    assert at(image, 81, 41) == BLUE


def test_a_mark_is_guarded_like_any_original() -> None:
    with pytest.raises(TooMuch, match=r"limits\.pixels"):
        rendered(png(solid(10, 10, RED)), "-full-mark_a.png", Limits(pixels=700), Stamp(Mark(), BytesIO(png(solid(40, 20, BLUE)))))


def test_a_name_with_a_mark_needs_its_picture_and_others_ignore_it() -> None:
    with pytest.raises(Missing, match=r"^no watermark profile logo1$"):
        rendered(FOUR, "-full-mark_logo1.png")
    assert difference(stamped("-full.png", Mark(), source=FOUR), quadrants(80, 60)) == 0
