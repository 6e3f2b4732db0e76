"""A value: a head, the words (type and note as JSON), the bytes. What is not as it was written for that very key is no value."""

from __future__ import annotations

import json
import struct
import time
import zlib
from hashlib import blake2b
from typing import NamedTuple

from imgproxy.errors import StoreFull
from imgproxy.stores import Item

MOST_WORDS = 1000
"""So many bytes of words, and no more, are in a value."""

_HEAD = struct.Struct(">4sIIdI16s")
_MAGIC = b"img1"
_DIGEST = 16

HEAD = _HEAD.size
"""So many bytes is a head long."""


class Said(NamedTuple):
    """What the beginning of a value says; `start` is where its bytes begin, `end` where they do."""

    item: Item
    start: int
    end: int


def written(key: str, data: bytes, type: str, note: dict[str, str]) -> bytes:
    """The value of an object that is put now."""
    words = json.dumps((type, note)).encode()
    if len(words) > MOST_WORDS:
        raise StoreFull("more words than the tier keeps")
    now = time.time()
    head = _HEAD.pack(_MAGIC, len(words), len(data), now, _check(key, words, len(data), now), _digest(key, words + data))
    return b"".join((head, words, data))


def read(key: str, value: object) -> tuple[Item, bytes] | None:
    """The object that a value is, if all of it is as it was written."""
    said = read_words(key, value)
    if said is None or not isinstance(value, bytes) or said.end != len(value):
        return None
    if _digest(key, value[HEAD:]) != value[HEAD - _DIGEST : HEAD]:
        return None
    return said.item, value[said.start :]


def read_words(key: str, start: object) -> Said | None:
    """What the beginning of a value says, as far as the words; the bytes are not looked at."""
    if not isinstance(start, bytes) or len(start) < HEAD:
        return None
    magic, many, size, modified, check, _ = _HEAD.unpack_from(start)
    words = start[HEAD : HEAD + many]
    if magic != _MAGIC or check != _check(key, words, size, modified):
        return None
    type, note = json.loads(words)
    return Said(Item(key, size, type, note, modified), HEAD + many, HEAD + many + size)


def read_head(key: str, head: object) -> Item | None:
    """What a head alone says: size and time, and nobody vouches for it."""
    if not isinstance(head, bytes) or len(head) != HEAD or not head.startswith(_MAGIC):
        return None
    _, _, size, modified, _, _ = _HEAD.unpack(head)
    return Item(key, size, modified=modified)


def _check(key: str, words: bytes, size: int, modified: float) -> int:
    return zlib.crc32(struct.pack(">Id", size, modified) + key.encode() + b"\0" + words)


def _digest(key: str, rest: bytes) -> bytes:
    return blake2b(rest, digest_size=_DIGEST, key=blake2b(key.encode(), digest_size=_DIGEST).digest()).digest()
