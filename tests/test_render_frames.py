"""Animations: every frame, its time and the number of loops are kept, and every option is done to every frame."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
import pyvips

from imgproxy.errors import TooMuch
from imgproxy.limits import Limits
from imgproxy.picture import Mark, Stamp
from imgproxy.render import render
from tests.pictures import BLUE, GREEN, IMAGES, RED, WHITE, animation, at, decoded, frames, named, near, png, rendered, solid

COLOURS = [RED, GREEN, (9, 9, 9), BLUE, WHITE]
DELAYS = [100, 50, 20, 200, 1000]
SOURCE = animation(COLOURS, DELAYS, loop=4)


def made(source: bytes, suffix: str, stamp: Stamp | None = None) -> bytes:
    return render(BytesIO(source), named(suffix), Limits(), stamp)


def timing(content: bytes) -> tuple[int, list[int], int]:
    header = decoded(content, n=-1)
    return header.get("n-pages"), header.get("delay"), header.get("loop")


@pytest.mark.parametrize("suffix", ["-full-anim.gif", "-full-anim.webp", "-20x-anim.gif", "-30x30-anim-pad-turn_90.webp"])
def test_frames_times_and_loops_are_kept(suffix: str) -> None:
    content = made(SOURCE, suffix)
    assert timing(content) == (5, DELAYS, 4)
    for frame, colour in zip(frames(content), COLOURS, strict=True):
        assert near(at(frame, frame.width // 2, frame.height // 2)[:3], colour, 12)


def test_a_webp_becomes_a_gif_and_back_with_its_times() -> None:
    webp = made(SOURCE, "-full-anim.webp")
    assert timing(made(webp, "-full-anim.gif")) == (5, DELAYS, 4)
    assert timing(made(webp, "-21x-anim.webp")) == (5, DELAYS, 4)


def test_without_anim_there_is_the_first_frame_alone() -> None:
    for suffix in ("-full.gif", "-full.webp", "-full.jpg", "-60x-up.gif"):
        content = made(SOURCE, suffix)
        image = decoded(content)
        assert not image.get_typeof("delay") or image.get("n-pages") == 1
        assert image.width * 30 == image.height * 40
        assert near(at(image, 5, 5)[:3], RED, 12)


def test_a_still_picture_with_anim_is_one_frame() -> None:
    for suffix in ("-full-anim.gif", "-full-anim.webp"):
        image = rendered(png(solid(40, 30, RED)), suffix)
        assert (image.width, image.height) == (40, 30)


def test_equal_neighbours_stay_in_a_gif_and_are_one_longer_frame_in_a_webp() -> None:
    source = animation([RED, RED, GREEN], [100, 50, 30], loop=0)
    assert timing(made(source, "-20x-anim.gif")) == (3, [100, 50, 30], 0)
    assert timing(made(source, "-20x-anim.webp")) == (2, [150, 30], 0)


@pytest.mark.parametrize(
    ("file", "delays", "loop"),
    [
        ("good/sharp__animated-loop-3.gif", [3000] * 9 + [15000], 3),
        ("good/sharp__rotating-squares.webp", [120, 120, 90, 120, 120, 90, 120, 90, 30], 0),
        ("odd/imagor__12e43675__dancing-banana.gif", [100] * 8, 0),
    ],
)
def test_real_animations_are_kept(file: str, delays: list[int], loop: int) -> None:
    source = (IMAGES / file).read_bytes()
    for format in ("gif", "webp"):
        content = made(source, f"-60x60-anim-fill.{format}")
        assert timing(content) == (len(delays), delays, loop)
        assert {(frame.width, frame.height) for frame in frames(content)} == {(60, 60)}


def patterned(colours: list[tuple[int, int, int]]) -> bytes:
    """Frames of one colour with a black bar at the top and a white one at the bottom: what bleeds shows."""
    pictures = [solid(60, 40, colour).insert(solid(60, 8, (0, 0, 0)), 0, 0).insert(solid(60, 8, WHITE), 0, 32) for colour in colours]
    column = pyvips.Image.arrayjoin(pictures, across=1).copy()
    column.set_type(pyvips.GValue.gint_type, "page-height", 40)
    column.set_type(pyvips.GValue.array_int_type, "delay", [100] * len(colours))
    return bytes(column.webpsave_buffer(lossless=True))


def test_frames_never_bleed_into_each_other() -> None:
    source = patterned([RED, GREEN, BLUE])
    for suffix in ("-full-anim-blur_40.webp", "-30x-anim.webp", "-90x-anim-up.webp", "-full-anim-sharp_30.webp"):
        for frame in frames(made(source, suffix)):
            assert max(at(frame, frame.width // 2, 0)[:3]) < 90, suffix
            assert min(at(frame, frame.width // 2, frame.height - 1)[:3]) > 165, suffix


@pytest.mark.parametrize(
    ("suffix", "size", "black"),
    [
        ("-full-anim-turn_90.webp", (40, 60), (36, 30)),
        ("-full-anim-flip-turn_270.webp", (40, 60), (3, 30)),
        ("-full-anim-crop_10x0x40x20.webp", (40, 20), (20, 3)),
        ("-80x40-anim-pad.webp", (80, 40), (40, 3)),
        ("-20x20-anim-fill_n.webp", (20, 20), (10, 1)),
        ("-20x20-anim-fill_entropy.webp", (20, 20), (10, 1)),
    ],
)
def test_every_option_is_done_to_every_frame(suffix: str, size: tuple[int, int], black: tuple[int, int]) -> None:
    found = frames(made(patterned([RED, GREEN, BLUE]), suffix))
    assert len(found) == 3
    for frame, colour in zip(found, (RED, GREEN, BLUE), strict=True):
        assert (frame.width, frame.height) == size
        assert max(at(frame, *black)[:3]) < 60
        assert near(at(frame, size[0] // 2, size[1] // 2)[:3], colour, 40)


def test_smart_takes_the_same_window_of_every_frame() -> None:
    """What there is to see is at the left of the first frame and at the right of the second."""
    left, right = (solid(200, 50, (90, 90, 90)).insert(solid(20, 20, RED), x, 15) for x in (10, 170))
    column = pyvips.Image.arrayjoin([left, right], across=1).copy()
    column.set_type(pyvips.GValue.gint_type, "page-height", 50)
    column.set_type(pyvips.GValue.array_int_type, "delay", [100, 100])
    first, second = frames(made(bytes(column.webpsave_buffer(lossless=True)), "-50x50-anim-fill_smart.webp"))
    assert first[0].max() > 200
    assert second[0].max() < 120


def test_a_mark_and_a_background_are_on_every_frame() -> None:
    stamp = Stamp(Mark(place="centre", size=250), BytesIO(png(solid(20, 20, BLUE))))
    found = frames(made(SOURCE, "-80x30-anim-bg_ffff00-mark_a-pad.gif", stamp))
    for frame, colour in zip(found, COLOURS, strict=True):
        seen: list[Any] = [at(frame, x, 15)[:3] for x in (3, 22, 40, 77)]
        assert near(seen[0], (255, 255, 0), 8)
        assert near(seen[3], (255, 255, 0), 8)
        assert near(seen[1], colour, 12)
        assert near(seen[2], BLUE, 12)


def test_all_frames_together_are_held_against_the_limits() -> None:
    limits = Limits(decoded_bytes=40 * 30 * 4 * 4)
    with pytest.raises(TooMuch, match=r"limits\.decoded_bytes allows 19200"):
        rendered(SOURCE, "-full-anim.gif", limits)
    assert rendered(SOURCE, "-full.gif", limits).width == 40
    with pytest.raises(TooMuch, match=r"6000 pixels in the rendition; limits\.rendition_pixels allows 5000"):
        rendered(SOURCE, "-full-anim.gif", Limits(rendition_pixels=5000))
    with pytest.raises(TooMuch, match=r"5 pages; limits\.pages allows 4"):
        rendered(SOURCE, "-full.gif", Limits(pages=4))
