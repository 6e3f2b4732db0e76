"""Records: what is taken, what is refused and by which field's name."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy.errors import BadRecord
from imgproxy.meta.record import EDITABLE, Record, edited, from_state, loads, read, shown, state
from tests.meta.making import record

FACTS = {"hash": "a" * 64, "type": "jpg", "width": 3, "height": 2, "bytes": 9}


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("title", 5, "is not a text"),
        ("title", "x" * 1_001, "is longer than 1000 characters"),
        ("title", "a\0b", "has a control character"),
        ("description", "half \ud800", "has half of a character"),
        ("tags", "sea", "is not a list of texts"),
        ("tags", [1], "has a tag that is not a text"),
        ("tags", ["  "], "has an empty tag"),
        ("tags", ["x" * 101], "has a tag longer than 100 characters"),
        ("tags", [str(number) for number in range(201)], "has more than 200 tags"),
        ("tags", ["x" * 100] * 100_000, "has more than 200 tags"),
        ("taken_at", "yesterday", "is not a time like 2024-05-17T13:45:00, or a date like 2024-05-17"),
        ("taken_at", "2024-02-30", "is a time that does not exist"),
        ("taken_at", "2024-05-17T24:00:00", "is a time that does not exist"),
        ("taken_at", "0000-01-01", "is a time that does not exist"),
        ("taken_at", "2024-05-17T10:00:00+15:00", "is a time whose distance from UTC does not exist"),
        ("taken_at", "٢٠٢٤-05-17", "is not a time like 2024-05-17T13:45:00, or a date like 2024-05-17"),
        ("taken_at", 1715953500, "is not a time like 2024-05-17T13:45:00, or a date like 2024-05-17"),
        ("domain", "a/b", "is not 1 to 100 of the letters a to z and A to Z, digits, dots, underscores and hyphens"),
        ("domain", "..", "is not 1 to 100 of the letters a to z and A to Z, digits, dots, underscores and hyphens"),
        ("domain", "shop", "an alias needs both domain and dkey"),
        ("dkey", "7", "an alias needs both domain and dkey"),
        ("user", ["a"], "is not a JSON object"),
        ("user", {"a": float("nan")}, "has a number that JSON does not know"),
        ("user", {"a": 2**63}, "has a number of more than 64 bits"),
        ("user", {"a": {1}}, "has a value that JSON does not know"),
        ("user", {"a": ["\ud800"]}, "has half of a character"),
        ("user", {"a\0": 1}, "has a control character"),
        ("user", {"a": "x" * 70_000}, "is larger than 65536 bytes of JSON"),
        ("user", deep(17), "is nested deeper than 16 levels"),
        ("user", deep(900), "is nested deeper than 16 levels"),
        ("width", 5, "is not for you to say"),
        ("version", 5, "is not for you to say"),
        ("colour", "red", "is no field of a record"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, why: str) -> None:
    with pytest.raises(BadRecord) as caught:
        edited(record(1), {field: value})
    assert caught.value.why == why
    assert caught.value.field in (field, {"domain": "dkey", "dkey": "domain"}.get(field))
    assert "\ud800" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hash": "A" * 64}, "hash"),
        ({"hash": ""}, "hash"),
        ({"type": "exe"}, "type"),
        ({"type": ["jpg"]}, "type"),
        ({"width": -1}, "width"),
        ({"width": True}, "width"),
        ({"height": 1.5}, "height"),
        ({"bytes": "9"}, "bytes"),
        ({"md5": "xyz"}, "md5"),
        ({"phash": "0" * 15}, "phash"),
        ({"image": []}, "image"),
        ({"\u202e\x1b[31m": 1}, "??[31m"),
    ],
)
def test_a_whole_record_is_checked_in_every_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(BadRecord) as caught:
        read(FACTS | change)
    assert caught.value.field == field


@pytest.mark.parametrize("missing", sorted(FACTS))
def test_a_record_without_its_facts_is_none(missing: str) -> None:
    with pytest.raises(BadRecord) as caught:
        read({name: value for name, value in FACTS.items() if name != missing})
    assert (caught.value.field, caught.value.why) == (missing, "is missing")


@pytest.mark.parametrize(
    "text",
    [b"{", b"nope", b'{"a": 1, "a": 2}', b"[" * 100_000, b'{"a":' * 40_000, b'"' + b"x" * 300_000 + b'"', b"\xff\xfe", b"1" * 5_000],
)
def test_a_text_that_is_not_plain_json_is_refused_soon(text: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(BadRecord):
        edited(record(1), loads(text))
    assert time.process_time() - begun < 2


def test_an_edit_changes_what_it_says_and_null_takes_it_away() -> None:
    before = record(1, title="Sea", tags=("a",), user={"x": 1}, domain="shop", dkey="7")
    after = edited(before, {"title": "Sky", "tags": ["b", " B ", "c  d"], "user": None, "taken_at": "2024-05-17"})
    assert (after.title, after.tags, after.user, after.taken_at) == ("Sky", ("b", "c d"), {}, "2024-05-17T00:00:00")
    assert edited(after, {"tags": None, "domain": None, "dkey": None}).tags == ()
    assert (after.hash, after.width, after.dkey) == (before.hash, before.width, "7")


def test_where_a_picture_was_taken_is_private() -> None:
    one = record(1, image={"gps": {"latitude": 48.1}, "camera": "X100"})
    assert shown(one)["image"] == {"camera": "X100"}
    assert shown(one, private=True)["image"]["gps"] == {"latitude": 48.1}
    assert json.loads(json.dumps(shown(one)))["hash"] == one.hash


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=10,
)
EDITS = st.fixed_dictionaries(
    {},
    optional={
        "title": WORDS,
        "description": WORDS,
        "tags": st.lists(WORDS.filter(str.strip), max_size=5),
        "user": st.dictionaries(WORDS, JSON, max_size=4),
        "taken_at": st.datetimes().map(lambda when: when.replace(microsecond=0).isoformat()),
    },
)


@given(EDITS)
def test_a_record_survives_being_a_text(edit: dict[str, object]) -> None:
    one = edited(record(1), edit)
    assert from_state(one.hash, 7, state(one)) == Record(**{**{name: getattr(one, name) for name in one.__slots__}, "version": 7})
    again = from_state(one.hash, 0, state(one))
    assert state(again) == state(one)
    assert again == read({name: value for name, value in shown(one, private=True).items() if name != "version"})


@given(st.dictionaries(st.sampled_from(EDITABLE) | st.text(max_size=8), JSON | st.text(max_size=8) | st.lists(JSON), max_size=4))
def test_whatever_is_said_is_taken_or_refused_by_name(edit: dict[str, object]) -> None:
    try:
        one = edited(record(1), edit)
    except BadRecord:
        return
    assert from_state(one.hash, 0, state(one)) == one
