"""Which renditions are not there: by a listing, by a search, after a name, and when an edition is raised."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgproxy import wiring
from imgproxy.errors import BadTask
from imgproxy.grammar import parse
from imgproxy.jobs import missing
from imgproxy.jobs.missing import Renditions, edition_since
from imgproxy.stores.derived import DerivedTier
from imgproxy.stores.fs import FsStore
from imgproxy.wiring import Desk
from tests.plain import png
from tests.serving import environment

SUFFIXES = ("-9x9.png", "-8x8.png")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A repository with five committed images, and one that is not."""
    env = environment(tmp_path / "var", IMG_PRESETS="thumb=-8x8.png")
    opened = wiring.furnish(wiring.settings_of(env), env)
    session = opened.words.sessions.open("s")
    for seed in range(5):
        opened.uploads.keep(io.BytesIO(png(20, 20, seed)), session, {"tags": ["odd" if seed % 2 else "even"]})
    opened.words.commits.commit(session.id)
    opened.uploads.keep(io.BytesIO(png(20, 20, 99)), opened.words.sessions.find(""), {})
    yield opened
    opened.close()


def everything(desk: Desk) -> list[str]:
    return sorted(f"{hash}{suffix}" for hash in desk.words.sessions.hashes() for suffix in SUFFIXES)


def test_what_is_made_is_no_longer_missing_and_what_is_lost_is_again(desk: Desk) -> None:
    names = everything(desk)
    assert len(names) == 10
    assert list(desk.jobs.missing(("-9x9.png",), ("thumb",))) == names
    for name in names[::3]:
        desk.house.images.open(parse(name)).file.close()
    assert list(desk.jobs.missing(SUFFIXES)) == [name for name in names if name not in names[::3]]
    desk.house.stores[1].delete(names[3])
    assert names[3] in list(desk.jobs.missing(SUFFIXES))


def test_missing_goes_on_after_any_name(desk: Desk) -> None:
    names = everything(desk)
    for place in range(len(names)):
        assert list(desk.jobs.missing(SUFFIXES, after=names[place])) == names[place + 1 :]
    assert list(desk.jobs.missing(SUFFIXES, after="f" * 64 + "-x")) == []


def test_missing_of_a_search(desk: Desk) -> None:
    records = filter(None, map(desk.words.sessions.read, desk.words.sessions.hashes()))
    odd = {f"{record.hash}-9x9.png" for record in records if "odd" in record.tags}
    assert len(odd) == 2
    assert set(desk.jobs.missing(("-9x9.png",), query={"tags": ["odd"]})) == odd
    desk.house.images.open(parse(min(odd))).file.close()
    assert set(desk.jobs.missing(("-9x9.png",), query={"tags": ["odd"]})) == odd - {min(odd)}


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_missing_of_a_search_comes_in_order_and_goes_on_after_any_name(desk: Desk, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(missing, "_AT_ONCE", at_once)
    names, query = everything(desk), {"type": "png", "order": "added"}
    assert list(desk.jobs.missing(SUFFIXES, query=query)) == names
    for place in range(len(names)):
        assert list(desk.jobs.missing(SUFFIXES, query=query, after=names[place])) == names[place + 1 :]


@pytest.mark.parametrize("suffix", ["bad", "", "-0x0.png", "-8x8.png/x", ".png"])
def test_nothing_is_missing_whose_name_is_none(desk: Desk, suffix: str) -> None:
    with pytest.raises(BadTask) as told:
        desk.jobs.missing(("-8x8.png", suffix))
    assert told.value.field == "suffixes"


def test_what_another_edition_made_is_missing(desk: Desk, tmp_path: Path) -> None:
    far, meta = FsStore(tmp_path / "far", fanned=True), FsStore(tmp_path / "marks", fanned=False)
    names = everything(desk)
    assert edition_since(meta, 1) == 0.0
    for name in names:
        DerivedTier(far, 1).put(name, io.BytesIO(b"x"), type="image/png")
    assert list(Renditions(DerivedTier(far, 1), lambda: edition_since(meta, 1)).missing(desk.words, SUFFIXES)) == []

    raised = Renditions(DerivedTier(far, 2), lambda: edition_since(meta, 2))
    assert 0.0 < edition_since(meta, 2) < math.inf
    assert list(raised.missing(desk.words, SUFFIXES)) == names
    DerivedTier(far, 2).put(names[0], io.BytesIO(b"y"), type="image/png")
    assert list(raised.missing(desk.words, SUFFIXES)) == names[1:]
    assert edition_since(meta, 1) == 0.0
