"""The law of names, and each sentence of the grammar."""

from __future__ import annotations

import doctest
import itertools
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from imgproxy import grammar
from imgproxy.errors import BadName
from imgproxy.grammar import LONGEST, OPTIONS, QUALITY, RESERVED, SYNTAX, Base, Derived, Name, parse, rendition
from tests.naming import FORMATS, HASH, KEYS, LISTED, TYPES, any_values, lawful, outcome, refusal, spelled_well, texts, well_spelled

NAMES = [text for verdict, text, _ in LISTED if verdict == "name"]
LONGEST_OPTIONS = (
    "-anim-bg_0a0b0c-blur_1000-crop_999999x999999x999999x999999-fill_1000x1000-flip-lossless-mark_abcdefghijklmnop-pad-page_9999-q_100"
    "-sharp_100-stretch-turn_270-up"
)

lawfully = settings(deadline=None, max_examples=300)


# ---- the law


@lawfully
@given(texts)
def test_a_text_is_a_name_that_prints_the_same_or_a_bad_name_with_a_place_in_it(text: str) -> None:
    error = refusal(text)
    if error is None:
        assert str(parse(text)) == text
    else:
        assert 0 <= error.at <= len(text)
        assert error.text == text
        assert error.why


@lawfully
@given(texts)
def test_the_specification_read_by_hand_gives_the_same_verdict(text: str) -> None:
    expected = "syntax" if not spelled_well(text) else "name" if lawful(text) else "rule"
    assert outcome(text) == expected


@lawfully
@given(well_spelled())
def test_what_is_spelled_well_is_only_ever_refused_by_a_rule(text: str) -> None:
    assert spelled_well(text)
    assert outcome(text) == ("name" if lawful(text) else "rule")


@lawfully
@given(any_values())
def test_a_value_prints_to_a_name_that_parses_back_to_it_or_cannot_be_made(value: tuple[type[Name], dict[str, Any]]) -> None:
    kind, stated = value
    try:
        name = kind(**stated)
    except BadName:
        return
    assert parse(str(name)) == name
    assert all(getattr(name, field) == said for field, said in stated.items())


@lawfully
@given(well_spelled().filter(lawful))
def test_a_parsed_value_is_the_one_that_its_fields_make(text: str) -> None:
    name = parse(text)
    made = type(name)(**{field.name: getattr(name, field.name) for field in fields(name)})
    assert made == name
    assert hash(made) == hash(name)
    assert repr(made) == repr(name)


def test_no_two_values_share_a_name() -> None:
    choices: dict[str, list[Any]] = {
        "format": ["jpg", "webp", "avif"], "width": [None, 1, 11, 320], "height": [None, 1, 11], "bg": [None, "000000"],
        "fill": [None, "centre", "n", "ne", "e", (1, 11), (11, 1)], "flip": [False, True], "page": [None, 2, 22],
    }  # fmt: skip
    seen: dict[str, Derived] = {}
    for combination in itertools.product(*choices.values()):
        try:
            value = Derived(HASH, **dict(zip(choices, combination, strict=True)))
        except BadName:
            continue
        assert str(value) not in seen, (value, seen[str(value)])
        seen[str(value)] = value
    assert len(seen) > 1000


def test_the_texts_of_these_laws_are_names_and_no_names_alike() -> None:
    found: Counter[str] = Counter()

    @settings(deadline=None, max_examples=400, database=None, derandomize=True)
    @given(texts)
    def look(text: str) -> None:
        found[outcome(text)] += 1

    look()
    assert min(found["name"], found["rule"], found["syntax"]) > 40, found


def test_the_values_of_these_laws_are_good_and_bad_alike() -> None:
    found: Counter[bool] = Counter()

    @settings(deadline=None, max_examples=400, database=None, derandomize=True)
    @given(any_values())
    def look(value: tuple[type[Name], dict[str, Any]]) -> None:
        try:
            value[0](**value[1])
        except BadName:
            found[False] += 1
        else:
            found[True] += 1

    look()
    assert min(found[True], found[False]) > 40, found


# ---- the list that everyone shares


@pytest.mark.parametrize(("verdict", "text", "note"), LISTED)
def test_the_list_of_names_is_decided_rightly(verdict: str, text: str, note: str) -> None:
    assert (outcome(text) == "name") == (verdict == "name"), note
    assert (spelled_well(text) and lawful(text)) == (verdict == "name"), note


def test_the_list_has_both_kinds() -> None:
    assert Counter(verdict for verdict, _, _ in LISTED) == {"name": 45, "not": 56}


@pytest.mark.parametrize("text", NAMES)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\0", " ", "?", "/", "?v=1", "#", "\u2028", "%0A", "\ud800", "٣"])
def test_nothing_may_follow_a_name(text: str, ending: str) -> None:
    assert outcome(text + ending) == "syntax"


# ---- values


@pytest.mark.parametrize(
    ("spelled", "value"),
    [
        ("-320x.jpg", Derived(HASH, "jpg", width=320)),
        ("-x480.avif", Derived(HASH, "avif", height=480)),
        ("-full.png", Derived(HASH, "png")),
        ("-1x16383.jxl", Derived(HASH, "jxl", width=1, height=16383)),
        ("-8x6-fill.jpg", Derived(HASH, "jpg", width=8, height=6, fill="centre")),
        ("-8x6-fill_entropy.jpg", Derived(HASH, "jpg", width=8, height=6, fill="entropy")),
        ("-8x6-fill_0x1.jpg", Derived(HASH, "jpg", width=8, height=6, fill=(0, 1))),
        ("-8x6-bg_00ff00-pad.png", Derived(HASH, "png", width=8, height=6, bg="00ff00", pad=True)),
        ("-full-crop_0x1x2x3.png", Derived(HASH, "png", crop=(0, 1, 2, 3))),
        ("-8x-anim-q_1.webp", Derived(HASH, "webp", width=8, anim=True, q=1)),
        ("-8x-blur_1000-flip-sharp_100-turn_90-up.gif", Derived(HASH, "gif", width=8, blur=1000, flip=True, sharp=100, turn=90, up=True)),
        ("-8x6-mark_007-page_9999-stretch.jpg", Derived(HASH, "jpg", width=8, height=6, mark="007", page=9999, stretch=True)),
        ("-full-lossless.jxl", Derived(HASH, "jxl", lossless=True)),
        (".heic", Base(HASH, "heic")),
    ],
)
def test_a_text_and_a_value_are_each_other(spelled: str, value: Name) -> None:
    assert parse(HASH + spelled) == value
    assert str(value) == HASH + spelled


def test_a_suffix_is_all_that_follows_the_hash() -> None:
    assert Derived(HASH, "webp", width=256, height=256, fill="centre").suffix == "-256x256-fill.webp"


def test_a_rendition_is_a_hash_and_a_suffix() -> None:
    assert rendition(HASH, "-256x256-fill.webp") == Derived(HASH, "webp", width=256, height=256, fill="centre")


@pytest.mark.parametrize(
    ("hash", "suffix", "why"),
    [
        (HASH, ".jpg", "expected the hash"),
        (HASH + "-9x", "-flip.jpg", "expected the hash"),
        (HASH[:60], HASH[60:] + "-9x.jpg", "expected the hash"),
        (HASH, "256x256.webp", 'expected "-" and a size'),
        (HASH, "-9x-q_80.jpg", "states the default"),
    ],
)
def test_what_is_no_suffix_makes_no_rendition(hash: str, suffix: str, why: str) -> None:
    with pytest.raises(BadName, match=why):
        rendition(hash, suffix)


@pytest.mark.parametrize(
    ("text", "quality"), [("-9x.jpg", 80), ("-9x-q_7.jpg", 7), ("-9x.avif", 50), ("-9x.jxl", 75), ("-9x.webp", 80), ("-9x.png", None)]
)
def test_a_quality_is_the_one_stated_or_the_one_of_the_format(text: str, quality: int | None) -> None:
    name = parse(HASH + text)
    assert isinstance(name, Derived)
    assert name.quality == quality


def test_a_name_does_not_change() -> None:
    for name in (parse(HASH + "-9x.jpg"), parse(HASH + ".jpg")):
        with pytest.raises(FrozenInstanceError):
            name.hash = HASH  # type: ignore[misc]


def test_a_name_with_another_field_is_judged_again() -> None:
    name = parse(HASH + "-9x.jpg")
    assert isinstance(name, Derived)
    assert str(replace(name, q=60)) == HASH + "-9x-q_60.jpg"
    with pytest.raises(BadName, match="states the default"):
        replace(name, q=80)


@pytest.mark.parametrize(
    ("kind", "stated", "why"),
    [
        (Derived, {"width": 0}, "expected a width from 1 to 16383"),
        (Derived, {"width": True}, "expected a width from 1 to 16383"),
        (Derived, {"width": "320"}, "Derived\\(.*width=320,.*\\) has that name"),
        (Derived, {"width": 9, "height": 9, "fill": ""}, "fill='centre'.* has that name"),
        (Derived, {"crop": [0, 0, 5, 5]}, "crop=\\(0, 0, 5, 5\\).* has that name"),
        (Derived, {"mark": "a-q_60"}, "q=60.* has that name"),
        (Derived, {"mark": ""}, "a watermark profile"),
        (Derived, {"flip": 1}, "flip takes no argument"),
        (Derived, {"page": 1}, "a page from 2 to 9999"),
        (Derived, {"blur": 1.5}, "expected a format"),
        (Derived, {"format": "jpeg"}, "expected a format"),
        (Derived, {"up": True}, "full size cannot be enlarged"),
        (Base, {"type": "jpeg"}, "expected a type"),
        (Base, {"hash": HASH + "-320x", "type": "jpg"}, "Derived\\(.* has that name"),
        (Base, {"hash": HASH.upper(), "type": "jpg"}, "lowercase hex"),
    ],
)
def test_a_value_that_is_no_name_cannot_be_made(kind: type[Name], stated: dict[str, Any], why: str) -> None:
    whole = {"hash": HASH, "format": "jpg"} | stated if kind is Derived else {"hash": HASH} | stated
    with pytest.raises(BadName, match=why):
        kind(**whole)


# ---- the rules


@pytest.mark.parametrize(
    ("spelled", "key", "why"),
    [
        ("-480x-anim.jpg", "anim", "jpg is never animated here"),
        ("-480x-anim.avif", "anim", "avif is never animated here"),
        ("-480x-anim.jxl", "anim", "jxl is never animated here"),
        ("-480x-anim.png", "anim", "png is never animated here"),
        ("-480x-anim-page_2.webp", "page", "page excludes anim"),
        ("-800x600-bg_ffffff-pad.jpg", "bg", "states the default: jpg has a white background"),
        ("-256x-fill.jpg", "fill", "fill needs a size of width and height"),
        ("-x256-fill_n.jpg", "fill", "fill needs a size of width and height"),
        ("-full-fill_smart.jpg", "fill", "fill needs a size of width and height"),
        ("-256x-pad.jpg", "pad", "pad needs a size of width and height"),
        ("-x256-pad.jpg", "pad", "pad needs a size of width and height"),
        ("-full-pad.jpg", "pad", "pad needs a size of width and height"),
        ("-256x-stretch.jpg", "stretch", "stretch needs a size of width and height"),
        ("-x256-stretch.jpg", "stretch", "stretch needs a size of width and height"),
        ("-full-stretch.jpg", "stretch", "stretch needs a size of width and height"),
        ("-256x256-fill-pad.jpg", "pad", "pad excludes fill"),
        ("-256x256-fill_n-stretch.jpg", "stretch", "stretch excludes fill"),
        ("-256x256-pad-stretch.jpg", "stretch", "stretch excludes pad"),
        ("-full-lossless.gif", "lossless", "gif has no lossless choice"),
        ("-full-lossless.jpg", "lossless", "jpg has no lossless choice"),
        ("-full-lossless.png", "lossless", "png has no lossless choice"),
        ("-full-lossless-q_90.webp", "q", "lossless excludes a quality"),
        ("-9x-q_60.png", "q", "png has no quality"),
        ("-9x-q_60.gif", "q", "gif has no quality"),
        ("-9x-q_80.jpg", "q", "states the default: jpg has quality 80"),
        ("-9x-q_80.webp", "q", "states the default: webp has quality 80"),
        ("-9x-q_50.avif", "q", "states the default: avif has quality 50"),
        ("-9x-q_75.jxl", "q", "states the default: jxl has quality 75"),
        ("-full-up.jpg", "up", "full size cannot be enlarged"),
        ("-full-crop_0x0x9x9-up.jpg", "up", "full size cannot be enlarged"),
        *[
            (f"-9x9-fill_{x}x{y}.jpg", "fill", "that focal point is the centre or has a compass name")
            for x in (0, 500, 1000)
            for y in (0, 500, 1000)
        ],
    ],
)
def test_a_rule_refuses_what_is_spelled_well_and_points_at_the_option(spelled: str, key: str, why: str) -> None:
    text = HASH + spelled
    with pytest.raises(BadName) as caught:
        parse(text)
    assert (caught.value.rule, caught.value.why, caught.value.at) == (True, why, text.index(f"-{key}") + 1)
    assert re.search(SYNTAX, text)


@pytest.mark.parametrize(
    "spelled",
    "-9x-q_50.jpg -9x-q_80.avif -9x-bg_ffffff.png -9x-bg_fffffe.jpg -9x9-fill_500x501.jpg -9x9-fill_0x1.jpg -9x9-fill_1000x999.jpg "
    "-full-lossless.avif -9x-anim.gif -9x-page_2.gif -9x-up.jpg -x9-up.jpg".split(),
)
def test_the_rules_stop_where_they_should(spelled: str) -> None:
    assert outcome(HASH + spelled) == "name"


# ---- what an error says

A_FORMAT = "expected a format: avif, gif, jpg, jxl, png, webp"
A_TYPE = "expected a type: avif, gif, heic, jp2, jpg, jxl, pdf, png, svg, tif, webp"
A_WIDTH = 'expected a width from 1 to 16383, "x" or "full"'
A_HEIGHT = "expected a height from 1 to 16383"
AN_OPTION = "expected an option: anim bg blur crop fill flip lossless mark pad page q sharp stretch turn up"
AN_END = 'expected "-" and an option, or "." and a format'
A_PLACE = 'expected one of n ne e se s sw w nw smart entropy, a focal point XxY of 0 to 1000, or no "_"'


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("-", "", 'expected a size: W "x" H, W "x", "x" H or "full"'),
        ("-", ".jpg", 'expected a size: W "x" H, W "x", "x" H or "full"'),
        ("-", "01024x512.jpg", A_WIDTH),
        ("-", "0x512.jpg", A_WIDTH),
        ("-", "16384x1.jpg", A_WIDTH),
        ("-", "+5x5.jpg", A_WIDTH),
        ("-", "1_0x5.jpg", A_WIDTH),
        ("-", "٣x5.jpg", A_WIDTH),
        ("-", "Full.jpg", A_WIDTH),
        ("-1024", ".jpg", 'expected "x" after the width'),
        ("-x", ".jpg", A_HEIGHT),
        ("-x", "0.jpg", A_HEIGHT),
        ("-1024x", "0512.jpg", A_HEIGHT),
        ("-1024x", "16384.jpg", A_HEIGHT),
        ("-1024x", "16389.jpg", A_HEIGHT),
        ("-1024x512", "_q_60.jpg", AN_END),
        ("-1024x512", "%2Dq_60.jpg", AN_END),
        ("-1024x", "abc.jpg", AN_END),
        ("-full", "y.jpg", AN_END),
        ("-1024x512", "", 'expected "." and a format'),
        ("-1024x512-flip", "", 'expected "." and a format'),
        ("-1024x512.", "", A_FORMAT),
        ("-1024x512.", "jpeg", A_FORMAT),
        ("-1024x512.", "JPG", A_FORMAT),
        ("-1024x512.", "jpg\n", A_FORMAT),
        ("-1024x512.", "heic", A_FORMAT),
        ("-1024x512.", "q_60.jpg", A_FORMAT),
        ("-1024x512-", ".jpg", "expected an option"),
        ("-1024x512-", "-q_60.jpg", "expected an option"),
        ("-1024x512-", "_60.jpg", "expected an option"),
        ("-1024x512-", "q60.jpg", AN_OPTION),
        ("-1024x512-", "grey.jpg", AN_OPTION),
        ("-1024x512-", "dpr_2.jpg", "dpr is reserved"),
        ("-1024x512-q_60-", "q_60.jpg", "q is there already"),
        ("-1024x512-sharp_5-", "q_60.jpg", "q comes before sharp: options stand in alphabetical order"),
        ("-1024x512-flip", "_1.jpg", "flip takes no argument"),
        ("-1024x512-flip", "_.jpg", "flip takes no argument"),
        ("-1024x512-q", ".jpg", 'expected "_" and a quality from 1 to 100'),
        ("-1024x512-q_", ".jpg", "expected a quality from 1 to 100"),
        ("-1024x512-q_", "080.jpg", "expected a quality from 1 to 100"),
        ("-1024x512-q_", "0.jpg", "expected a quality from 1 to 100"),
        ("-1024x512-q_", "101.jpg", "expected a quality from 1 to 100"),
        ("-1024x512-sharp_", "101.jpg", "expected tenths of a pixel from 1 to 100"),
        ("-1024x512-blur_", "1001.jpg", "expected tenths of a pixel from 1 to 1000"),
        ("-1024x512-bg_", "1A1A1A.jpg", "expected a colour of six lowercase hex digits"),
        ("-1024x512-bg_", "fff.jpg", "expected a colour of six lowercase hex digits"),
        ("-1024x512-crop_", "0x0x0x9.jpg", "expected a rectangle XxYxWxH, none above 999999, W and H at least 1"),
        ("-1024x512-crop_", "0x0x9.jpg", "expected a rectangle XxYxWxH, none above 999999, W and H at least 1"),
        ("-1024x512-crop_", "1000000x0x9x9.jpg", "expected a rectangle XxYxWxH, none above 999999, W and H at least 1"),
        ("-1024x512-fill_", ".jpg", A_PLACE),
        ("-1024x512-fill_", "centre.jpg", A_PLACE),
        ("-1024x512-fill_", "333x1001.jpg", A_PLACE),
        ("-1024x512-mark", ".jpg", 'expected "_" and the id of a watermark profile: 1 to 16 of a-z 0-9'),
        ("-1024x512-mark_", "abcdefghijklmnopq.jpg", "expected the id of a watermark profile: 1 to 16 of a-z 0-9"),
        ("-1024x512-page_", "1.jpg", "expected a page from 2 to 9999"),
        ("-1024x512-turn_", "0.jpg", "expected 90, 180 or 270"),
        (".", "", A_TYPE),
        (".", "jpeg", A_TYPE),
        (".", "jpg\n", A_TYPE),
        ("", "", 'expected "-" and a size, or "." and a type'),
        ("", "0-1x1.jpg", 'expected "-" and a size, or "." and a type'),
        ("", "_1x1.jpg", 'expected "-" and a size, or "." and a type'),
    ],
)
def test_an_error_says_what_was_expected_and_where(before: str, after: str, why: str) -> None:
    with pytest.raises(BadName) as caught:
        parse(HASH + before + after)
    assert (caught.value.why, caught.value.at, caught.value.rule) == (why, len(HASH + before), False)


@pytest.mark.parametrize(
    ("text", "at"), [("", 0), (HASH[:63], 63), (HASH[:63] + "-1x1.jpg", 63), ("favicon.ico", 2), (HASH[:9].upper(), 1), ("٣", 0)]
)
def test_a_text_without_a_hash_is_told_so(text: str, at: int) -> None:
    with pytest.raises(BadName) as caught:
        parse(text)
    assert (caught.value.why, caught.value.at) == ("expected a hash of 64 lowercase hex digits", at)


@pytest.mark.parametrize(
    ("text", "picture"),
    [
        (
            f"{HASH}-1024x512-q_80.jpg",
            "states the default: jpg has quality 80\n"
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08-1024x512-q_80.jpg\n"
            "                                                                          ^",
        ),
        (
            f"{HASH}-10é24x5\n",
            'expected a width from 1 to 16383, "x" or "full"\n'
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08-10?24x5?\n"
            "                                                                 ^",
        ),
        ("robots.txt", "expected a hash of 64 lowercase hex digits\nrobots.txt\n^"),
        (
            f"{HASH}-1200x630-bg_0a0b0c-blur_10-crop_10x20x3000x2000-fill_ne-flip-mark_logo-turn_91.jpg",
            "expected 90, 180 or 270\n"
            "d6c15b0f00a08-1200x630-bg_0a0b0c-blur_10-crop_10x20x3000x2000-fill_ne-flip-mark_logo-turn_91.jpg\n"
            "                                                                                          ^",
        ),
    ],
)
def test_an_error_draws_a_caret_under_the_place(text: str, picture: str) -> None:
    with pytest.raises(BadName) as caught:
        parse(text)
    assert str(caught.value) == picture


@lawfully
@given(texts.map(refusal).filter(bool))
def test_an_error_is_three_short_lines_of_printable_ascii(error: BadName) -> None:
    lines = str(error).split("\n")
    assert len(lines) == 3
    assert all(len(line) <= 160 and line.isascii() and line.isprintable() for line in lines)
    assert lines[2].strip(" ") == "^"


@pytest.mark.parametrize("piece", ["a", "0", "-x", "-x-x-x", f"{HASH}-", "-q_60", "\n", "x1", "_", ".jpg", "é"])
def test_a_text_of_a_megabyte_is_refused_at_once_and_in_few_words(piece: str) -> None:
    monstrous = [piece * (10**6 // len(piece)), HASH + piece * (10**6 // len(piece)), HASH + "-1x1" + piece * (10**6 // len(piece))]
    started = time.monotonic()
    for text in monstrous * 10:
        with pytest.raises(BadName) as caught:
            parse(text)
        assert (caught.value.why, caught.value.at) == ("no name is longer than 255 characters", 255)
        assert len(str(caught.value)) < 400
    assert time.monotonic() - started < 5


def test_the_longest_text_of_the_syntax_is_a_file_name_and_a_key() -> None:
    text = f"{HASH}-16383x16383{LONGEST_OPTIONS}.webp"
    assert spelled_well(text)
    assert outcome(text) == "rule"
    assert (len(text), LONGEST) == (240, 255)


# ---- the published expression


@lawfully
@given(texts)
def test_the_published_expression_is_the_syntax(text: str) -> None:
    assert (re.search(SYNTAX, text) is not None) == spelled_well(text) == (outcome(text) != "syntax")


@pytest.mark.parametrize("text", [text for _, text, _ in LISTED])
def test_the_published_expression_takes_what_only_a_rule_refuses(text: str) -> None:
    assert (re.search(SYNTAX, text) is not None) == (outcome(text) != "syntax")


def test_the_published_expression_is_one_that_every_engine_reads() -> None:
    assert SYNTAX.startswith("^")
    assert SYNTAX.endswith(r"$(?!\n)")
    assert re.compile(SYNTAX).groups == 0
    assert set(re.findall(r"\(\?.|[?*+}][?+]|\\.", SYNTAX)) == {"(?:", "(?!", r"\n"}
    assert '"' not in SYNTAX


# ---- the tables


def test_the_options_stand_in_alphabetical_order_and_so_do_the_fields() -> None:
    keys = [option.key for option in OPTIONS]
    assert keys == sorted(set(keys)) == KEYS
    assert [field.name for field in fields(Derived)] == ["hash", "format", "width", "height", *keys]


def test_no_option_is_reserved_and_what_is_reserved_is_refused() -> None:
    assert set("cache dpr exp face fit format gray gravity max preset rotate sig text trim".split()) == RESERVED
    for key in RESERVED:
        for word in (key, f"{key}_2"):
            with pytest.raises(BadName, match=f"^{key} is reserved"):
                parse(f"{HASH}-9x-{word}.jpg")
    assert not RESERVED & set(KEYS)


def test_the_constants_are_those_of_the_first_grammar() -> None:
    assert list(grammar.FORMATS) == FORMATS
    assert list(grammar.TYPES) == TYPES
    assert QUALITY == {"avif": 50, "jpg": 80, "jxl": 75, "webp": 80}


# ---- the module


def test_the_examples_of_the_module_are_true() -> None:
    found = doctest.testmod(grammar)
    assert (found.failed, found.attempted) == (0, 3)


def test_importing_the_grammar_loads_nothing_foreign() -> None:
    code = (
        "import sys; before = set(sys.modules); import imgproxy.grammar; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - sys.stdlib_module_names)); print(sorted(name for name in sys.modules if name.startswith('imgproxy')))"
    )
    root = Path(__file__).parent.parent
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "['imgproxy']\n['imgproxy', 'imgproxy.errors', 'imgproxy.grammar']\n"
