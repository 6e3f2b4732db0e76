"""The store on a file system: the conformance suite in both layouts, and what it promises besides."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgproxy.stores.fs import FsStore
from tests.stores.conformance import TestConformance as TestConformance


@pytest.fixture(params=[True, False], ids=["fanned", "plain"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FsStore:
    return FsStore(tmp_path / "store", fanned=request.param)
