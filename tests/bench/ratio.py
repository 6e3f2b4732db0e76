"""Two things in turn, and the ratio between them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report: what was measured, the figure, what is promised, and whether it holds."""

    what: str
    figure: str
    promised: str
    holds: bool


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratios(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> list[float]:
    """Our figure by theirs, a round each in turn, whoever is first; the first round is thrown away."""
    found = []
    for turn in range(rounds + 1):
        if turn % 2:
            mine, other = ours(), theirs()
        else:
            other, mine = theirs(), ours()
        found.append(mine / other)
    return found[1:]


def told(found: list[float]) -> str:
    """The median, and how far the rounds lie apart."""
    return f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f}, {len(found)} rounds)"


def at_least(what: str, found: list[float], promised: float) -> Line:
    """A line for a ratio that should not be smaller."""
    return Line(what, told(found), f"at least {promised}", statistics.median(found) >= promised)


def at_most(what: str, found: list[float], promised: float) -> Line:
    """A line for a ratio that should not be larger."""
    return Line(what, told(found), f"at most {promised}", statistics.median(found) <= promised)
