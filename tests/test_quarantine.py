"""Originals that were found rotten are marked for a while."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from imgproxy.quarantine import Quarantine

HASH = "ab" * 32


def test_a_mark_holds_for_every_process_of_the_node_and_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    quarantine = Quarantine(tmp_path / "quarantine", told.append)
    assert not quarantine.holds(HASH)
    quarantine.mark(HASH)
    assert quarantine.holds(HASH)
    assert Quarantine(tmp_path / "quarantine", told.append).holds(HASH)
    assert told == [HASH]


def test_a_mark_can_be_lifted_and_made_again(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine", lambda _: None)
    for _ in range(2):
        quarantine.mark(HASH)
        assert quarantine.holds(HASH)
        quarantine.lift(HASH)
        assert not quarantine.holds(HASH)
    quarantine.lift(HASH)


@pytest.mark.parametrize("aside", [-400, 400])
def test_a_mark_lapses_by_age_or_by_a_clock_that_was_set(tmp_path: Path, aside: int) -> None:
    quarantine = Quarantine(tmp_path, lambda _: None)
    quarantine.mark(HASH)
    moment = time.time() + aside
    os.utime(tmp_path / HASH, (moment, moment))
    assert not quarantine.holds(HASH)
    assert list(tmp_path.iterdir()) == []


def test_without_room_for_a_mark_it_is_told_all_the_same(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").touch()
    quarantine = Quarantine(tmp_path / "file" / "quarantine", told.append)
    quarantine.mark(HASH)
    quarantine.lift(HASH)
    assert not quarantine.holds(HASH)
    assert told == [HASH]
