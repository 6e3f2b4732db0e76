"""A descriptor of its own for every job: no other reader of the same file moves its offset, and it moves nobody else's."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

_PART = 2**20


def own_descriptor(source: BinaryIO, most: int) -> int:
    """Open all of `source` anew for reading; what is not a file is copied into memory, up to one byte more than `most`.

    That byte too many lets whoever reads it see, and say, that it is too large.
    """
    number = _file_behind(source)
    if number is not None:
        try:
            return os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass  # It was opened by somebody who might; so it is read through what there is.
    return _copied(source, most + 1)


def _file_behind(source: BinaryIO) -> int | None:
    try:
        number = source.fileno()
    except (OSError, AttributeError):
        return None
    return number if stat.S_ISREG(os.fstat(number).st_mode) else None


def _copied(source: BinaryIO, most: int) -> int:
    copy = os.memfd_create("source", os.MFD_CLOEXEC)
    try:
        if source.seekable():
            source.seek(0)
        while most > 0 and (part := source.read(min(most, _PART))):
            _write_all(copy, part)
            most -= len(part)
        return copy
    except BaseException:
        os.close(copy)
        raise


def _write_all(number: int, part: bytes) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[os.write(number, rest) :]
