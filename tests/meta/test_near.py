"""Pictures that look alike are found by their perceptual hashes, all of them and no others."""

from __future__ import annotations

import random

import pytest

from imgproxy.errors import BadRecord
from imgproxy.meta.near import FARTHEST, near
from imgproxy.meta.repository import Words
from tests.meta.making import commit, hash_of, record


def apart(phash: int, bits: int, chance: random.Random) -> str:
    for place in chance.sample(range(64), bits):
        phash ^= 1 << place
    return f"{phash:016x}"


@pytest.mark.parametrize("origin", [0, 2**64 - 1, 0x8000_0000_0000_0000, 0x0123_4567_89AB_CDEF])
def test_everything_within_the_distance_is_found_the_nearest_first(words: Words, origin: int) -> None:
    chance = random.Random(origin)
    bits = [number % 20 for number in range(99)]
    commit(words, *(record(number, phash=apart(origin, bits[number], chance)) for number in range(99)), record(99))
    for distance in (0, 3, 7, FARTHEST):
        found = near(words.database, f"{origin:016x}", distance=distance, most=1_000)
        expected = {hash_of(number): bits[number] for number in range(99) if bits[number] <= distance}
        assert {one.record.hash: one.distance for one in found} == expected
        assert [one.distance for one in found] == sorted(one.distance for one in found)


def test_the_indexes_are_used(words: Words) -> None:
    from imgproxy.meta.near import _BANDS

    with words.database.reading() as db:
        for band, column in enumerate(_BANDS):
            plan = db.execute(f"EXPLAIN QUERY PLAN SELECT hash FROM records WHERE phash IS NOT NULL AND {column} IN (1, 2)").fetchall()
            assert f"USING INDEX records_by_band_{band}" in plan[0][-1]


@pytest.mark.parametrize(
    ("phash", "distance", "field"), [("x", 1, "phash"), ("", 1, "phash"), ("0" * 16, 12, "distance"), ("0" * 16, -1, "distance")]
)
def test_what_is_no_hash_or_no_distance_is_refused(words: Words, phash: str, distance: int, field: str) -> None:
    with pytest.raises(BadRecord) as caught:
        near(words.database, phash, distance=distance)
    assert caught.value.field == field
