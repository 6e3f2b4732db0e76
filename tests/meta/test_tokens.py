"""Tokens: what a search holds for the same."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy.meta import fields, journal, staging, tokens
from tests.meta.making import record


@pytest.mark.parametrize("module", [fields, journal, staging, tokens])
def test_what_the_texts_show_is_so(module: object) -> None:
    tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried.attempted
    assert tried.failed == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Zürich", "ZURICH"),
        ("Zu\u0308rich", "Zürich"),
        ("Straße", "STRASSE"),
        ("ﬁnal", "FINAL"),
        ("\uff21\uff22", "ab"),
        ("ПРИВЕТ", "привет"),
        ("Ελλάδα", "ΕΛΛΑΔΑ"),
        ("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
        ("été", "ete"),
    ],
)
def test_spellings_of_one_word_are_the_same(one: str, other: str) -> None:
    assert tokens.tokens(one) == tokens.tokens(other) != []


def test_scripts_without_spaces_are_cut_into_characters() -> None:
    assert tokens.tokens("東京タワー2024") == ["東", "京", "タ", "ワ", "ー", "2024"]
    assert tokens.tokens("iPhone で") == ["iphone", "で"]


@given(st.text(max_size=60))
def test_a_token_is_never_a_mark_and_never_has_a_space(text: str) -> None:
    for token in tokens.tokens(text):
        assert token
        assert "_" not in token
        assert '"' not in token
        assert " " not in token


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip))
def test_a_tag_is_one_token_and_can_be_read_back(tag: str) -> None:
    mark = tokens.tag_mark(tag)
    assert mark.startswith("_t_")
    assert not set(mark) & set(' "*()')
    assert tokens.tag_mark(tokens.tag_of(mark)) == mark


def test_no_phrase_reaches_from_one_field_into_the_next() -> None:
    one = record(1, title="red", description="sun", tags=("sea",))
    assert tokens.searchable(one).startswith(" red _y_jpg sun _t_sea sea _o_")


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.lists(st.text(min_size=1, max_size=9).filter(str.strip), max_size=3)
)
def test_the_counted_marks_are_read_back_from_the_text(title: str, tags: list[str]) -> None:
    one = record(1, title=title, description=f"{title} _t_ {title}", tags=tuple(tags), domain="a_t_b.o.c", dkey="1")
    shape = "landscape" if one.width > one.height else "portrait" if one.width < one.height else "square"
    expected = {tokens.type_mark(one.type), tokens.orientation_mark(shape), *map(tokens.tag_mark, tags)}
    assert tokens.marks_of(tokens.searchable(one)) == expected
