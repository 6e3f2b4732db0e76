"""What the tests of the words share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imgproxy.meta.repository import Words
from tests.meta.making import Place, place


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """Two stores without anything in them, and room for nodes."""
    return place(tmp_path)


@pytest.fixture
def words(here: Place) -> Iterator[Words]:
    """The words of an empty repository, with a hundred originals in its store."""
    here.keep(*range(100))
    opened = here.node()
    yield opened
    opened.close()
