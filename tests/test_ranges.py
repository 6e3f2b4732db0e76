"""Byte ranges: one is served, several or impossible ones are refused, what is no range is ignored."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from imgproxy.errors import StoreLied
from imgproxy.web.ranges import Part, Unsatisfiable, Whole, asked_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=90-", (90, 10)),
        ("bytes=-10", (90, 10)),
        ("bytes=-1000", (0, 100)),
        ("bytes=99-99", (99, 1)),
        ("bytes=50-5000", (50, 50)),
        ("Bytes=1-2", (1, 2)),
        ("lines=0-9", None),
        ("bytes=9-0", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes", None),
        ("bytes=\u0661-\u0662", None),
        ("bytes=+1-2", None),
    ],
)
def test_a_range_is_read(header: str, expected: tuple[int, int] | None) -> None:
    assert asked_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=0-1,2-3", "bytes=0-1, -1"])
def test_a_range_that_cannot_be_served_is_refused(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        asked_range(header, 100)


def test_no_range_of_nothing_can_be_served() -> None:
    with pytest.raises(Unsatisfiable):
        asked_range("bytes=0-", 0)


def test_a_part_of_what_was_cut_is_no_part() -> None:
    part = Part(io.BytesIO(b"0123"), 5)
    assert part.read(10) == b"0123"
    with pytest.raises(StoreLied):
        part.read(10)


def test_a_whole_is_sent_by_its_descriptor_and_tells_at_its_end_if_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    whole, cut = (Whole(path.open("rb"), 10) for _ in range(2))
    assert os.fstat(whole.fileno()).st_size == 10
    assert whole.read(4) == b"0123"
    whole.close()
    os.truncate(path, 9)
    with pytest.raises(StoreLied):
        cut.close()
    with pytest.raises(ValueError, match="closed"):
        cut.fileno()


def test_a_part_ends_where_it_should() -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(2)
    part = Part(file, 5)
    assert (part.read(3), part.read(100), part.read()) == (b"234", b"56", b"")
    part.close()
    assert file.closed
