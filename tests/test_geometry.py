"""Sizes and places: laws for every size, and the sentences of the specification one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy.geometry import COMPASS, LYING, Rectangle, Size, inset, inside, plan, rescaled, rounded, stored, turning, window
from imgproxy.grammar import Derived

HASH = "0" * 64
SIDES = st.one_of(st.integers(1, 40), st.integers(1, 16_383))
SIZES = st.builds(Size, SIDES, SIDES)
MODES = st.sampled_from(("fit", "fill", "pad", "stretch"))
Grid = list[list[int]]


def boxed(box: Size, mode: str, up: bool) -> Derived:
    options: dict[str, Any] = {"fill": "centre"} if mode == "fill" else {mode: True} if mode != "fit" else {}
    return Derived(HASH, "png", width=box.width, height=box.height, up=up, **options)


@given(SIZES, SIZES, MODES, st.booleans())
def test_nothing_is_below_one_pixel_and_windows_are_inside(picture: Size, box: Size, mode: str, up: bool) -> None:
    scaled, cut, canvas = plan(picture, boxed(box, mode, up))
    assert all(1 <= c <= s for c, s in zip(cut, scaled, strict=True))
    assert all(c <= whole <= most for c, whole, most in zip(cut, canvas, box, strict=True))


@given(SIZES, SIZES, MODES)
def test_without_up_nothing_is_enlarged(picture: Size, box: Size, mode: str) -> None:
    scaled = plan(picture, boxed(box, mode, up=False)).scaled
    assert scaled.width <= picture.width
    assert scaled.height <= picture.height


@given(SIZES, SIZES, st.sampled_from(("fit", "fill", "pad")), st.booleans())
def test_the_shape_of_the_picture_is_kept_to_half_a_pixel(picture: Size, box: Size, mode: str, up: bool) -> None:
    scaled = plan(picture, boxed(box, mode, up)).scaled
    by_width = abs(scaled.height * picture.width - picture.height * scaled.width) * 2 <= picture.width
    by_height = abs(scaled.width * picture.height - picture.width * scaled.height) * 2 <= picture.height
    assert by_width or by_height or 1 in scaled


@given(SIZES, SIZES, st.sampled_from(("fill", "stretch")))
def test_a_box_that_is_too_large_shrinks_in_its_own_shape_until_it_touches(picture: Size, box: Size, mode: str) -> None:
    canvas = plan(picture, boxed(box, mode, up=False)).canvas
    if box.width <= picture.width and box.height <= picture.height:
        assert canvas == box
    else:
        assert canvas.width == picture.width or canvas.height == picture.height
        off = min(abs(canvas.width * box.height - box.width * canvas.height) * 2 / side for side in box)
        assert off <= 1 or 1 in canvas


@given(SIZES, SIZES, st.sampled_from(("fill", "stretch", "pad")))
def test_with_up_the_box_is_always_delivered(picture: Size, box: Size, mode: str) -> None:
    assert plan(picture, boxed(box, mode, up=True)).canvas == box


@given(SIZES, SIZES)
def test_pad_always_delivers_exactly_the_box(picture: Size, box: Size) -> None:
    assert plan(picture, boxed(box, "pad", up=False)).canvas == box


@given(SIZES, SIZES)
def test_fit_touches_the_box_or_leaves_the_picture_as_it_is(picture: Size, box: Size) -> None:
    canvas = plan(picture, boxed(box, "fit", up=False)).canvas
    assert canvas == picture or canvas.width == box.width or canvas.height == box.height


@given(SIZES, SIDES, st.booleans(), st.booleans())
def test_one_side_is_met_and_the_other_follows(picture: Size, side: int, wide: bool, up: bool) -> None:
    name = Derived(HASH, "png", width=side if wide else None, height=None if wide else side, up=up)
    canvas = plan(picture, name).canvas
    asked, had = (canvas.width, picture.width) if wide else (canvas.height, picture.height)
    assert asked == (side if up else min(side, had))
    if asked == had:
        assert canvas == picture


@given(SIZES, st.data(), st.tuples(st.integers(0, 1000), st.integers(0, 1000)))
def test_a_window_is_inside_and_its_middle_as_near_to_the_focus_as_can_be(scaled: Size, data: Any, focus: tuple[int, int]) -> None:
    cut = Size(*(data.draw(st.integers(1, side)) for side in scaled))
    found = window(scaled, cut, focus)
    assert found.size == cut
    assert inside(found, scaled)
    for begin, part, whole, point in zip(found[:2], cut, scaled, focus, strict=True):
        off = abs((2 * begin + part) * 1000 - 2 * whole * point)
        others = [abs((2 * other + part) * 1000 - 2 * whole * point) for other in (begin - 1, begin + 1) if 0 <= other <= whole - part]
        assert all(off <= other for other in others)


@given(SIZES, SIZES, st.data())
def test_a_part_of_a_shrunk_picture_is_right_to_half_a_pixel_and_never_empty(whole: Size, small: Size, data: Any) -> None:
    x, y = (data.draw(st.integers(0, side - 1)) for side in whole)
    part = Rectangle(x, y, data.draw(st.integers(1, whole.width - x)), data.draw(st.integers(1, whole.height - y)))
    found = rescaled(part, whole, small)
    assert inside(found, small)
    assert min(found.size) >= 1
    if found.width > 1:
        assert abs(found.x * whole.width - part.x * small.width) * 2 <= whole.width
        assert abs((found.x + found.width) * whole.width - (part.x + part.width) * small.width) * 2 <= whole.width


@given(SIZES, SIZES)
def test_the_whole_stays_the_whole(whole: Size, small: Size) -> None:
    assert rescaled(Rectangle(0, 0, *whole), whole, small) == Rectangle(0, 0, *small)


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_rounding_is_to_the_nearest_halves_upwards(numerator: int, denominator: int) -> None:
    whole = rounded(numerator, denominator, least=0)
    assert -denominator <= 2 * (numerator - whole * denominator) < denominator


@pytest.mark.parametrize(
    ("picture", "suffix", "canvas"),
    [
        ((3000, 2000), {"width": 1024, "height": 512}, (768, 512)),
        ((3000, 2000), {"width": 320}, (320, 213)),
        ((3000, 2000), {"height": 480}, (720, 480)),
        ((300, 200), {"width": 320}, (300, 200)),
        ((300, 200), {"width": 320, "up": True}, (320, 213)),
        ((3000, 2000), {}, (3000, 2000)),
        ((300, 100), {"width": 200, "height": 200, "fill": "centre"}, (100, 100)),
        ((300, 100), {"width": 200, "height": 200, "fill": "centre", "up": True}, (200, 200)),
        ((100, 80), {"width": 200, "height": 40, "stretch": True}, (100, 20)),
        ((100, 80), {"width": 200, "height": 200, "pad": True}, (200, 200)),
        ((20_000, 1), {"width": 100, "height": 100}, (100, 1)),
        ((20_000, 1), {"width": 1000, "height": 1000, "fill": "centre"}, (1, 1)),
    ],
)
def test_sizes_that_are_promised(picture: tuple[int, int], suffix: dict[str, Any], canvas: tuple[int, int]) -> None:
    assert plan(Size(*picture), Derived(HASH, "png", **suffix)).canvas == canvas


def test_what_is_padded_is_not_enlarged() -> None:
    name = Derived(HASH, "png", width=200, height=200, pad=True)
    assert plan(Size(100, 80), name).scaled == (100, 80)
    assert plan(Size(1000, 800), name).scaled == (200, 160)


@pytest.mark.parametrize(
    ("corner", "place"),
    [
        ("nw", (5, 5)),
        ("n", (40, 5)),
        ("ne", (75, 5)),
        ("e", (75, 20)),
        ("se", (75, 35)),
        ("s", (40, 35)),
        ("sw", (5, 35)),
        ("w", (5, 20)),
        ("centre", (40, 20)),
    ],
)
def test_a_mark_stands_in_its_corner_with_a_margin(corner: str, place: tuple[int, int]) -> None:
    assert inset(Size(100, 50), Size(20, 10), corner, 5) == place


@pytest.mark.parametrize("corner", COMPASS)
def test_a_mark_as_large_as_the_picture_covers_it(corner: str) -> None:
    assert inset(Size(100, 50), Size(100, 50), corner, 5) == (0, 0)


def mirrored(grid: Grid) -> Grid:
    return [row[::-1] for row in grid]


def turned(grid: Grid, angle: int) -> Grid:
    for _ in range(angle // 90):
        grid = [list(row) for row in zip(*grid[::-1], strict=True)]
    return grid


def upright(grid: Grid, orientation: int) -> Grid:
    """What the EXIF specification says, word by word: where row 0 and column 0 of the stored picture are."""
    transposed = [list(row) for row in zip(*grid, strict=True)]
    return {
        1: grid,
        2: mirrored(grid),
        3: mirrored(grid)[::-1],
        4: grid[::-1],
        5: transposed,
        6: mirrored(transposed),
        7: mirrored(transposed)[::-1],
        8: transposed[::-1],
    }[orientation]


STORED = [[10 * row + column for column in range(5)] for row in range(3)]


def part_of(grid: Grid, part: Rectangle) -> Grid:
    return [row[part.x : part.x + part.width] for row in grid[part.y : part.y + part.height]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rectangle_of_the_upright_picture_is_found_in_the_stored_one(orientation: int) -> None:
    size = Size(5, 3).turned(orientation in LYING)
    for x in range(size.width):
        for y in range(size.height):
            part = Rectangle(x, y, min(2, size.width - x), min(2, size.height - y))
            there = stored(part, size, orientation)
            assert upright(part_of(STORED, there), orientation) == part_of(upright(STORED, orientation), part)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_flip_and_turn_are_one_turn_and_one_mirror(orientation: int, flip: bool, turn: int) -> None:
    wanted = upright(STORED, orientation)
    wanted = turned(mirrored(wanted) if flip else wanted, turn)
    angle, mirror = turning(orientation, flip, turn)
    found = turned(STORED, angle)
    assert (mirrored(found) if mirror else found) == wanted
