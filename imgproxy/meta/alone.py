"""To be alone with an original: who puts one and says something of it, and who takes one away, are never at it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeAlias

from imgproxy.errors import Busy

Alone: TypeAlias = Callable[[str], AbstractContextManager[object]]
"""Given a hash; while the block runs nobody puts that original or takes it away. Raises `Busy` at once if somebody does just now."""


@contextmanager
def undisturbed(alone: Alone, hash: str) -> Iterator[bool]:
    """Whether one is alone with an original while the block runs."""
    with ExitStack() as held:
        try:
            held.enter_context(alone(hash))
        except Busy:
            yield False
            return
        yield True
