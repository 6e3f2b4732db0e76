"""Pictures written byte by byte, for tests that must not depend on any library, and a look at what came back."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def png(width: int, height: int, seed: int = 0) -> bytes:
    """A picture of four quarters, red green blue white from the top left; each seed has other bytes."""
    top = b"\0" + bytes(RED) * (width // 2) + bytes(GREEN) * (width - width // 2)
    bottom = b"\0" + bytes(BLUE) * (width // 2) + bytes(WHITE) * (width - width // 2)
    rows = top * (height // 2) + bottom * (height - height // 2)
    return _png(width, height, _chunk(b"tEXt", b"seed\0" + str(seed).encode()) + _chunk(b"IDAT", zlib.compress(rows, 1)))


def noise(width: int, height: int, dice: random.Random) -> bytes:
    """A picture that cannot be made smaller: a little more than three bytes for each pixel."""
    rows = b"".join(b"\0" + dice.randbytes(3 * width) for _ in range(height))
    return _png(width, height, _chunk(b"IDAT", zlib.compress(rows, 0)))


def _png(width: int, height: int, chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG, from its frame header."""
    assert data.startswith(b"\xff\xd8")
    at = 2
    while True:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length


def written(path: Path, data: bytes) -> Path:
    """The file at `path`, holding `data`."""
    path.write_bytes(data)
    return path
