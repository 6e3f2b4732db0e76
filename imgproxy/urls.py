"""Public URLs of names, and the HTML that offers a browser several of them.

Loads no library and asks nobody, so that a template may use it anywhere:

>>> from imgproxy.grammar import Derived
>>> urls = Urls("https://img.example.org/", presets={"thumb": "-256x256-fill.webp"})
>>> hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
>>> urls.preset(hash, "thumb")
'https://img.example.org/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08-256x256-fill.webp'
>>> urls.url(Derived(hash, "avif", width=640))
'https://img.example.org/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08-640x.avif'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape

from imgproxy.errors import Missing
from imgproxy.grammar import Derived, Name, rendition
from imgproxy.picture import MEDIA_TYPES
from imgproxy.security import Keyring

# Nothing that an attribute, a `srcset` (comma, space) or a path (`?`, `#`, `%`) reads otherwise.
_PREFIX = re.compile(r"(?:(?:https?:)?//[A-Za-z0-9.-]+(?::[0-9]{1,5})?)?(?:/[A-Za-z0-9._~-]+)*/?")
_ATTRIBUTE = re.compile("[a-z][a-z0-9-]*")
_OURS = frozenset(("alt", "height", "sizes", "src", "srcset", "width"))


class Urls:
    """The builder of URLs under one prefix; with a keyring every path is signed, that of a preset and of a base name, too."""

    def __init__(self, prefix: str = "/", keyring: Keyring | None = None, presets: Mapping[str, str] | None = None) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError("a prefix is a plain path or a URL of http or https, such as /img/ or https://img.example.org/")
        self._prefix = prefix.rstrip("/")
        self._keyring = keyring
        self._presets = dict(presets or {})
        for suffix in self._presets.values():
            rendition("0" * 64, suffix)

    def url(self, name: Name, expires: int | None = None) -> str:
        """Return the URL of a name; one that is signed may expire, in seconds since 1970."""
        if self._keyring is not None:
            return self._prefix + self._keyring.sign(str(name), expires)
        if expires is not None:
            raise ValueError("only a signed URL can expire, and there is no keyring")
        return f"{self._prefix}/{name}"

    def preset(self, hash: str, preset: str) -> str:
        """Return the URL of an original's rendition by the name of a preset."""
        suffix = self._presets.get(preset)
        if suffix is None:
            raise Missing("no preset has that name")
        return self.url(rendition(hash, suffix))

    def srcset(self, name: Derived, *, widths: Sequence[int] = (), densities: Sequence[float] = ()) -> str:
        """Return the same picture several times over for a `srcset`: so many pixels wide, or so many times as large.

        A browser believes the widths. So the name's size must decide them: `full` and `320x` do, and a box with `fill`, `pad` or
        `stretch`, whose aspect ratio is kept; a picture that is fitted into a box may be narrower than the box.
        """
        if bool(widths) == bool(densities):
            raise ValueError("a srcset has either widths or densities")
        if widths:
            return ", ".join(f"{self.url(_so_wide(name, width))} {width}w" for width in widths)
        return ", ".join(f"{self.url(_so_dense(name, density))} {density:g}x" for density in densities)

    def picture(
        self,
        name: Derived,
        alt: str,
        *,
        formats: Iterable[str] = ("avif", "webp"),
        widths: Sequence[int] = (),
        sizes: str = "100vw",
        attributes: Mapping[str, str] | None = None,
    ) -> str:
        """Return a `picture` element: a source for each format, best first, and an `img` of the name itself for all other browsers.

        `widths` and `sizes` are those of `srcset`; `attributes` are further ones of the `img`, such as `class` or `loading`. A quality in
        the name is that of its own format, for the same figure means something else in another: the sources have their format's own.
        """
        others = (replace(name, format=format, q=None) for format in formats if format != name.format)
        sources = [_element("source", {"type": MEDIA_TYPES[other.format]} | self._offer(other, widths, sizes)) for other in others]
        several = self._offer(name, widths, sizes) if widths else {}
        said = {"src": self.url(name)} | several | _box(name) | {"alt": alt} | dict(_further(attributes or {}))
        return f"<picture>{''.join(sources)}{_element('img', said)}</picture>"

    def _offer(self, name: Derived, widths: Sequence[int], sizes: str) -> dict[str, str]:
        return {"srcset": self.srcset(name, widths=widths), "sizes": sizes} if widths else {"srcset": self.url(name)}


def _so_wide(name: Derived, width: int) -> Derived:
    if name.height is None:
        return replace(name, width=width)
    if name.width is None or not _exact(name):
        raise ValueError(f"a srcset of widths needs a size that decides the width, and {name.size} does not: 320x, full, or a box to fill")
    return replace(name, width=width, height=max(1, round(width * name.height / name.width)))


def _so_dense(name: Derived, density: float) -> Derived:
    if name.size == "full":
        raise ValueError("a srcset of densities needs a size, for nothing is larger than full")
    width, height = (side and round(side * density) for side in (name.width, name.height))
    return replace(name, width=width, height=height)


def _exact(name: Derived) -> bool:
    """Whether the size is a box that the picture has the aspect ratio of, rather than one that it is fitted into."""
    return name.fill is not None or name.pad or name.stretch


def _box(name: Derived) -> dict[str, str]:
    """The attributes that let a browser keep the place free before the picture is there."""
    return {"width": str(name.width), "height": str(name.height)} if _exact(name) else {}


def _further(attributes: Mapping[str, str]) -> Mapping[str, str]:
    for attribute in attributes:
        if not _ATTRIBUTE.fullmatch(attribute) or attribute in _OURS:
            raise ValueError(f"not an attribute that may be set here: {attribute!r}")
    return attributes


def _element(tag: str, attributes: Mapping[str, str]) -> str:
    spelled = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    return f"<{tag}{spelled}>"
