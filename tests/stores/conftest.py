"""What the tests of all stores share."""

from __future__ import annotations

import pytest

from tests.stores.conformance import Promises


@pytest.fixture
def promises() -> Promises:
    """All that a store can promise; a module whose store promises less defines its own."""
    return Promises()
