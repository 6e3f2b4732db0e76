"""Texts and values for the tests of names, and a second opinion on them.

`spelled_well` and `lawful` are written from the specification alone, by hand and without a regular expression.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from imgproxy.errors import BadName
from imgproxy.grammar import Base, Derived, Name, parse

HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
FORMATS = ["avif", "gif", "jpg", "jxl", "png", "webp"]
TYPES = ["avif", "gif", "heic", "jp2", "jpg", "jxl", "pdf", "png", "svg", "tif", "webp"]
KEYS = ["anim", "bg", "blur", "crop", "fill", "flip", "lossless", "mark", "pad", "page", "q", "sharp", "stretch", "turn", "up"]
COMPASS = ["n", "ne", "e", "se", "s", "sw", "w", "nw"]
LISTED = [line.split("\t") for line in (Path(__file__).parent / "names.tsv").read_text().splitlines() if not line.startswith("#")]
"""The list that everyone shares: verdict, text, note."""


# ---- a second opinion


def number(text: str, least: int, most: int) -> bool:
    digits = text != "" and all(char in "0123456789" for char in text) and (text == "0" or text[0] != "0")
    return digits and len(text) < 8 and least <= int(text) <= most


def numbers(text: str, *bounds: tuple[int, int]) -> bool:
    parts = text.split("x")
    return len(parts) == len(bounds) and all(number(part, *bound) for part, bound in zip(parts, bounds, strict=True))


def all_of(text: str, alphabet: str) -> bool:
    return all(char in alphabet for char in text)


def size_spelled_well(size: str) -> bool:
    width, cross, height = size.partition("x")
    some = width != "" or height != ""
    sides = all(side == "" or number(side, 1, 16383) for side in (width, height))
    return size == "full" or (cross == "x" and some and sides)


def option_spelled_well(word: str) -> bool:
    key, joint, argument = word.partition("_")
    if key in ("anim", "flip", "lossless", "pad", "stretch", "up"):
        return joint == ""
    if key == "fill" and joint == "":
        return True
    return joint == "_" and {
        "bg": len(argument) == 6 and all_of(argument, "0123456789abcdef"),
        "blur": number(argument, 1, 1000),
        "crop": numbers(argument, (0, 999999), (0, 999999), (1, 999999), (1, 999999)),
        "fill": argument in [*COMPASS, "smart", "entropy"] or numbers(argument, (0, 1000), (0, 1000)),
        "mark": 1 <= len(argument) <= 16 and all_of(argument, "abcdefghijklmnopqrstuvwxyz0123456789"),
        "page": number(argument, 2, 9999),
        "q": number(argument, 1, 100),
        "sharp": number(argument, 1, 100),
        "turn": argument in ("90", "180", "270"),
    }.get(key, False)


def spelled_well(text: str) -> bool:
    """Whether the syntax of the specification holds."""
    hash, rest = text[:64], text[64:]
    if len(hash) != 64 or not all_of(hash, "0123456789abcdef"):
        return False
    if rest[:1] == ".":
        return rest[1:] in TYPES
    body, _, format = rest.partition(".")
    hyphen, size, *options = body.split("-") if "-" in body else ("no", "")
    keys = [option.partition("_")[0] for option in options]
    in_order = all(one < next for one, next in itertools.pairwise(keys))
    return (
        hyphen == ""
        and format in FORMATS
        and size_spelled_well(size)
        and in_order
        and all(option_spelled_well(option) for option in options)
    )


def lawful(text: str) -> bool:
    """Whether a text that is spelled well keeps the rules of the specification, too: nothing in its column "refused when" is so."""
    if text[64] == ".":
        return True
    body, _, format = text[65:].partition(".")
    size, *words = body.split("-")
    said = {key: argument for key, _, argument in (word.partition("_") for word in words)}
    boxed = size != "full" and not size.startswith("x") and not size.endswith("x")
    default = {"jpg": "80", "webp": "80", "avif": "50", "jxl": "75"}
    points = {f"{x}x{y}" for x in (0, 500, 1000) for y in (0, 500, 1000)}
    modes = [mode for mode in ("fill", "pad", "stretch") if mode in said]
    refused = [
        "anim" in said and (format not in ("gif", "webp") or "page" in said),
        said.get("bg") == "ffffff" and format == "jpg",
        modes and not boxed,
        len(modes) > 1,
        said.get("fill") in points,
        "lossless" in said and (format not in ("avif", "jxl", "webp") or "q" in said),
        "q" in said and (format in ("png", "gif") or said["q"] == default[format]),
        "up" in said and size == "full",
    ]
    return not any(refused)


def refusal(text: str) -> BadName | None:
    """Why `parse` refuses a text, or None."""
    try:
        parse(text)
    except BadName as error:
        return error
    return None


def outcome(text: str) -> str:
    """What `parse` says of a text: a name, against a rule, or against the syntax."""
    error = refusal(text)
    return "name" if error is None else "rule" if error.rule else "syntax"


# ---- texts and values


hashes = st.one_of(st.just(HASH), st.text("0123456789abcdef", min_size=64, max_size=64))
sides = st.one_of(st.integers(1, 16383), st.sampled_from([1, 9, 10, 999, 1000, 9999, 10000, 15999, 16000, 16299, 16379, 16380, 16383]))
permilles = st.one_of(st.integers(0, 1000), st.sampled_from([0, 1, 500, 999, 1000]))
colours = st.one_of(st.just("ffffff"), st.text("0123456789abcdef", min_size=6, max_size=6))
marks = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=16)
rectangles = st.tuples(st.integers(0, 999999), st.integers(0, 999999), st.integers(1, 999999), st.integers(1, 999999))
arguments: dict[str, st.SearchStrategy[Any]] = {
    "bg": colours,
    "blur": st.integers(1, 1000),
    "crop": rectangles.map(lambda sides: "x".join(map(str, sides))),
    "fill": st.one_of(
        st.just(""), st.sampled_from([*COMPASS, "smart", "entropy"]), st.tuples(permilles, permilles).map(lambda at: f"{at[0]}x{at[1]}")
    ),
    "mark": marks,
    "page": st.integers(2, 9999),
    "q": st.one_of(st.integers(1, 100), st.sampled_from([50, 75, 80])),
    "sharp": st.integers(1, 100),
    "turn": st.sampled_from([90, 180, 270]),
}


@st.composite
def well_spelled(draw: st.DrawFn) -> str:
    """Texts of the right syntax; some keep the rules, some do not."""
    hash = draw(hashes)
    if draw(st.integers(0, 9)) == 0:
        return f"{hash}.{draw(st.sampled_from(TYPES))}"
    size = draw(st.one_of(st.just("full"), st.builds("{}x{}".format, sides, sides), sides.map("{}x".format), sides.map("x{}".format)))
    words = [size]
    for key in sorted(draw(st.sets(st.sampled_from(KEYS), min_size=(least := draw(st.sampled_from([0, 1, 1, 2, 4]))), max_size=least + 1))):
        argument = str(draw(arguments[key])) if key in arguments else ""
        words.append(f"{key}_{argument}" if argument else key)
    return f"{hash}-{'-'.join(words)}.{draw(st.sampled_from(FORMATS))}"


TEMPTATIONS = [
    *"0123456789abcdefxXFQ.-_ ,:%/?#+~\n\r\t\0é٣\uff12\U0001d7d7\ud800\u017f",
    "00", "x0", "-up", "-q_60", "-trim", "_", "--", "-fill_", ".jpg", ".jpeg", ".JPG", "\r\n", "%2D", "anim", "q_80", "1_0", "-page_1", "/",
]  # fmt: skip


def mutated(text: str, choose: random.Random) -> str:
    """One change of a text, of the kinds that people and attackers make."""
    at, other = choose.randrange(len(text) + 1), choose.randrange(len(text) + 1)
    low, high = min(at, other), max(at, other)
    tempting = choose.choice(TEMPTATIONS)
    first, *words = text.split("-")
    changed: list[str] = [
        text[:at] + tempting + text[at:],
        text[:at] + text[at + 1 :],
        text[:at] + tempting + text[at + 1 :],
        text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :],
        text + tempting,
        tempting + text,
        text.upper(),
        text[:at] + text[at:].title(),
        text[:high] + text[low:high] + text[high:],
        text[:at],
        "-".join([first, *choose.sample(words, len(words))]),
        "-".join([first, *words, *words[-1:]]),
        text.rpartition(".")[0] + "." + choose.choice(TYPES),
    ]
    return choose.choice(changed)


@st.composite
def near_names(draw: st.DrawFn) -> str:
    """Names, and texts a change or three away from one; changed past the hash for the most part, where there is more to get wrong."""
    text: str = draw(well_spelled())
    choose = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        text = text[:64] + mutated(text[64:], choose) if draw(st.integers(0, 3)) else mutated(text, choose)
    return text


texts = st.one_of(near_names(), near_names(), near_names(), well_spelled(), st.text(), st.text("0123456789abcdefx.-_", max_size=90))

wild: dict[str, st.SearchStrategy[Any]] = {
    "hash": st.one_of(
        hashes, st.sampled_from(["", HASH[:63], HASH + "0", HASH.upper(), HASH + "-320x", HASH + "-320x-flip", "\n" + HASH[:63]])
    ),
    "format": st.one_of(st.sampled_from([*TYPES, "", "jpeg", "JPG", "jpg\n", "x.jpg", "png.jpg"])),
    "width": st.one_of(st.none(), sides, sides, st.integers(-5, 99999), st.sampled_from([True, "320", 320.0, "", "1x", "full"])),
    "height": st.one_of(st.none(), sides, sides, st.integers(-5, 99999), st.sampled_from([False, "320", "320-flip", "٣"])),
    "bg": st.one_of(st.none(), colours, st.text(max_size=7), st.sampled_from(["FFFFFF", "000000-blur_5", False, 111111])),
    "blur": st.one_of(st.none(), st.integers(-1, 1001), st.sampled_from([True, 5.0, "5", "5-flip"])),
    "crop": st.one_of(
        st.none(), rectangles, st.lists(st.integers(-1, 10**6), max_size=5).map(tuple), st.just([0, 0, 5, 5]), st.just("1x1")
    ),
    "fill": st.one_of(
        st.none(),
        st.sampled_from(["centre", *COMPASS, "smart", "entropy", "", "middle", "333x250", "N", "n-flip", True, False]),
        st.tuples(permilles, permilles),
        st.lists(st.integers(-1, 1001), max_size=3).map(tuple),
    ),
    "mark": st.one_of(st.none(), marks, st.text(max_size=18), st.sampled_from(["a-q_60", "a_b", True])),
    "page": st.one_of(st.none(), st.integers(-1, 10001)),
    "q": st.one_of(st.none(), st.integers(-1, 101)),
    "sharp": st.one_of(st.none(), st.integers(-1, 101)),
    "turn": st.one_of(st.none(), st.sampled_from([0, 45, 90, 180, 270, 360, -90, "90", True])),
}
wild.update({flag: st.sampled_from([False, False, True, None, 1, "yes"]) for flag in ("anim", "flip", "lossless", "pad", "stretch", "up")})


@st.composite
def any_values(draw: st.DrawFn) -> tuple[type[Name], dict[str, Any]]:
    """What someone may hand to a constructor: a few fields, right or wrong."""
    if draw(st.integers(0, 9)) == 0:
        return Base, {"hash": draw(wild["hash"]), "type": draw(st.one_of(wild["format"], st.just("320x.jpg")))}
    stated = {"hash": draw(st.one_of(hashes, hashes, wild["hash"])), "format": draw(st.one_of(st.sampled_from(FORMATS), wild["format"]))}
    if draw(st.booleans()):
        stated |= {"width": draw(st.one_of(sides, wild["width"])), "height": draw(st.one_of(sides, wild["height"]))}
    for key in draw(st.sets(st.sampled_from(KEYS), max_size=draw(st.sampled_from([0, 1, 2, 3, 15])))):
        stated[key] = draw(wild[key])
    return Derived, stated
