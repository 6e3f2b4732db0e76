"""What work needs in its hands, and how it says how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from imgproxy.fetch import Window
from imgproxy.flights import Flights
from imgproxy.images import Images
from imgproxy.jobs.missing import Renditions
from imgproxy.meta.repository import Words
from imgproxy.stores import Store
from imgproxy.uploads import Uploads

Tell: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Hears how far the work is, often; raises to end it early, when the worker has to stop or the task is no longer its own."""


@dataclass(frozen=True, slots=True)
class Shop:
    """The services of one node, for whoever works: `renditions` says which renditions there are.

    `flights` keeps two attempts at one fetch apart. `far` keeps renditions for other nodes, if there is one; `hands` how many are made
    at a time, `kept` for how many seconds finished tasks are remembered.
    """

    images: Images
    words: Words
    uploads: Uploads
    base: Store
    renditions: Renditions
    far: Store | None
    window: Window
    spool: Path
    flights: Flights
    presets: Mapping[str, str]
    hands: int
    kept: float
