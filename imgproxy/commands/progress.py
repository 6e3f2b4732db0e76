"""A bar for what takes its time, where somebody is looking; nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Share = Callable[[float], object]
"""Is told how much of the whole is done, from 0 to 1."""


@contextmanager
def watched(word: str) -> Iterator[Share]:
    """Show a bar on standard error while the block runs, if that is a terminal; what the block is given moves it."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda _: None
        return
    seen = sys.stderr.isatty()
    # What is written to standard output stays there: only on the same terminal has it to pass above the bar.
    bar = Progress(console=Console(stderr=True), disable=not seen, redirect_stdout=seen and sys.stdout.isatty(), redirect_stderr=seen)
    with bar:
        task = bar.add_task(word, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def among_hashes(share: Share) -> Callable[[str], object]:
    """How far a walk over hashes in their order is, by the one it has come to: they lie evenly."""

    def passing(hash: str) -> None:
        with suppress(ValueError):  # a key that is no hash
            share(int(hash[:6], 16) / 16**6)

    return passing
