"""Byte ranges: one is served, several or impossible ones are refused, what is no range is ignored."""

from __future__ import annotations

import io

import pytest

from imgproxy.web.ranges import Part, Unsatisfiable, asked_range


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


def test_a_part_ends_where_it_should() -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(2)
    part = Part(file, 5)
    assert (part.read(3), part.read(100), part.read()) == (b"234", b"56", b"")
    part.close()
    assert file.closed
