"""What a renderer answers: each kind of answer written and read side by side.

The reader believes nothing: an answer that is none of these is a lost renderer.
"""

from __future__ import annotations

import re
from dataclasses import asdict, fields

from imgproxy import errors
from imgproxy.errors import RendererLost
from imgproxy.grammar import FORMATS, TYPES
from imgproxy.picture import Facts, Study
from imgproxy.pool.wire import Head

_LONGEST = 2**30
_REFUSALS = {
    kind.__name__: kind
    for kind in (
        errors.NotAnImage,
        errors.CannotRead,
        errors.CannotWrite,
        errors.Damaged,
        errors.TooMuch,
        errors.Impossible,
        errors.Missing,
        errors.RendererLost,
    )
}
_KINDS = {"str": str, "int": int, "bool": bool}


def write_refusal(error: errors.Error) -> Head:
    return {"error": type(error).__name__, "detail": str(error)[:1000]}


def raise_refusal(head: Head) -> None:
    """Return, unless the answer is a refusal."""
    if "error" in head:
        raise _REFUSALS.get(str(head["error"]), RendererLost)(str(head.get("detail")))


def is_loss(head: Head) -> bool:
    """Is it a refusal after which its renderer is good for nothing?"""
    return bool(head.get("error") == RendererLost.__name__)


def write_size(body: bytes) -> Head:
    return {"size": len(body)}


def read_size(head: Head) -> int:
    """How many bytes follow; none if the answer is of another kind."""
    size = head.get("size", 0)
    if type(size) is not int or not 0 <= size <= _LONGEST:
        raise _nonsense()
    return size


def write_facts(facts: Facts) -> Head:
    return {"facts": asdict(facts)}


def read_facts(head: Head) -> Facts:
    said = head.get("facts")
    wanted = {field.name: _KINDS[str(field.type)] for field in fields(Facts)}
    if not isinstance(said, dict) or said.keys() != wanted.keys() or said["type"] not in TYPES:
        raise _nonsense()
    if any(type(said[name]) is not kind for name, kind in wanted.items()):
        raise _nonsense()
    return Facts(**said)


def write_study(study: Study) -> Head:
    return {**write_facts(study.facts), "phash": study.phash, "exif": dict(study.exif)}


def read_study(head: Head) -> Study:
    phash, exif = head.get("phash"), head.get("exif")
    if not isinstance(phash, str) or not re.fullmatch("[0-9a-f]{16}", phash) or not isinstance(exif, dict):
        raise _nonsense()
    if not all(isinstance(text, str) for text in exif.values()):
        raise _nonsense()
    return Study(read_facts(head), phash, exif)


def write_abilities(abilities: tuple[frozenset[str], frozenset[str]]) -> Head:
    types, formats = abilities
    return {"types": sorted(types), "formats": sorted(formats)}


def read_abilities(head: Head) -> tuple[frozenset[str], frozenset[str]]:
    """The types that can be read, and the formats that can be written."""
    return _words(head.get("types"), TYPES), _words(head.get("formats"), FORMATS)


def _words(said: object, known: tuple[str, ...]) -> frozenset[str]:
    if not isinstance(said, list) or not all(word in known for word in said):
        raise _nonsense()
    return frozenset(said)


def _nonsense() -> RendererLost:
    return RendererLost("the renderer gave no answer that makes sense")
