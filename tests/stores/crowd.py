"""A process that uses a disk tier without end: puts, gets, deletes; says every wrong byte. For `test_disk`, which kills it."""

from __future__ import annotations

import hashlib
import io
import random
import sys
from pathlib import Path

from imgproxy.stores.disk import DiskTier

KEYS = 60


def key_of(number: int) -> str:
    """The key of a number: fanned out well."""
    return hashlib.sha256(b"%d" % number).hexdigest() + "-100x.webp"


def body_of(number: int, version: int) -> bytes:
    """A body that tells whose it is, of a length that the number and the version decide."""
    return b"%08d-%08d" % (number, version) * (40 + (number * 131 + version * 17) % 800)


def is_whole(number: int, body: bytes) -> bool:
    """Whether a body is one of those of this number, from its first byte to its last."""
    return body == body_of(number, int(body[9:17])) if len(body) >= 17 else False


def main() -> None:
    """Say `ready`, then use the tier; print what is wrong, and a dot now and then."""
    tier = DiskTier(Path(sys.argv[1]), 1, int(sys.argv[2]), believed=0.05)
    chance = random.Random(int(sys.argv[3]))
    print("ready", flush=True)
    for turn in range(1_000_000):
        number = chance.randrange(KEYS)
        match chance.randrange(10):
            case 0 | 1 | 2:
                tier.put(key_of(number), io.BytesIO(body_of(number, turn)), type="image/webp", create=chance.random() < 0.2)
            case 3 if chance.random() < 0.3:
                tier.delete(key_of(number))
            case _:
                blob = tier.get(key_of(number))
                if blob is not None:
                    with blob:
                        if not is_whole(number, blob.file.read()) or blob.item.type != "image/webp":
                            print("wrong", number, flush=True)
        if turn % 50 == 49:
            print(".", flush=True)


if __name__ == "__main__":
    main()
