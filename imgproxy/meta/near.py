"""Pictures that look alike: perceptual hashes that differ in few of their 64 bits.

A hash is cut into four bands of 16 bits, each with an index. Two hashes that differ in at most `distance` bits have a band in which they
differ in at most a quarter of that; so all bands that near are looked up, and of what is found the whole is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from imgproxy.errors import BadRecord
from imgproxy.meta.database import Database
from imgproxy.meta.fields import hex_digits
from imgproxy.meta.record import Record, from_state
from imgproxy.meta.staging import signed

FARTHEST = 11
"""More than so many different bits are no likeness, and would cost a long look."""

_BANDS = ("phash & 65535", "phash >> 16 & 65535", "phash >> 32 & 65535", "phash >> 48 & 65535")
_WHOLE = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Likeness:
    """A record, and in how many bits its picture differs."""

    record: Record
    distance: int


def near(database: Database, phash: str, *, distance: int = 7, most: int = 50) -> list[Likeness]:
    """The live records whose perceptual hash differs in at most `distance` bits, the most alike first."""
    if not 0 <= distance <= FARTHEST:
        raise BadRecord("distance", f"is not between 0 and {FARTHEST}")
    number = signed(_checked(phash)) or 0
    found: dict[bytes, int] = {}
    with database.reading() as db:
        for band, column in enumerate(_BANDS):
            probes = list(_probes(number >> 16 * band & 0xFFFF, distance // 4))
            marks = ", ".join("?" * len(probes))
            for hash, other in db.execute(f"SELECT hash, phash FROM records WHERE phash IS NOT NULL AND {column} IN ({marks})", probes):
                apart = ((number ^ other) & _WHOLE).bit_count()
                if apart <= distance:
                    found[hash] = apart
        nearest = sorted(found.items(), key=lambda item: (item[1], item[0]))[:most]
        rows = [
            (hash, apart, *db.execute("SELECT since, state FROM records WHERE hash = ?", (hash,)).fetchone()) for hash, apart in nearest
        ]
    return [Likeness(from_state(hash.hex(), since, state), apart) for hash, apart, since, state in rows]


def _checked(phash: str) -> str:
    try:
        return str(hex_digits(16, optional=False)(phash))
    except ValueError as error:
        raise BadRecord("phash", str(error)) from error


def _probes(band: int, bits: int) -> Iterator[int]:
    """Every value that differs from a band in at most so many bits."""
    for count in range(bits + 1):
        for places in combinations(range(16), count):
            yield band ^ sum(1 << place for place in places)
