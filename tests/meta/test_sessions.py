"""Sessions: seen by nobody else, compared, discarded, forgotten."""

from __future__ import annotations

import pytest

from imgproxy.errors import BadRecord, Missing, NoSession, SessionClosed
from imgproxy.meta.repository import Words
from imgproxy.meta.sessions import DEFAULT
from imgproxy.meta.staging import Change
from tests.meta.making import commit, hash_of, live, record


def test_a_picture_that_has_a_record_by_now_is_introduced_to_nobody(words: Words) -> None:
    commit(words, record(1, title="By the sea", dkey="1", domain="d"))
    session = words.sessions.open()
    assert words.sessions.introduce(session, record(1, description="new"), {"description": "new"}).title == "By the sea"
    assert words.sessions.introduce(session, record(1), {"tags": ["a"]}).description == "new"
    assert words.sessions.introduce(session, record(2, title="first"), {"title": "first"}).title == "first"
    assert words.sessions.introduce(session, record(2, tags=("b",)), {"tags": ["b"]}).title == "first"
    assert live(words)[hash_of(1)].title == "By the sea"


def test_what_is_staged_is_seen_in_its_session_alone(words: Words) -> None:
    commit(words, record(1, title="old"))
    mine, other = words.sessions.open(), words.sessions.open()
    words.sessions.edit(mine, hash_of(1), {"title": "new"})
    words.sessions.put(mine, record(2))
    titles = [seen.title for seen in (words.sessions.read(hash_of(1), who) for who in (mine, other, None)) if seen]
    assert titles == ["new", "old", "old"]
    assert words.sessions.read(hash_of(2), mine) is not None
    assert words.sessions.read(hash_of(2)) is None


def test_a_deletion_is_seen_in_its_session_alone(words: Words) -> None:
    commit(words, record(1))
    mine = words.sessions.open()
    words.sessions.delete(mine, hash_of(1))
    assert words.sessions.read(hash_of(1), mine) is None
    assert words.sessions.read(hash_of(1)) is not None
    with pytest.raises(Missing):
        words.sessions.edit(mine, hash_of(1), {"title": "x"})
    with pytest.raises(Missing):
        words.sessions.delete(mine, hash_of(1))


def test_what_was_only_ever_in_a_session_leaves_nothing_when_it_is_deleted_there(words: Words) -> None:
    mine = words.sessions.open()
    words.sessions.put(mine, record(1))
    words.sessions.delete(mine, hash_of(1))
    assert words.sessions.size(mine) == 0


def test_edits_of_one_record_add_up(words: Words) -> None:
    commit(words, record(1, title="a"))
    mine = words.sessions.open()
    words.sessions.edit(mine, hash_of(1), {"title": "b"})
    words.sessions.edit(mine, hash_of(1), {"tags": ["sea"]})
    seen = words.sessions.read(hash_of(1), mine)
    assert seen is not None
    assert (seen.title, seen.tags, seen.version) == ("b", ("sea",), 1)


def test_a_wrong_edit_stages_nothing(words: Words) -> None:
    commit(words, record(1))
    mine = words.sessions.open()
    with pytest.raises(BadRecord):
        words.sessions.edit(mine, hash_of(1), {"title": "fine", "tags": "not a list"})
    with pytest.raises(BadRecord):
        words.sessions.read("nothing of a hash", mine)
    assert words.sessions.size(mine) == 0


def test_the_difference_says_before_after_and_what_others_changed(words: Words) -> None:
    commit(words, record(1, title="a"), record(2), record(4, title="d"))
    mine = words.sessions.open()
    words.sessions.edit(mine, hash_of(1), {"title": "b"})
    words.sessions.delete(mine, hash_of(2))
    words.sessions.put(mine, record(3))
    words.sessions.edit(mine, hash_of(4), {"title": "mine"})
    commit(words, record(4, title="theirs"))
    said = {one.hash: one for one in words.sessions.diff(mine)}
    assert list(said) == sorted(map(hash_of, (1, 2, 3, 4)))
    changed, deleted, added, stale = (said[hash_of(number)] for number in (1, 2, 3, 4))
    assert (changed.before and changed.before.title, changed.after and changed.after.title) == ("a", "b")
    assert (deleted.after, added.before) == (None, None)
    assert [one.stale for one in (changed, deleted, added, stale)] == [False, False, False, True]
    assert stale.before is not None
    assert stale.before.title == "theirs"


def test_a_difference_of_thousands_is_told_whole_and_in_order(words: Words) -> None:
    mine = words.sessions.open()
    words.sessions.stage(mine, (Change(hash_of(number), record(number)) for number in range(1_234)))
    hashes = [one.hash for one in words.sessions.diff(mine)]
    assert hashes == sorted(map(hash_of, range(1_234)))


def test_the_default_session_is_one_for_all_and_a_new_one_after_each_commit(words: Words) -> None:
    first = words.sessions.find("")
    assert words.sessions.find(DEFAULT).id == words.sessions.open(DEFAULT).id == words.sessions.find(first.id).id == first.id
    words.sessions.put(first, record(1))
    words.commits.commit(first.id)
    second = words.sessions.find("")
    assert second.id != first.id
    assert words.sessions.size(second) == 0


def test_a_session_that_is_not_open_is_none(words: Words) -> None:
    with pytest.raises(NoSession):
        words.sessions.find("nobody")
    mine = words.sessions.open("holiday")
    words.sessions.discard(mine)
    with pytest.raises(NoSession):
        words.sessions.find("holiday")
    with pytest.raises(NoSession):
        words.sessions.put(mine, record(1))
    assert words.sessions.open("holiday").key != mine.key


def test_discarding_forgets_everything_of_one_session(words: Words) -> None:
    mine, other = words.sessions.open(), words.sessions.open()
    for session in (mine, other):
        words.sessions.put(session, record(1))
    words.sessions.discard(mine)
    assert [session.id for session in words.sessions.all()] == [other.id]
    assert words.sessions.holds(hash_of(1))
    words.sessions.forget(other, hash_of(1))
    assert not words.sessions.holds(hash_of(1))


def test_forgotten_sessions_expire_by_running_time_and_no_others(words: Words) -> None:
    old, young = words.sessions.open(), words.sessions.open()
    assert words.sessions.expire(60.0, 100.0) == []
    words.sessions.put(young, record(1))
    assert words.sessions.expire(60.0, 100.0) == [old.id]
    assert [session.id for session in words.sessions.all()] == [young.id]


def test_a_session_that_is_being_committed_takes_no_changes(words: Words) -> None:
    mine = words.sessions.open()
    words.sessions.put(mine, record(1))
    with words.database.writing() as db:
        db.execute("UPDATE sessions SET committing = 1")
    with pytest.raises(SessionClosed):
        words.sessions.put(mine, record(2))
    with pytest.raises(SessionClosed):
        words.sessions.discard(mine)
    assert words.sessions.expire(1e9, 1.0) == []
    assert live(words) == {}


@pytest.mark.parametrize("text", ["a\0b", "half \ud800"])
def test_what_cannot_be_said_names_no_session_and_no_record(words: Words, text: str) -> None:
    with pytest.raises(NoSession):
        words.sessions.find(text)
    with pytest.raises(BadRecord, match="name"):
        words.sessions.open(text)
    with pytest.raises(BadRecord, match="author"):
        words.sessions.open(author=text)
    with pytest.raises(BadRecord, match="message"):
        words.commits.commit(words.sessions.open().id, message=text)
    assert words.search.find(text, text) is None
    assert words.search.tags(text) == []
