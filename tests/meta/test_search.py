"""Search: what is found, in which order, page by page, at one moment."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgproxy.errors import BadRecord, Busy, Outdated
from imgproxy.meta import query, shelves
from imgproxy.meta.query import Query
from imgproxy.meta.record import Record
from imgproxy.meta.repository import Words
from imgproxy.meta.search import Page
from imgproxy.meta.sessions import Session
from imgproxy.meta.staging import Change, second
from imgproxy.meta.tokens import searchable
from tests.meta.making import Place, commit, hash_of, live, record


def found(here: Words, who: Session | None = None, /, **asked: Any) -> list[int]:
    """The numbers of what is found, in order."""
    numbers = {hash_of(number): number for number in range(100)}
    return [numbers[one.hash] for one in here.search.page(query.read(asked), session=who).records]


def walked(words: Words, asked: Query, most: int, session: Session | None = None) -> list[Page]:
    """All pages of a search."""
    pages = [words.search.page(asked, most=most, session=session)]
    while pages[-1].cursor:
        pages.append(words.search.page(asked, most=most, cursor=pages[-1].cursor, session=session))
    return pages


def hashes(pages: list[Page]) -> list[str]:
    return [one.hash for page in pages for one in page.records]


@pytest.fixture
def shelf(words: Words) -> Words:
    """Ten records that differ in all that can be asked."""
    commit(
        words,
        record(0, title="Zürich by night", tags=("City", "night"), taken_at="2024-05-17T23:10:00"),
        record(1, title="Red sun", description="over the sea", tags=("sea",), taken_at="2024-05-18T06:00:00+02:00"),
        record(2, title="Sun", description="red", type="png", taken_at="2023-01-01T00:00:00"),
        record(3, title="東京タワー", tags=("都市",), taken_at="2022-12-31T23:59:59"),
        record(4, width=480, height=640, title="sunflower field"),
        record(5, width=500, height=500, tags=("sea & sky",)),
        record(6, width=6_000, height=4_000, bytes=9_000_000, domain="Shop", dkey="a/7"),
        record(7, domain="shop", dkey="8", user={"note": "sun"}),
        record(8, description="isn't it"),
        record(9, taken_at="2024-05-17T00:00:00"),
    )
    return words


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({"words": "sun"}, {1, 2}),
        ({"words": "sun*"}, {1, 2, 4}),
        ({"words": "red sun"}, {1, 2}),
        ({"words": '"red sun"'}, {1}),
        ({"words": '"red sun'}, {1}),
        ({"words": "SUN sea"}, {1}),
        ({"words": "zurich"}, {0}),
        ({"words": "Zür*"}, {0}),
        ({"words": "東京"}, {3}),
        ({"words": "京タ"}, {3}),
        ({"words": "タワー 都市"}, {3}),
        ({"words": "京東"}, set()),
        ({"words": "isn't"}, {8}),
        ({"words": "t"}, {8}),
        ({"words": "t*"}, {8}),
        ({"words": "_t*"}, {8}),
        ({"words": "_y*"}, set()),
        ({"words": "y_jpg"}, set()),
        ({"words": "!!!"}, set()),
        ({"words": "sun - !"}, {1, 2}),
        ({"words": 'NEAR("sun" red) OR * ^ - : {} sun'}, set()),
        ({"tags": ["sea"]}, {1}),
        ({"tags": ["CITY", "night"]}, {0}),
        ({"tags": ["sea  & SKY"]}, {5}),
        ({"tags": ["se"]}, set()),
        ({"taken_from": "2024-05-17", "taken_to": "2024-05-17"}, {0, 9}),
        ({"taken_from": "2024-05-17T12:00:00", "taken_to": "2024-05-18T06:00:00"}, {0, 1}),
        ({"taken_to": "2022-12-31"}, {3}),
        ({"taken_from": "2024-01-01", "taken_to": "2024-01-01"}, {4, 5, 6, 7, 8}),
        ({"type": "png"}, {2}),
        ({"orientation": "portrait"}, {4}),
        ({"orientation": "square"}, {5}),
        ({"min_width": 641}, {6}),
        ({"min_width": 500, "max_width": 500}, {5}),
        ({"max_height": 479}, set()),
        ({"min_width": 2, "max_width": 1}, set()),
        ({"min_bytes": 1_000_000}, {6}),
        ({"domain": "shop"}, {7}),
        ({"domain": "Shop", "dkey": "a/7"}, {6}),
        ({"dkey": "8"}, {7}),
        ({"words": "sun", "type": "png", "taken_from": "2023-01-01", "tags": []}, {2}),
    ],
)
def test_what_is_asked_is_found_live_and_staged_alike(shelf: Words, asked: dict[str, Any], numbers: set[int]) -> None:
    assert set(found(shelf, **asked)) == numbers
    assert set(found(shelf, order="added", **asked)) == numbers
    page = shelf.search.page(query.read(asked))
    assert (page.total, page.exact) == (len(numbers), True)
    staged = shelf.sessions.open()
    shelf.sessions.stage(staged, [Change(hash, one) for hash, one in live(shelf).items()])
    assert set(found(shelf, staged, **asked)) == numbers


def test_an_original_is_found_by_its_md5(shelf: Words) -> None:
    assert found(shelf, md5=record(5).md5) == [5]
    assert found(shelf, md5=record(5).md5, type="png") == []
    assert found(shelf, md5="0" * 32) == []


def test_the_newest_date_comes_first_or_the_oldest(shelf: Words) -> None:
    dated = [1, 0, 9, 2, 3]
    numbers = found(shelf)
    assert [number for number in numbers if number in dated] == dated
    assert found(shelf, oldest=True) == numbers[::-1]


def test_the_order_of_arrival_is_that_of_the_commits_and_outlives_edits(words: Words) -> None:
    for number in (3, 1, 2):
        commit(words, record(number))
    commit(words, record(3, title="edited"))
    assert found(words, order="added") == [2, 1, 3]
    assert found(words, order="added", oldest=True) == [3, 1, 2]


@pytest.mark.parametrize("order", query.ORDERS)
@pytest.mark.parametrize("oldest", [False, True])
@pytest.mark.parametrize("words_asked", ["", "sun"])
def test_pages_together_are_the_whole_each_result_once(words: Words, order: str, oldest: bool, words_asked: str) -> None:
    for start in range(0, 60, 20):
        commit(
            words, *(record(number, title="sun", taken_at=f"2024-01-{number % 3 + 1:02}T00:00:00") for number in range(start, start + 20))
        )
    asked = Query(words=words_asked, order=order, oldest=oldest)
    whole = hashes([words.search.page(asked, most=1_000)])
    assert len(set(whole)) == 60
    for most in (1, 7, 20, 59, 60):
        pages = walked(words, asked, most)
        assert hashes(pages) == whole
        assert {(page.total, page.exact) for page in pages} == {(60, True)}


@pytest.mark.parametrize("order", query.ORDERS)
def test_a_commit_in_the_middle_of_a_search_changes_none_of_its_pages(words: Words, order: str) -> None:
    commit(words, *(record(number, title="sun", tags=("a",)) for number in range(30)))
    asked = Query(words="sun", tags=("a",), order=order)
    expected = words.search.page(asked, most=100)
    first = words.search.page(asked, most=5)
    session = words.sessions.open()
    for number in range(10):
        words.sessions.delete(session, hash_of(number))
    for number in range(10, 20):
        words.sessions.edit(session, hash_of(number), {"title": "moon", "taken_at": "1999-01-01"})
    for number in range(40, 50):
        words.sessions.put(session, record(number, title="sun", tags=("a",)))
    words.commits.commit(session.id)
    commit(words, record(12, title="sun again", tags=("a",)))
    pages = [first]
    while pages[-1].cursor:
        pages.append(words.search.page(asked, most=5, cursor=pages[-1].cursor))
    assert [one for page in pages for one in page.records] == list(expected.records)
    assert {page.moment for page in pages} == {1}
    assert words.search.page(asked, most=100).total == 21


def test_a_search_that_takes_too_long_is_told_to_begin_again(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(words, *(record(number) for number in range(10)))
    first = words.search.page(Query(), most=5)
    monkeypatch.setattr("imgproxy.meta.applying.KEPT_SECONDS", -1.0)
    commit(words, record(20))
    assert len(words.search.page(Query(), most=5, cursor=first.cursor).records) == 5
    commit(words, record(21))
    with pytest.raises(Outdated):
        words.search.page(Query(), most=5, cursor=first.cursor)


def test_a_commit_that_replaces_very_much_keeps_none_of_it_and_says_so(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(words, *(record(number) for number in range(10)))
    first = words.search.page(Query(), most=5)
    monkeypatch.setattr("imgproxy.meta.applying.KEPT_STATES", 3)
    commit(words, *(record(number, title="x") for number in range(4)))
    with pytest.raises(Outdated):
        words.search.page(Query(), cursor=first.cursor)


def test_superseded_states_do_not_pile_up(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgproxy.meta.applying.KEPT_SECONDS", -1.0)
    for turn in range(20):
        commit(words, record(1, title=str(turn)))
    with words.database.reading() as db:
        assert db.execute("SELECT count(*) FROM past").fetchone()[0] <= 2


def test_a_cursor_goes_on_at_every_copy_that_has_reached_its_moment(words: Words, here: Place) -> None:
    reader = here.node("reader")
    for start in (0, 10, 20):
        commit(words, *(record(number, title="sun") for number in range(start, start + 10)))
    commit(words, record(3, title="sun, edited"))
    asked = Query(words="sun")
    first = words.search.page(asked, most=4)
    with pytest.raises(Busy):
        reader.search.page(asked, most=4, cursor=first.cursor)
    reader.follower.poll()
    assert reader.search.page(asked, most=40, cursor=first.cursor).records == words.search.page(asked, most=40, cursor=first.cursor).records
    restored = here.node("restored")
    assert (
        restored.search.page(asked, most=40, cursor=first.cursor).records == words.search.page(asked, most=40, cursor=first.cursor).records
    )
    reader.close()
    restored.close()


@pytest.mark.parametrize("order", query.ORDERS)
def test_a_session_is_searched_with_its_own_states_on_top(words: Words, order: str) -> None:
    commit(words, *(record(number, title="sun", taken_at=f"2024-01-{number + 1:02}") for number in range(20)))
    session = words.sessions.open()
    words.sessions.delete(session, hash_of(3))
    words.sessions.edit(session, hash_of(4), {"title": "moon"})
    words.sessions.edit(session, hash_of(5), {"title": "sun and moon", "taken_at": "2024-01-28"})
    words.sessions.put(session, record(30, title="sun", taken_at="2024-01-10T00:00:00"))
    words.sessions.put(session, record(31, title="sun", taken_at="2024-01-10T00:00:00"))
    asked = Query(words="sun", order=order)
    mine, public = walked(words, asked, 3, session), walked(words, asked, 3)
    assert set(hashes(mine)) == {hash_of(number) for number in (*range(20), 30, 31)} - {hash_of(3), hash_of(4)}
    assert len(hashes(mine)) == 20
    assert mine[0].total == 20
    assert len(hashes(public)) == 20
    assert hash_of(3) in hashes(public)
    where = hashes(mine).index
    if order == "taken":
        assert where(hash_of(5)) == 0
        assert where(hash_of(10)) < where(hash_of(30)) < where(hash_of(8))
    else:
        assert {where(hash_of(30)), where(hash_of(31))} == {0, 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("colour", "red"),
        ("words", "x" * 1_001),
        ("words", "a\0b"),
        ("words", 5),
        ("tags", "sea"),
        ("taken_from", "soon"),
        ("type", "exe"),
        ("orientation", "wide"),
        ("orientation", []),
        ("min_width", -1),
        ("min_width", "5"),
        ("max_bytes", 1.5),
        ("md5", "x"),
        ("order", "size"),
        ("oldest", "yes"),
    ],
)
def test_a_wrong_question_is_refused_by_its_fields_name(field: str, value: object) -> None:
    with pytest.raises(BadRecord) as caught:
        query.read({field: value})
    assert caught.value.field == field


def spelled(*said: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    ["x", "é", "A" * 500, "[]", spelled(), spelled("q", 1, 2, 3, 4), spelled("q", -1, 2, 3, 4, 5), spelled("q", 1, 2, 2**63, 4, 5),
     spelled("q", 1, 2**63 - 1, 3, 4, 5),
     spelled("q", 1, 2, "3", 4, 5), spelled(5, 1, 2, 3, 4, 5), spelled("q", 1, 2, None, 4, 5), spelled("another", 0, 0, 0, 0, 0)],
)  # fmt: skip
def test_a_cursor_that_is_none_of_ours_is_refused(words: Words, cursor: str) -> None:
    with pytest.raises(BadRecord) as caught:
        words.search.page(Query(), cursor=cursor)
    assert caught.value.field == "cursor"


def test_a_cursor_belongs_to_its_search_and_its_session(words: Words) -> None:
    commit(words, *(record(number) for number in range(5)))
    cursor = words.search.page(Query(), most=2).cursor
    with pytest.raises(BadRecord, match="another search"):
        words.search.page(Query(words="x"), cursor=cursor)
    with pytest.raises(BadRecord, match="another search"):
        words.search.page(Query(), cursor=cursor, session=words.sessions.open())


@pytest.mark.parametrize("most", [0, -1, 1_001])
def test_a_page_has_bounds(words: Words, most: int) -> None:
    with pytest.raises(BadRecord) as caught:
        words.search.page(Query(), most=most)
    assert caught.value.field == "most"


def test_many_are_counted_up_to_a_bound_and_single_marks_exactly(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "COUNTED", 10)
    commit(words, *(record(number, title="sun", tags=("a",)) for number in range(30)))

    def told(**asked: Any) -> tuple[int, bool]:
        page = words.search.page(query.read(asked))
        return page.total, page.exact

    assert told() == (30, True)
    assert told(tags=["a"]) == (30, True)
    assert told(type="jpg") == (30, True)
    assert told(type="png") == (0, True)
    assert told(words="sun") == (10, False)
    assert told(tags=["a"], type="jpg") == (10, False)
    assert told(min_bytes=1) == (10, False)
    assert told(min_bytes=1, words="moon") == (0, True)


def test_many_matches_are_walked_in_order_of_arrival_and_few_are_sorted(words: Words) -> None:
    for number in range(30):
        commit(words, record(number, title="sun", taken_at=f"2024-01-{30 - number:02}T00:00:00"))
    asked = Query(words="sun", order="added", taken_from="2024-01-05", taken_to="2024-01-20T00:00:00")
    said: list[str] = []
    for most in (4, 20):
        with words.database.reading() as db:
            db.set_trace_callback(said.append)
            assert [row[2].hex() for row in shelves.live(db, shelves.View(asked, 30), most)] == [
                hash_of(n) for n in range(25, 25 - most, -1)
            ][:16]
            db.set_trace_callback(None)
        assert hashes(walked(words, asked, most)) == [hash_of(number) for number in range(25, 9, -1)]
    assert ["MATCH" in statement for statement in said if "r.state" in statement] == [False, True]


def test_tags_are_listed_by_beginning_or_by_number(words: Words) -> None:
    commit(words, record(1, tags=("Sea", "Seagull")), record(2, tags=("sea", "moon & stars")))
    assert words.search.tags() == [("sea", 2), ("moon & stars", 1), ("seagull", 1)]
    assert words.search.tags("SEA") == [("sea", 2), ("seagull", 1)]
    assert words.search.tags("moon ") == [("moon & stars", 1)]
    assert words.search.tags("x") == []


TEXT = st.lists(st.sampled_from("sun Sun red zürich zurich 東京 京 isn't a _t_sea y_jpg * \" ( AND".split(" ")), max_size=4).map(" ".join)
TAGS = st.lists(st.sampled_from(["sea", "Sea", "sea & sky", "都市", "🎉", "_"]), max_size=2)
TIMES = st.sampled_from(["", "2024-01-01T00:00:00", "2024-01-01T00:00:01", "2023-12-31T23:59:59"])
ASKED = st.fixed_dictionaries(
    {},
    optional={
        "words": TEXT,
        "tags": TAGS,
        "taken_from": TIMES,
        "taken_to": TIMES,
        "orientation": st.sampled_from(["landscape", "portrait", "square"]),
        "min_width": st.sampled_from([0, 1, 100, 101]),
        "max_width": st.sampled_from([0, 100, 101, 200]),
        "order": st.sampled_from(query.ORDERS),
        "oldest": st.booleans(),
    },
)
SAID = st.fixed_dictionaries(
    {"title": TEXT, "description": TEXT, "tags": TAGS.map(tuple), "taken_at": TIMES, "width": st.sampled_from([1, 100, 101, 200])}
)


def fits(one: Record, asked: Query) -> bool:
    """What it means to be found, said once more without an index."""
    text = searchable(one)
    for needle in query.needles(asked):
        if not any((f" {part}" if needle.open else f" {part} ") in text for part in needle.texts):
            return False
    first, last = query.seconds(asked)
    return first <= second(one.taken_at or one.added_at) <= last and asked.min_width <= one.width <= asked.max_width


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SAID, min_size=1, max_size=12), st.lists(st.tuples(st.integers(0, 11), SAID), max_size=5), ASKED, st.integers(1, 5))
def test_the_index_finds_what_looking_at_every_record_finds(
    words: Words, said: list[dict[str, Any]], edits: list[tuple[int, dict[str, Any]]], asked: dict[str, Any], most: int
) -> None:
    session = words.sessions.open()
    for hash in live(words):
        words.sessions.delete(session, hash)
    words.commits.commit(session.id)
    if session.id in {one.id for one in words.sessions.all()}:
        words.sessions.discard(session)
    commit(words, *(record(number, **one) for number, one in enumerate(said)))
    wanted = query.read(asked)
    expected = {one.hash for one in live(words).values() if fits(one, wanted)}
    assert set(hashes(walked(words, wanted, most))) == expected
    mine = words.sessions.open()
    for number, one in edits:
        words.sessions.put(mine, record(number, **one))
    seen = {hash: words.sessions.read(hash, mine) for hash in {*live(words), *(hash_of(number) for number, _ in edits)}}
    expected = {hash for hash, one in seen.items() if one and fits(one, wanted)}
    pages = walked(words, wanted, most, mine)
    assert sorted(hashes(pages)) == sorted(expected)
    assert (pages[0].total, pages[0].exact) == (len(expected), True)
    words.sessions.discard(mine)
