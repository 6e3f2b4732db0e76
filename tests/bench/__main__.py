"""Run the measurements that are named, or all, and tell them as a table."""

from __future__ import annotations

import sys
from importlib import import_module

NAMES = ("inside", "cold", "hits", "memory", "far", "uploads", "edge")


def main(wanted: list[str]) -> int:
    """The number of promises that do not hold."""
    broken = 0
    print("| what | measured | promised | |\n| --- | --- | --- | --- |", flush=True)
    for name in wanted or NAMES:
        for line in import_module(f"tests.bench.{name}").measured():
            broken += not line.holds
            print(f"| {line.what} | {line.figure} | {line.promised} | {'holds' if line.holds else 'BROKEN'} |", flush=True)
    return broken


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
