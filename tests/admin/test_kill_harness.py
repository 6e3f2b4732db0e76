"""A short run of the harness that kills web workers and job workers; `make kill` has the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.admin.deaths import KINDS
from tests.admin.kill_harness import run


@pytest.mark.timeout(500)
def test_nothing_that_was_answered_is_lost_when_workers_are_killed(tmp_path: Path) -> None:
    result = run(tmp_path, kills=8, seed=20261120)
    assert result.wrong == []
    assert set(result.kills) == set(KINDS)
    assert result.commits > 8
    assert result.fetches > 8
