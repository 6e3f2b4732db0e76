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
prints; it is published for nginx and CDNs. Its *rules* (`_broken_rule`) are what one expression cannot say: which options
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
from typing import Any, NoReturn, TypeAlias

from imgproxy.errors import BadName

FORMATS = ("avif", "gif", "jpg", "jxl", "png", "webp")
TYPES = ("avif", "gif", "heic", "jp2", "jpg", "jxl", "pdf", "png", "svg", "tif", "webp")
QUALITY = {"avif": 50, "jpg": 80, "jxl": 75, "webp": 80}
"""The quality of a format when the name states none; a format that is not here has no quality."""
RESERVED = frozenset(("cache dpr exp face fit format gray gravity max preset rotate sig text trim").split())

_HASH = "[0-9a-f]{64}"
_SIDE = "(?:[1-9][0-9]{0,3}|1[0-5][0-9]{3}|16[0-2][0-9]{2}|163[0-7][0-9]|1638[0-3])"
_SIZE = f"(?:full|x{_SIDE}|{_SIDE}x{_SIDE}?)"
_AT = "(?:0|[1-9][0-9]{0,5})"
_LONG = "[1-9][0-9]{0,5}"
_HUNDRED = "(?:100|[1-9][0-9]?)"
_PERMILLE = "(?:0|1000|[1-9][0-9]{0,2})"


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table: how one option is spelled, read and printed."""

    key: str
    argument: str
    wanted: str = ""
    read: Callable[[str], Any] = str
    show: Callable[[Any], str] = str


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("x"))


def _joined(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def _read_fill(text: str) -> str | tuple[int, ...]:
    return _numbers(text) if "0" <= text[:1] <= "9" else text or "centre"


def _show_fill(place: str | tuple[int, ...]) -> str:
    if isinstance(place, tuple):
        return _joined(place)
    return "" if place == "centre" else place


_FLAG = ""
_FILL = f"_(?:ne?|nw|e|se?|sw|w|smart|entropy|{_PERMILLE}x{_PERMILLE})"

OPTIONS = (
    Option("anim", _FLAG),
    Option("bg", "_[0-9a-f]{6}", "a colour of six lowercase hex digits"),
    Option("blur", "_(?:1000|[1-9][0-9]{0,2})", "tenths of a pixel from 1 to 1000", int),
    Option("crop", f"_{_AT}x{_AT}x{_LONG}x{_LONG}", "a rectangle XxYxWxH", _numbers, _joined),
    Option(
        "fill",
        f"(?:{_FILL})?",
        'one of n ne e se s sw w nw smart entropy, a focal point XxY of 0 to 1000, or no "_"',
        _read_fill,
        _show_fill,
    ),
    Option("flip", _FLAG),
    Option("lossless", _FLAG),
    Option("mark", "_[a-z0-9]{1,16}", "the id of a watermark profile: 1 to 16 of a-z 0-9"),
    Option("pad", _FLAG),
    Option("page", "_(?:[2-9]|[1-9][0-9]{1,3})", "a page from 2 to 9999", int),
    Option("q", f"_{_HUNDRED}", "a quality from 1 to 100", int),
    Option("sharp", f"_{_HUNDRED}", "tenths of a pixel from 1 to 100", int),
    Option("stretch", _FLAG),
    Option("turn", "_(?:90|180|270)", "90, 180 or 270", int),
    Option("up", _FLAG),
)
_BY_KEY = {option.key: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Base:
    """The name of an original: the bytes as they came."""

    hash: str
    type: str

    def __post_init__(self) -> None:
        _must_be_its_own_name(self)

    def __str__(self) -> str:
        return f"{self.hash}.{self.type}"


@dataclass(frozen=True, slots=True)
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
        return self.hash + self.suffix

    @property
    def size(self) -> str:
        """The size as it is spelled: `1024x512`, `320x`, `x480` or `full`."""
        if self.width is None and self.height is None:
            return "full"
        return f"{'' if self.width is None else self.width}x{'' if self.height is None else self.height}"

    @property
    def suffix(self) -> str:
        """All that follows the hash: what a preset or an allow-list names."""
        words = [f"-{self.size}"]
        for option in OPTIONS:
            value = getattr(self, option.key)
            if value is True:
                words.append(f"-{option.key}")
            elif value is not None and value is not False:
                argument = option.show(value)
                words.append(f"-{option.key}_{argument}" if argument else f"-{option.key}")
        return "".join(words) + "." + self.format

    @property
    def quality(self) -> int | None:
        """The quality to encode with: the one stated, or the format's own."""
        return self.q if self.q is not None else QUALITY.get(self.format)


Name: TypeAlias = Base | Derived

_OPTION_SYNTAX = "".join(f"(?:-{option.key}({option.argument}))?" for option in OPTIONS)
_NAME = re.compile(f"({_HASH})(?:[.]({'|'.join(TYPES)})|-({_SIZE}){_OPTION_SYNTAX}[.]({'|'.join(FORMATS)}))")
SYNTAX = "^" + re.sub(r"\((?!\?)", "(?:", _NAME.pattern) + r"$(?!\n)"
"""The syntax as one anchored expression without groups, for nginx, CDNs and JavaScript (what the rules refuse, it lets pass)."""

_DERIVED_FIELDS = tuple(Derived.__dataclass_fields__)
_FIRST_OPTION = _DERIVED_FIELDS.index("anim")
_DEFAULTS = [Derived.__dataclass_fields__[field].default for field in _DERIVED_FIELDS]
_COMPASS = (0, 500, 1000)


def parse(text: str) -> Name:
    """Return the name that `text` spells, or raise `BadName` with the place where it stops being one."""
    match = _NAME.fullmatch(text)
    if match is None:
        _explain(text)
    hash, type, size, *arguments, format = match.groups()
    if type is not None:
        return _made(Base, ("hash", "type"), (hash, type))
    values = _DEFAULTS.copy()
    values[0], values[1] = hash, format
    if size != "full":
        width, _, height = size.partition("x")
        values[2], values[3] = int(width) if width else None, int(height) if height else None
    for place, argument in enumerate(arguments):
        if argument is not None:
            option = OPTIONS[place]
            values[_FIRST_OPTION + place] = True if option.argument == _FLAG else option.read(argument[1:])
    name = _made(Derived, _DERIVED_FIELDS, values)
    if any(argument is not None for argument in arguments):
        broken = _broken_rule(name)
        if broken:
            raise BadName(text, _place_of(text, broken[0]), broken[1])
    return name


def _made(kind: Any, fields: tuple[str, ...], values: Any) -> Any:
    """A value made of what the parser has already judged, past `__post_init__`, which would parse it again."""
    made = object.__new__(kind)
    for field, value in zip(fields, values, strict=True):
        object.__setattr__(made, field, value)
    return made


def _must_be_its_own_name(name: Name) -> None:
    text = str(name)
    if parse(text) != name:
        raise BadName(text, 0, f"{name!r} prints as another value's name")


def _broken_rule(name: Derived) -> tuple[str, str] | None:
    """The key of the first option that may not stand in this name, and why; the rules that no expression can say."""
    boxed = name.width is not None and name.height is not None
    for key in ("fill", "pad", "stretch"):
        if getattr(name, key) and not boxed:
            return key, f"{key} needs a size of width and height"
    modes = [key for key in ("fill", "pad", "stretch") if getattr(name, key)]
    if len(modes) > 1:
        return modes[1], f"{modes[1]} excludes {modes[0]}"
    if name.up and name.size == "full":
        return "up", "full size cannot be enlarged"
    if name.anim and name.format not in ("gif", "webp"):
        return "anim", f"{name.format} is never animated here"
    if name.page is not None and name.anim:
        return "page", "page excludes anim"
    if name.bg == "ffffff" and name.format == "jpg":
        return "bg", "states the default: jpg has a white background"
    if isinstance(name.fill, tuple) and name.fill[0] in _COMPASS and name.fill[1] in _COMPASS:
        return "fill", "that focal point is the centre or has a compass name"
    if name.lossless and name.format not in ("avif", "jxl", "webp"):
        return "lossless", f"{name.format} has no lossless choice"
    if name.q is not None:
        return _broken_quality(name)
    return None


def _broken_quality(name: Derived) -> tuple[str, str] | None:
    if name.lossless:
        return "q", "lossless excludes a quality"
    if name.format not in QUALITY:
        return "q", f"{name.format} has no quality"
    if name.q == QUALITY[name.format]:
        return "q", f"states the default: {name.format} has quality {name.q}"
    return None


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
    if re.fullmatch(_SIZE, size):
        return
    width, cross, height = size.partition("x")
    if width and not re.fullmatch(_SIDE, width):
        raise BadName(text, at, 'expected a width from 1 to 16383, "x" or "full"')
    if not width and not cross:
        raise BadName(text, at, 'expected a size: W "x" H, W "x", "x" H or "full"')
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
        raise BadName(text, at + len(key) + len(joint), f"expected {option.wanted}")
