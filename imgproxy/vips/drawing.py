"""The pipeline, in the order in which every rendition is made, whatever the order in its name.

    page -> upright by EXIF -> crop -> flip -> turn -> size -> blur -> sharpen -> mark -> flatten

What is done to a picture is done to each of its frames; a still picture is an animation of one frame. The order is that of
the result, not of the work: the crop is taken from the stored picture, and scaling comes first, because turning a small
picture is cheaper than turning a large one and gives the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyvips

from imgproxy.errors import Impossible
from imgproxy.geometry import COMPASS, LYING, Plan, Rectangle, Size, inset, inside, plan, rescaled, rounded, stored, turning, window
from imgproxy.grammar import Derived
from imgproxy.limits import Limits
from imgproxy.picture import Mark
from imgproxy.vips.colour import plain, srgb
from imgproxy.vips.opening import Original

_ANIMATED = frozenset(("gif", "webp"))
_CLEAR = [0, 0, 0, 0]
_INTEREST = {"smart": "attention", "entropy": "entropy"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """Finished frames, all of one size, and the header of the original that they come from."""

    frames: list[Any]
    header: Any

    def marked(self, original: Original, mark: Mark) -> Drawing:
        """With a watermark on every frame."""
        canvas = Size(self.frames[0].width, self.frames[0].height)
        picture = _mark(original, mark, canvas)
        margin = min(canvas) * mark.margin // 1000
        x, y = inset(canvas, Size(picture.width, picture.height), mark.place, margin)
        return replace(self, frames=[_over(frame, picture, x, y) for frame in self.frames])

    def flattened(self, name: Derived) -> Drawing:
        """Upon the background, where one is asked for or the format has no transparency."""
        if name.bg is None and name.format != "jpg":
            return self
        colour = list(bytes.fromhex(name.bg or "ffffff"))
        return replace(self, frames=[frame.flatten(background=colour) if frame.hasalpha() else frame for frame in self.frames])


def drawn(original: Original, name: Derived, limits: Limits) -> Drawing:
    """Everything up to the mark."""
    frames = original.facts.pages if name.anim and original.facts.type in _ANIMATED else 1
    part = Rectangle(*name.crop) if name.crop is not None else Rectangle(0, 0, *original.upright)
    if not inside(part, original.upright):
        raise Impossible(f"crop {'x'.join(map(str, part))} reaches outside the original of {'x'.join(map(str, original.upright))}")
    planned = plan(part.size.turned(name.turn in (90, 270)), name)
    limits.check_rendition(*planned.canvas, frames, name.format)
    limits.check_scaled(*planned.scaled, frames)
    limits.check_source(original.facts, original.sample_bytes, frames)
    pictures = _scaled(original, part, planned.scaled.turned(name.turn in (90, 270)), frames)
    pictures = [_turned(picture, turning(original.facts.orientation, name.flip, name.turn or 0)) for picture in pictures]
    return Drawing([_sharpened(_blurred(picture, name), name) for picture in _placed(pictures, planned, name)], original.header)


def _scaled(original: Original, part: Rectangle, size: Size, frames: int) -> list[Any]:
    """The frames' part in its new size, but still as it is stored; in sRGB."""
    size = size.turned(original.facts.orientation in LYING)
    part = stored(part, original.upright, original.facts.orientation)
    column = plain(original.pixels(frames, min(part.width / size.width, part.height / size.height)))
    whole = Size(column.width, column.height // frames)
    part = rescaled(part, original.stored, whole)
    pictures = [
        srgb(_resized(column.crop(part.x, part.y + frame * whole.height, part.width, part.height), size), original.signal)
        for frame in range(frames)
    ]
    return _in_memory(pictures) if frames > 1 else pictures


def _in_memory(frames: list[Any]) -> list[Any]:
    """The frames decoded, once and in their order: what follows may look at them in any order."""
    column = pyvips.Image.arrayjoin(frames, across=1).copy_memory()
    height = column.height // len(frames)
    return [column.crop(0, at * height, column.width, height) for at in range(len(frames))]


def _resized(image: Any, size: Size) -> Any:
    if size == (image.width, image.height):
        return image
    return _with_even_alpha(image, lambda even: even.resize(size.width / even.width, vscale=size.height / even.height))


def _with_even_alpha(image: Any, work: Callable[[Any], Any]) -> Any:
    """Work on premultiplied pixels, so that no colour seeps out of what is transparent."""
    if not image.hasalpha():
        return work(image)
    return work(image.premultiply().cast(image.format)).unpremultiply().cast(image.format)


def _turned(picture: Any, turn: tuple[int, bool]) -> Any:
    """Turned, then mirrored."""
    angle, mirrored = turn
    if angle:
        picture = picture.copy_memory().rot(f"d{angle}")
    return picture.fliphor() if mirrored else picture


def _placed(pictures: list[Any], planned: Plan, name: Derived) -> list[Any]:
    """Cut to the window, or put upon the transparent canvas; every frame at the same place."""
    if planned.cut != planned.scaled:
        if name.fill in _INTEREST:
            pictures = _in_memory(pictures)
        part = _window(pictures[0], planned, name.fill)
        pictures = [picture.crop(*part) for picture in pictures]
    if planned.canvas != planned.cut:
        pictures = [_padded(picture, planned.canvas) for picture in pictures]
    return pictures


def _window(picture: Any, planned: Plan, fill: str | tuple[int, int] | None) -> Rectangle:
    """The window to keep: where the name says, or where there is most to see."""
    if isinstance(fill, tuple):
        return window(planned.scaled, planned.cut, fill)
    if fill in _INTEREST:
        found = picture.smartcrop(*planned.cut, interesting=_INTEREST[fill])
        return Rectangle(-found.xoffset, -found.yoffset, *planned.cut)
    return window(planned.scaled, planned.cut, COMPASS[fill or "centre"])


def _padded(picture: Any, canvas: Size) -> Any:
    x, y = (canvas.width - picture.width) // 2, (canvas.height - picture.height) // 2
    return _with_alpha(picture).embed(x, y, *canvas, extend="background", background=_CLEAR)


def _with_alpha(picture: Any) -> Any:
    return picture if picture.hasalpha() else picture.bandjoin(255)


def _blurred(picture: Any, name: Derived) -> Any:
    if name.blur is None:
        return picture
    sigma = name.blur / 10
    return _with_even_alpha(picture, lambda even: even.gaussblur(sigma))


def _sharpened(picture: Any, name: Derived) -> Any:
    """Sharpened within its outline: an edge towards transparency is none of the picture's, and gets no halo."""
    if name.sharp is None:
        return picture
    sigma = name.sharp / 10
    if not picture.hasalpha():
        return picture.sharpen(sigma=sigma)
    alpha, even = picture[3], picture.premultiply().cast("uchar")
    around = even.gaussblur(2 * sigma).unpremultiply()[0:3]
    filled = (even[0:3] + around * (1 - alpha / 255)).cast("uchar").copy(interpretation="srgb")
    return filled.sharpen(sigma=sigma).bandjoin(alpha)


def _mark(original: Original, mark: Mark, canvas: Size) -> Any:
    """The watermark's picture in the size and strength that its profile asks for on a canvas of that size."""
    size = Size(*original.upright)
    wide = Size(rounded(canvas.width * mark.size, 1000), rounded(size.height * canvas.width * mark.size, size.width * 1000))
    if wide.height > canvas.height:
        wide = Size(rounded(size.width * canvas.height, size.height), canvas.height)
    (picture,) = _scaled(original, Rectangle(0, 0, *size), wide, 1)
    picture = _with_alpha(_turned(picture, turning(original.facts.orientation, flip=False, turn=0)))
    return (picture * [1, 1, 1, mark.opacity / 100]).rint().cast("uchar").copy(interpretation="srgb").copy_memory()


def _over(frame: Any, mark: Any, x: int, y: int) -> Any:
    """The mark upon the frame, which stays opaque where it was."""
    done = frame.composite2(mark, "over", x=x, y=y)
    return (done if frame.hasalpha() else done[0:3]).cast("uchar")
