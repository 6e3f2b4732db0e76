"""A real Swift for tests: import the fixtures that a module needs. Where Swift cannot be had, its tests are skipped, and say why."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgproxy.stores.swift import Container, Patience, Swift, SwiftStore, TempAuth
from tests.swiftbox import Shape, SwiftBox
from tests.swiftbox.here import NoSwift, shelf, swift_python

PATIENCE = Patience(connect=1.0, read=5.0, total=10.0)


def swift_box(shape: Shape) -> SwiftBox:
    """A Swift of this shape, to be entered."""
    try:
        python, place = swift_python(), shelf()
    except NoSwift as why:
        pytest.skip(str(why))
    return SwiftBox(Path(tempfile.mkdtemp(prefix="swiftbox-", dir=place)), python, shape)


def account_of(box: SwiftBox, port: int | None = None) -> TempAuth:
    """The account of a box; with `port`, by way of whoever listens there."""
    here = f"http://127.0.0.1:{port or box.info['port']}"
    return TempAuth(f"{here}/auth/v1.0", box.info["user"], box.info["key"], f"{here}/v1/AUTH_test")


def new_store(swift: Swift, container: Container | None = None) -> SwiftStore:
    """A store of a container that was not there before."""
    store = SwiftStore(container or Container("t-" + uuid.uuid4().hex), swift)
    store.prepare()
    return store


@pytest.fixture(scope="session")
def swift_box_1() -> Iterator[SwiftBox]:
    """One device, one replica; no test breaks it."""
    with swift_box(Shape(policies="silver1", recheck=1)) as box:
        yield box


@pytest.fixture(scope="module")
def swift_box_4() -> Iterator[SwiftBox]:
    """Four devices in two regions, three replicas, for tests that break things and mend them again."""
    with swift_box(Shape(nodes=4, replicas=3, recheck=1, error_interval=1, node_timeout=2.0)) as box:
        yield box


@pytest.fixture(scope="module")
def swift(swift_box_1: SwiftBox) -> Iterator[Swift]:
    """The small Swift as its account sees it."""
    swift = Swift(account_of(swift_box_1), PATIENCE)
    yield swift
    swift.close()
