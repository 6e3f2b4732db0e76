r"""Names: the text of a request and the value it stands for.

    name     = base / derived
    base     = hash "." type                              ; the original, byte for byte
    derived  = hash "-" size *( "-" option ) "." format   ; rendered from the original
    hash     = 64 lowercase hex digits                    ; the SHA-256 of the original's bytes
    size     = W "x" H  /  W "x"  /  "x" H  /  "full"     ; W, H = 1..16383, no leading zero
    option   = key [ "_" argument ]                       ; each key at most once, in alphabetical order
    format   = "avif" / "gif" / "jpg" / "jxl" / "png" / "webp"
    type     = "avif" / "gif" / "heic" / "jp2" / "jpg" / "jxl" / "pdf" / "png" / "svg" / "tif" / "webp"

The law of this file: `str(parse(text)) == text`, or `parse` raises `BadName`. There is no third case, and no two values share a name.

A text is judged twice. Its *syntax* is one regular expression (`SYNTAX`), put together from the table `OPTIONS`, the same that
prints; it is published for nginx and CDNs. Its *rules*, the second table, are what one expression cannot say: which options
exclude each other, and that nothing states a default. Only when the syntax fails is the text walked piece by piece, to say where.

>>> name = parse("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08-256x256-fill_n.webp")
>>> name.width, name.height, name.fill, name.format
(256, 256, 'n', 'webp')
>>> print(Derived(name.hash, "jpg", width=320, q=60))
9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08-320x-q_60.jpg
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeAlias, TypeVar

from imgproxy.errors import BadName

FORMATS = ("avif", "gif", "jpg", "jxl", "png", "webp")
TYPES = ("avif", "gif", "heic", "jp2", "jpg", "jxl", "pdf", "png", "svg", "tif", "webp")
QUALITY = {"avif": 50, "jpg": 80, "jxl": 75, "webp": 80}
"""The quality of a format when the name states none; a format that is not here has no quality."""
RESERVED = frozenset("cache dpr exp face fit format gray gravity max preset rotate sig text trim".split())
LONGEST = 255
"""No name is longer, for it has to be a file name; the syntax stops at 240. A longer text is refused without looking for its mistake."""

# Every choice below is atomic, `(?>...)`, and stands longest first: nothing is read twice, which halves the time. The published
# form goes without, as JavaScript has no such groups.
_HASH = "[0-9a-f]{64}"
_SIDE = "(?>1638[0-3]|163[0-7][0-9]|16[0-2][0-9]{2}|1[0-5][0-9]{3}|[1-9][0-9]{0,3})"
_SIZE = f"(?>full|x{_SIDE}|{_SIDE}x{_SIDE}?)"
_AT = "(?>0|[1-9][0-9]{0,5})"
_LENGTH = "[1-9][0-9]{0,5}"
_HUNDRED = "(?>100|[1-9][0-9]?)"
_PERMILLE = "(?>0|1000|[1-9][0-9]{0,2})"
_FLAG = "()"


@dataclass(frozen=True)
class Base:
    """The name of an original: the bytes as they came."""

    hash: str
    type: str

    def __post_init__(self) -> None:
        _must_be_its_own_name(self)

    def __str__(self) -> str:
        return f"{self.hash}.{self.type}"


@dataclass(frozen=True)
class Derived:
    """The name of a rendition: an original's hash, and all that is to be done to it."""

    hash: str
    format: str
    width: int | None = None
    height: int | None = None
    anim: bool = False
    bg: str | None = None
    blur: int | None = None
    crop: tuple[int, int, int, int] | None = None
    fill: str | tuple[int, int] | None = None
    flip: bool = False
    lossless: bool = False
    mark: str | None = None
    pad: bool = False
    page: int | None = None
    q: int | None = None
    sharp: int | None = None
    stretch: bool = False
    turn: int | None = None
    up: bool = False

    def __post_init__(self) -> None:
        _must_be_its_own_name(self)

    def __str__(self) -> str:
        return f"{self.hash}{self.suffix}"

    @property
    def size(self) -> str:
        """The size as it is spelled: `1024x512`, `320x`, `x480` or `full`."""
        if self.width is None and self.height is None:
            return "full"
        return f"{'' if self.width is None else self.width}x{'' if self.height is None else self.height}"

    @cached_property
    def suffix(self) -> str:
        """All that follows the hash: what a preset or an allow-list names."""
        words = [self.size]
        for option in OPTIONS:
            value = getattr(self, option.key)
            if value is not None and value is not False:
                argument = "" if value is True else option.show(value)
                words.append(f"{option.key}_{argument}" if argument else option.key)
        return f"-{'-'.join(words)}.{self.format}"

    @property
    def quality(self) -> int | None:
        """The quality to encode with: the one stated, or the format's own."""
        return self.q if self.q is not None else QUALITY.get(self.format)


Name: TypeAlias = Base | Derived
_Kind = TypeVar("_Kind", Base, Derived)


# ---- the tables


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table: how one option is spelled, read and printed.

    `argument` is the pattern of all that follows the key, with one group round what `read` is given; `wanted` is that pattern in words.
    """

    key: str
    argument: str
    wanted: str
    read: Callable[[str], Any] = str
    show: Callable[[Any], str] = str


def _read_flag(_: str) -> bool:
    return True


def _read_numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _show_numbers(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def _read_place(text: str) -> str | tuple[int, ...]:
    return _read_numbers(text[1:]) if "x" in text else text[1:] or "centre"


def _show_place(place: str | tuple[int, ...]) -> str:
    if isinstance(place, tuple):
        return _show_numbers(place)
    return "" if place == "centre" else place


_RECTANGLE = f"_({_AT}x{_AT}x{_LENGTH}x{_LENGTH})"
_PLACE = f"((?>_(?>{_PERMILLE}x{_PERMILLE}|entropy|smart|ne|nw|se|sw|[nesw]))?)"
_PLACES = 'one of n ne e se s sw w nw smart entropy, a focal point XxY of 0 to 1000, or no "_"'

OPTIONS = (
    Option("anim", _FLAG, "no argument", _read_flag),
    Option("bg", "_([0-9a-f]{6})", "a colour of six lowercase hex digits"),
    Option("blur", "_(1000|[1-9][0-9]{0,2})", "tenths of a pixel from 1 to 1000", int),
    Option("crop", _RECTANGLE, "a rectangle XxYxWxH, none above 999999, W and H at least 1", _read_numbers, _show_numbers),
    Option("fill", _PLACE, _PLACES, _read_place, _show_place),
    Option("flip", _FLAG, "no argument", _read_flag),
    Option("lossless", _FLAG, "no argument", _read_flag),
    Option("mark", "_([a-z0-9]{1,16})", "the id of a watermark profile: 1 to 16 of a-z 0-9"),
    Option("pad", _FLAG, "no argument", _read_flag),
    Option("page", "_([1-9][0-9]{1,3}|[2-9])", "a page from 2 to 9999", int),
    Option("q", f"_({_HUNDRED})", "a quality from 1 to 100", int),
    Option("sharp", f"_({_HUNDRED})", "tenths of a pixel from 1 to 100", int),
    Option("stretch", _FLAG, "no argument", _read_flag),
    Option("turn", "_(90|180|270)", "90, 180 or 270", int),
    Option("up", _FLAG, "no argument", _read_flag),
)


def _unboxed(name: Derived) -> bool:
    return name.width is None or name.height is None


_COMPASS = frozenset((x, y) for x in (0, 500, 1000) for y in (0, 500, 1000))
_Rule: TypeAlias = tuple[str, Callable[[Derived], bool], str]

_RULES: tuple[_Rule, ...] = (
    ("anim", lambda name: name.format not in ("gif", "webp"), "{0.format} is never animated here"),
    ("bg", lambda name: name.bg == "ffffff" and name.format == "jpg", "states the default: jpg has a white background"),
    ("fill", _unboxed, "fill needs a size of width and height"),
    ("fill", lambda name: name.fill in _COMPASS, "that focal point is the centre or has a compass name"),
    ("lossless", lambda name: name.format not in ("avif", "jxl", "webp"), "{0.format} has no lossless choice"),
    ("pad", _unboxed, "pad needs a size of width and height"),
    ("pad", lambda name: name.fill is not None, "pad excludes fill"),
    ("page", lambda name: name.anim, "page excludes anim"),
    ("q", lambda name: name.lossless, "lossless excludes a quality"),
    ("q", lambda name: name.format not in QUALITY, "{0.format} has no quality"),
    ("q", lambda name: name.q == QUALITY[name.format], "states the default: {0.format} has quality {0.q}"),
    ("stretch", _unboxed, "stretch needs a size of width and height"),
    ("stretch", lambda name: name.fill is not None, "stretch excludes fill"),
    ("stretch", lambda name: name.pad, "stretch excludes pad"),
    ("up", lambda name: name.size == "full", "full size cannot be enlarged"),
)
"""When an option that is spelled well is refused all the same: its key, the case, and the sentence."""

_BY_KEY = {option.key: option for option in OPTIONS}
_ROWS = tuple((option.key, option.read, tuple(rule for rule in _RULES if rule[0] == option.key)) for option in OPTIONS)

_ANY_OPTIONS = "".join(f"(?>-{option.key}{option.argument})?+" for option in OPTIONS)
_NAME = re.compile(f"({_HASH})(?>-({_SIZE}){_ANY_OPTIONS}[.]({'|'.join(FORMATS)})|[.]({'|'.join(TYPES)}))")
SYNTAX = "^" + re.sub(r"\((?!\?)|\(\?>", "(?:", _NAME.pattern).replace("(?:)", "").replace("?+", "?") + r"$(?!\n)"
"""The syntax as one anchored expression without captures, for nginx, CDNs and JavaScript (what the rules refuse, it lets pass).

nginx compares paths: write `^/` for its `^`. The end says `(?!\\n)` because `$` alone lets a newline follow, in Python and in PCRE.
"""


# ---- the parser


def parse(text: str) -> Name:
    """Return the name that `text` spells, or raise `BadName` with the place where it stops being one."""
    match = _NAME.fullmatch(text)
    if match is None:
        _explain(text)
    hash, size, *arguments, format, type = match.groups()
    if type is not None:
        return _made(Base, {"hash": hash, "type": type})
    stated: dict[str, Any] = {"hash": hash, "format": format}
    if size != "full":
        width, _, height = size.partition("x")
        stated["width"], stated["height"] = int(width) if width else None, int(height) if height else None
    rules: list[_Rule] = []
    for (key, read, its_rules), argument in zip(_ROWS, arguments, strict=True):
        if argument is not None:
            stated[key] = read(argument)
            rules += its_rules
    name = _made(Derived, stated)
    name.__dict__["suffix"] = text[64:]  # as it would be printed: what was read need not be spelled again
    for key, broken, why in rules:
        if broken(name):
            raise BadName(text, _place_of(text, key), why.format(name), rule=True)
    return name


def rendition(hash: str, suffix: str) -> Derived:
    """Return the rendition of an original that a suffix such as `-256x256-fill.webp` names, or raise `BadName`."""
    name = parse(hash + suffix)
    if isinstance(name, Base) or name.hash != hash:
        raise BadName(hash + suffix, 0, "expected the hash of an original, and then the suffix of a rendition")
    return name


def _made(kind: type[_Kind], stated: dict[str, Any]) -> _Kind:
    """A value of what a text states, past `__init__`, which would parse it again; what is not stated is the class's own default.

    Setting every field of a frozen class with slots takes longer than all the rest of `parse`, so the names have none.
    """
    made = object.__new__(kind)
    made.__dict__.update(stated)
    return made


def _must_be_its_own_name(name: Name) -> None:
    text = str(name)
    spelled = parse(text)
    if spelled != name:
        raise BadName(text, 0, f"{spelled!r} has that name")


# ---- saying where a text stops being a name; only ever reached by texts that are none


def _words(text: str) -> Iterator[tuple[int, str]]:
    """The pieces of a derived name after its hash, with their places: size, options; up to a dot or the end."""
    at = 65
    while True:
        end = min((found for found in (text.find("-", at), text.find(".", at)) if found >= 0), default=len(text))
        yield at, text[at:end]
        if end == len(text) or text[end] == ".":
            return
        at = end + 1


def _place_of(text: str, key: str) -> int:
    return next(at for at, word in _words(text) if word.partition("_")[0] == key)


def _explain(text: str) -> NoReturn:
    if len(text) > LONGEST:
        raise BadName(text, LONGEST, f"no name is longer than {LONGEST} characters")
    wrong = next((at for at, char in enumerate(text[:64]) if char not in "0123456789abcdef"), len(text))
    if wrong < 64:
        raise BadName(text, wrong, "expected a hash of 64 lowercase hex digits")
    if text[64:65] == ".":
        raise BadName(text, 65, f"expected a type: {', '.join(TYPES)}")
    if text[64:65] != "-":
        raise BadName(text, 64, 'expected "-" and a size, or "." and a type')
    words = _words(text)
    at, size = next(words)
    _explain_size(text, at, size)
    before = ""
    for at, word in words:
        _explain_option(text, at, word, before)
        before = word.partition("_")[0]
    end = text.find(".", 65)
    if end < 0:
        raise BadName(text, len(text), 'expected "." and a format')
    raise BadName(text, end + 1, f"expected a format: {', '.join(FORMATS)}")


def _explain_size(text: str, at: int, size: str) -> None:
    found = re.match(_SIZE, size)
    rest = size[found.end() :] if found else ""
    if found and not "0" <= rest[:1] <= "9":
        if rest:
            raise BadName(text, at + found.end(), 'expected "-" and an option, or "." and a format')
        return
    width, cross, _ = size.partition("x")
    if not width and not cross:
        raise BadName(text, at, 'expected a size: W "x" H, W "x", "x" H or "full"')
    if width and not re.fullmatch(_SIDE, width):
        raise BadName(text, at, 'expected a width from 1 to 16383, "x" or "full"')
    if not cross:
        raise BadName(text, at + len(width), 'expected "x" after the width')
    raise BadName(text, at + len(width) + 1, "expected a height from 1 to 16383")


def _explain_option(text: str, at: int, word: str, before: str) -> None:
    key, joint, argument = word.partition("_")
    option = _BY_KEY.get(key)
    if option is None:
        if not key:
            raise BadName(text, at, "expected an option")
        raise BadName(text, at, f"{key} is reserved" if key in RESERVED else "expected an option: " + " ".join(_BY_KEY))
    if key == before:
        raise BadName(text, at, f"{key} is there already")
    if key < before:
        raise BadName(text, at, f"{key} comes before {before}: options stand in alphabetical order")
    if not re.fullmatch(option.argument, joint + argument):
        if option.argument == _FLAG:
            raise BadName(text, at + len(key), f"{key} takes no argument")
        raise BadName(text, at + len(key) + len(joint), f"expected {option.wanted}" if joint else f'expected "_" and {option.wanted}')
