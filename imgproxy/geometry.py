"""Sizes and places in exact numbers: how large a rendition is, which part of the picture is in it, and where.

Everything here is whole numbers and exact fractions; no side is ever below one pixel. "Upright" is the picture as people
see it, "stored" the picture as the file has it, before the EXIF orientation is followed.
"""

from __future__ import annotations

from typing import NamedTuple

from imgproxy.grammar import Derived

COMPASS = {
    "centre": (500, 500),
    "n": (500, 0),
    "ne": (1000, 0),
    "e": (1000, 500),
    "se": (1000, 1000),
    "s": (500, 1000),
    "sw": (0, 1000),
    "w": (0, 500),
    "nw": (0, 0),
}
"""The nine points that have a name, as focal points in permille."""

LYING = frozenset((5, 6, 7, 8))
"""The EXIF orientations whose stored picture has width and height exchanged."""


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def turned(self, quarter: bool) -> Size:
        """The size after a quarter turn, or the same."""
        return Size(self.height, self.width) if quarter else self


class Rectangle(NamedTuple):
    """A part of a picture: the place of its top left corner, and its size."""

    x: int
    y: int
    width: int
    height: int

    @property
    def size(self) -> Size:
        """Width and height alone."""
        return Size(self.width, self.height)


class Plan(NamedTuple):
    """What becomes of a picture: it is scaled to `scaled`, of that a window of `cut` is kept, and put amidst `canvas`."""

    scaled: Size
    cut: Size
    canvas: Size


def rounded(numerator: int, denominator: int, least: int = 1) -> int:
    """The whole number nearest to a fraction, halves upwards, but never below `least`."""
    return max(least, (2 * numerator + denominator) // (2 * denominator))


def plan(picture: Size, name: Derived) -> Plan:
    """How a picture of this size, as it stands after crop and turn, becomes the rendition of that name."""
    if name.width is None or name.height is None:
        return _whole(_along(picture, name))
    box = Size(name.width, name.height)
    if name.stretch:
        return _whole(box if name.up else _largest(box, picture))
    if name.fill is not None:
        cut = box if name.up else _largest(box, picture)
        return Plan(_covering(picture, cut), cut, cut)
    inside = _fitting(picture, box) if name.up or not _holds(box, picture) else picture
    return Plan(inside, inside, box if name.pad else inside)


def window(scaled: Size, cut: Size, focus: tuple[int, int]) -> Rectangle:
    """The window of size `cut` that has the focal point (permille) as near to its middle as the edges of `scaled` allow."""
    x, y = (
        min(rounded(2 * whole * point - 1000 * part, 2000, 0), whole - part) for whole, part, point in zip(scaled, cut, focus, strict=True)
    )
    return Rectangle(x, y, *cut)


def inset(outer: Size, inner: Size, corner: str, margin: int) -> tuple[int, int]:
    """Where `inner` begins when it stands in that corner of `outer`, `margin` away from the edges while there is room."""
    places = []
    for whole, part, point in zip(outer, inner, COMPASS[corner], strict=True):
        room = whole - part
        near = min(margin, max(room // 2, 0))
        places.append({0: near, 500: room // 2, 1000: room - near}[point])
    return places[0], places[1]


def turning(orientation: int, flip: bool, turn: int) -> tuple[int, bool]:
    """The EXIF orientation, then a flip, then a turn clockwise, as one: an angle to turn by, and whether to mirror after that."""
    angle, mirrored = {2: (0, True), 3: (180, False), 4: (180, True), 5: (90, True), 6: (90, False), 7: (270, True), 8: (270, False)}.get(
        orientation, (0, False)
    )
    mirrored ^= flip
    return (angle + (-turn if mirrored else turn)) % 360, mirrored


def inside(part: Rectangle, whole: Size) -> bool:
    """Whether the rectangle lies within a picture of that size."""
    return part.x + part.width <= whole.width and part.y + part.height <= whole.height


def stored(part: Rectangle, upright: Size, orientation: int) -> Rectangle:
    """A rectangle of the upright picture as a rectangle of the stored one."""
    x, y, width, height = part
    right, below = upright.width - x - width, upright.height - y - height
    return {
        2: Rectangle(right, y, width, height),
        3: Rectangle(right, below, width, height),
        4: Rectangle(x, below, width, height),
        5: Rectangle(y, x, height, width),
        6: Rectangle(y, right, height, width),
        7: Rectangle(below, right, height, width),
        8: Rectangle(below, x, height, width),
    }.get(orientation, part)


def rescaled(part: Rectangle, whole: Size, small: Size) -> Rectangle:
    """The same part of a picture that was shrunk from `whole` to `small`, to the nearest pixel and never empty."""
    left = min(rounded(part.x * small.width, whole.width, 0), small.width - 1)
    top = min(rounded(part.y * small.height, whole.height, 0), small.height - 1)
    right = rounded((part.x + part.width) * small.width, whole.width)
    bottom = rounded((part.y + part.height) * small.height, whole.height)
    return Rectangle(left, top, max(1, right - left), max(1, bottom - top))


def _whole(size: Size) -> Plan:
    return Plan(size, size, size)


def _along(picture: Size, name: Derived) -> Size:
    """The size when at most one side is asked for."""
    if name.width is not None and (name.up or name.width < picture.width):
        return Size(name.width, rounded(picture.height * name.width, picture.width))
    if name.height is not None and (name.up or name.height < picture.height):
        return Size(rounded(picture.width * name.height, picture.height), name.height)
    return picture


def _holds(box: Size, picture: Size) -> bool:
    return picture.width <= box.width and picture.height <= box.height


def _fitting(picture: Size, box: Size) -> Size:
    """The largest size of the picture's shape inside the box."""
    if box.width * picture.height <= box.height * picture.width:
        return Size(box.width, rounded(picture.height * box.width, picture.width))
    return Size(rounded(picture.width * box.height, picture.height), box.height)


def _covering(picture: Size, box: Size) -> Size:
    """The smallest size of the picture's shape that covers the box."""
    if box.width * picture.height >= box.height * picture.width:
        return Size(box.width, max(box.height, rounded(picture.height * box.width, picture.width)))
    return Size(max(box.width, rounded(picture.width * box.height, picture.height)), box.height)


def _largest(box: Size, picture: Size) -> Size:
    """The box itself, or where the picture is smaller the largest size of the box's shape inside the picture."""
    return box if _holds(picture, box) else _fitting(box, picture)
