"""Verify: what rots is found, put away and told; what is right is left alone; a stopped run goes on."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from imgproxy.flights import Flights
from imgproxy.meta.repository import Words
from imgproxy.meta.sync import Sync
from imgproxy.meta.verify import QUARANTINE, Verified, Verify
from imgproxy.stores import Blob
from tests.meta.making import Place, body, commit, hash_of, record

ALL = sorted(hash_of(number) for number in range(100))


def verify(words: Words, here: Place, pace: float = 0.0) -> Verify:
    return Verify(words.chain, here.base, words.commits.catch_up, words.originals.alone, pace=pace)


def stored(here: Place, key: str) -> bytes | None:
    blob = here.meta.get(key)
    if blob is None:
        return None
    with blob:
        return blob.file.read()


def test_what_is_right_is_left_alone(words: Words, here: Place) -> None:
    here.base.put("odd", BytesIO(b"x"))
    done = verify(words, here).run()
    assert done == Verified(100, sum(len(body(number)) for number in range(100)), (), True)
    assert sum(1 for _ in here.base.list()) == 101


@pytest.mark.parametrize("wrong", [b"", b"original 7, rotten", body(8)])
def test_what_does_not_match_its_name_is_put_away_and_an_upload_heals_it(words: Words, here: Place, wrong: bytes) -> None:
    commit(words, record(7))
    here.base.put(hash_of(7), BytesIO(wrong))
    done = verify(words, here).run()
    assert done.quarantined == (hash_of(7),)
    assert stored(here, QUARANTINE + hash_of(7)) == wrong
    assert here.base.head(hash_of(7)) is None
    assert [one.key for one in Sync(words.chain, words.commits, here.base).differences() if one.kind == "lost"] == [hash_of(7)]
    assert here.base.put(hash_of(7), BytesIO(body(7)), create=True)
    assert verify(words, here).run().quarantined == ()


def test_what_is_put_anew_just_now_is_left_alone(words: Words, here: Place, tmp_path: Path) -> None:
    commit(words, record(7))
    flights = Flights(tmp_path / "flights")
    here.base.put(hash_of(7), BytesIO(b"rotten"))
    with flights.alone(hash_of(7), 0.0):
        done = Verify(words.chain, here.base, words.commits.catch_up, partial(flights.alone, deadline=0.0), pace=0.0).run()
    assert done == Verified(100, done.bytes, (), True)
    assert here.base.head(hash_of(7)) is not None


def test_what_another_node_puts_anew_just_now_is_left_alone(words: Words, here: Place) -> None:
    commit(words, record(7))
    here.base.put(hash_of(7), BytesIO(b"rotten"))
    real = here.meta.put

    def healing(key: str, *args: Any, **more: Any) -> bool:
        if key.startswith(QUARANTINE):
            here.base.put(hash_of(7), BytesIO(body(7)))
        return real(key, *args, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(here.meta, "put", healing)
        assert verify(words, here).run().quarantined == ()
    assert verify(words, here).run().quarantined == ()
    assert here.base.head(hash_of(7)) is not None


def test_a_copy_that_is_right_at_the_second_look_is_right(words: Words, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = here.base.get
    looked: list[str] = []

    def first_wrong(key: str, *, fresh: bool = False) -> Blob | None:
        blob = real(key)
        if key == hash_of(7) and blob is not None and not fresh:
            looked.append(key)
            blob.close()
            return Blob(blob.item, BytesIO(b"rotten copy"))
        return blob

    monkeypatch.setattr(here.base, "get", first_wrong)
    assert verify(words, here).run().quarantined == ()
    assert looked == [hash_of(7)]


def test_a_stopped_run_goes_on_and_a_finished_one_begins_anew(words: Words, here: Place) -> None:
    seen: list[int] = []
    for _ in range(3):
        done = verify(words, here).run(most=40)
        seen.append(done.originals)
    assert seen == [40, 40, 20]
    assert done.whole
    assert verify(words, here).run().originals == 100


def test_a_run_in_a_new_process_goes_on_where_the_last_one_noted(words: Words, here: Place) -> None:
    verify(words, here).run(most=60)
    words.close()
    again = here.node()
    assert verify(again, here).run().originals == 40
    again.close()


def test_the_pace_is_bounded(words: Words, here: Place) -> None:
    slept: list[float] = []
    total = sum(len(body(number)) for number in range(100))
    Verify(words.chain, here.base, words.commits.catch_up, words.originals.alone, pace=total / 1_000, sleep=slept.append).run()
    assert slept[-1] > 900
    assert slept == sorted(slept)
    assert len(slept) == len(ALL)
