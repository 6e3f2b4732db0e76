"""The tier on the local disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imgproxy.stores.disk import DiskTier
from tests.stores.conformance import TestConformance as TestConformance


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskTier]:
    tier = DiskTier(tmp_path / "tier", 1, 64 * 2**20)
    yield tier
    tier.close()
