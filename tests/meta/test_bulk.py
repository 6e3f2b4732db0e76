"""Many records in one session: only what is new, in any number of runs, and nothing before the commit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imgproxy.meta import bulk
from imgproxy.meta.bulk import Imported
from imgproxy.meta.record import Record
from imgproxy.meta.repository import Words
from tests.meta.making import commit, hash_of, live, record


@pytest.fixture(autouse=True)
def chunks_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_CHUNK", 10)


def test_what_is_live_or_staged_already_is_told_and_left_alone(words: Words) -> None:
    commit(words, record(0, title="live"))
    session = words.sessions.open("import")
    words.sessions.put(session, record(1, title="staged"))
    told: list[Imported] = []
    done = bulk.bulk(words.database, session, (record(number, title="new") for number in range(35)), told.append)
    assert done == Imported(new=33, known=2)
    assert told == [Imported(8, 2), Imported(18, 2), Imported(28, 2), Imported(33, 2)]
    assert set(live(words)) == {hash_of(0)}
    words.commits.commit(session.id)
    titles = {hash: one.title for hash, one in live(words).items()}
    assert titles == {hash_of(number): {0: "live", 1: "staged"}.get(number, "new") for number in range(35)}


def test_an_import_that_broke_off_goes_on_where_it_was(words: Words) -> None:
    session = words.sessions.open("import")

    def broken() -> Iterator[Record]:
        yield from (record(number) for number in range(25))
        raise OSError("the disk with the list is gone")

    with pytest.raises(OSError, match="list"):
        bulk.bulk(words.database, session, broken())
    assert words.sessions.size(session) == 20
    assert bulk.bulk(words.database, session, (record(number) for number in range(30))) == Imported(new=10, known=20)
    assert words.sessions.size(session) == 30


def test_nothing_at_all_is_an_import_too(words: Words) -> None:
    assert bulk.bulk(words.database, words.sessions.open(), ()) == Imported(0, 0)
