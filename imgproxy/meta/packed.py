"""Compressed files: written in one pass, read with every kind of damage told as one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from imgproxy.errors import StoreLied

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OPTIONS = {int(zstd.CompressionParameter.compression_level): 1, int(zstd.CompressionParameter.checksum_flag): 1}
_WINDOW = {int(zstd.DecompressionParameter.window_log_max): 27}
"""Refuse what would need more than 128 MB to unpack; we never write such."""


@contextmanager
def packing(file: BinaryIO) -> Iterator[BinaryIO]:
    """A file to write to; what is written arrives compressed in `file`, complete when the block is left."""
    with zstd.ZstdFile(file, "wb", options=_OPTIONS) as packed:
        yield cast("BinaryIO", packed)


@contextmanager
def unpacking(file: BinaryIO) -> Iterator[BinaryIO]:
    """A file to read from: what `file` holds, unpacked; `StoreLied` if it is damaged or ends too early."""
    try:
        with zstd.ZstdFile(file, "rb", options=_WINDOW) as plain:
            yield cast("BinaryIO", plain)
    except (zstd.ZstdError, EOFError) as error:
        raise StoreLied("a compressed object is damaged") from error
