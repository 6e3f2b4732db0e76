"""The far tier: the conformance suite over a store, and what counts as absent."""

from __future__ import annotations

import hashlib
import io

import pytest

from imgproxy.stores.derived import DerivedTier
from imgproxy.stores.memory import MemoryStore
from tests.stores.conformance import TestConformance as TestConformance

KEY = "a-1x1.jpg"


@pytest.fixture
def store() -> DerivedTier:
    return DerivedTier(MemoryStore(), 1)


def test_an_old_edition_is_absent_and_made_anew() -> None:
    shared = MemoryStore()
    old, new = DerivedTier(shared, 1), DerivedTier(shared, 2)
    old.put(KEY, io.BytesIO(b"old"))
    assert new.get(KEY) is None
    assert new.head(KEY) is None
    new.put(KEY, io.BytesIO(b"new"))
    blob = new.get(KEY)
    assert blob is not None
    assert blob.file.read() == b"new"
    assert old.get(KEY) is None


@pytest.mark.parametrize("rot", [b"", b"goo", b"gooD", b"good and more"])
def test_a_rotten_rendition_is_absent(rot: bytes) -> None:
    shared = MemoryStore()
    tier = DerivedTier(shared, 1)
    note = {"edition": "1", "sha256": hashlib.sha256(b"good").hexdigest()}
    shared.put(KEY, io.BytesIO(rot), note=note)
    assert tier.get(KEY) is None
    shared.put(KEY, io.BytesIO(b"good"), note=note)
    assert tier.get(KEY) is not None


def test_what_somebody_else_put_there_is_absent() -> None:
    shared = MemoryStore()
    shared.put(KEY, io.BytesIO(b"stranger"))
    assert DerivedTier(shared, 1).get(KEY) is None
