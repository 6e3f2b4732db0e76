"""Threads and processes at the same records: every outcome is a commit or a conflict, and all of them have one order."""

from __future__ import annotations

from pathlib import Path

from tests.meta.crowd import crowd


def test_what_many_do_at_once_has_one_order(tmp_path: Path) -> None:
    told = crowd(tmp_path, 3.0, 8, 2)
    assert told["wrong"] == []
    assert told["answered"] == told["commits"] > 10
    assert told["refused"] > 0
