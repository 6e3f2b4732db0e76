"""What libvips says when it fails, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyvips

from imgproxy.errors import Damaged, Error, TooMuch

_OUT_OF_MEMORY = ("out of memory", "unable to allocate", "cannot allocate")


@contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever libvips and its binding raise into `Damaged`, or `TooMuch` where memory ran out.

    Everything is caught, not only `pyvips.Error`: the binding raises `UnicodeDecodeError` on some broken metadata.
    """
    try:
        yield
    except Error:
        raise
    except MemoryError as error:
        raise TooMuch("more memory is needed than there is") from error
    except pyvips.Error as error:
        raise _explained(error.detail) from error
    except Exception as error:
        raise Damaged("the image cannot be decoded") from error


def _explained(detail: str) -> Error:
    if any(words in detail.lower() for words in _OUT_OF_MEMORY):
        return TooMuch("more memory is needed than there is")
    return Damaged(f"the image cannot be decoded: {_first_line(detail)}")


def _first_line(detail: str) -> str:
    """The first line of libvips' own words, without anything that could be a path."""
    line = next((line.strip() for line in detail.splitlines() if line.strip()), "no reason given")
    plain = "".join(c if " " <= c <= "~" else "?" for c in line[:160])
    return " ".join(word for word in plain.split(" ") if "/" not in word)
