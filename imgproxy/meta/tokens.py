"""What a search compares: texts and queries become the same plain tokens, by the same function.

A text becomes tokens between single spaces, with a space at both ends: ` am strand _y_jpg _t_sea sea _o_landscape `. Then "contains
this word" is "contains this substring", for SQLite's full-text index and for `instr` alike, and both agree by construction.

- Case, diacritics and compatibility forms are folded away: `Zürich`, `ZURICH` and fullwidth letters are one word.
- Scripts without spaces between words (Chinese, Japanese, Korean, Thai, ...) are cut into single characters, and a query of several
  is a phrase: so every substring is found, also one of two characters, which is what most words there are.
- What is exact (a tag, a type, an orientation, a class of size) is a *mark*: a token that begins with `_`, as no word does.
- A mark stands between title, description and each tag, so that no phrase reaches over.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from imgproxy.meta.record import Record

_SINGLE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_JOINED = "\u0900-\u0dff"
_TOKEN = re.compile(f"[{_SINGLE}]|(?:(?![{_SINGLE}])[^\\W_]|[{_JOINED}])+")
_PLAIN = bytes(ord(chr(code).lower()) if chr(code).isalnum() else ord(" ") for code in range(128)).ljust(256)
_STROKE = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")
_UNSAFE = re.compile("[^a-z0-9\u0080-\U0010ffff]")
_COUNTED = re.compile("_[tyo]_(?<= _._)[^ ]+")
_SPACE = re.compile(r"\s+")


def tokens(text: str) -> list[str]:
    """The words of a text, folded.

    >>> tokens("Straße in Zürich, 東京 2024"), tokens("don't")
    (['strasse', 'in', 'zurich', '東', '京', '2024'], ['don', 't'])
    """
    if text.isascii():
        return text.encode().translate(_PLAIN).decode().split()
    return _TOKEN.findall(_folded(text))


@lru_cache(maxsize=16_384)
def tag_mark(tag: str) -> str:
    """The mark of a tag, the same for all spellings of it.

    >>> tag_mark("Sea & Sky") == tag_mark("sea  & sky"), tag_mark("a b")
    (True, '_t_a_20b')
    """
    return "_t_" + _safe(_SPACE.sub(" ", unicodedata.normalize("NFKC", tag).casefold()).strip())


def tag_of(mark: str) -> str:
    """The tag that a mark stands for, folded.

    >>> tag_of("_t_a_20b")
    'a b'
    """
    return re.sub("_([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), mark[3:])


def type_mark(type: str) -> str:
    """The mark of a type."""
    return f"_y_{type}"


def orientation_mark(orientation: str) -> str:
    """The mark of an orientation: `landscape`, `portrait` or `square`."""
    return f"_o_{orientation}"


def size_marks(side: str, least: int, most: int) -> list[str]:
    """The marks of every class of size that reaches into these bounds; `side` is `w`, `h` or `b` (bytes)."""
    return [f"_{side}_{bits}" for bits in range(least.bit_length(), most.bit_length() + 1)]


def domain_mark(domain: str) -> str:
    """The mark of an alias's domain."""
    return "_d_" + _safe(domain)


def searchable(record: Record) -> str:
    """All that a search compares of a record: one text of tokens between spaces."""
    told = ["", *tokens(record.title), type_mark(record.type), *tokens(record.description), *map(_tag_tokens, record.tags)]
    sizes = record.width.bit_length(), record.height.bit_length(), record.bytes.bit_length()
    shape = "landscape" if record.width > record.height else "portrait" if record.width < record.height else "square"
    return " ".join([*told, _fact_marks(shape, sizes, record.domain), ""])


def marks_of(text: str) -> set[str]:
    """The marks that are counted, of a text that `searchable` made: those of tags, type and orientation."""
    return set(_COUNTED.findall(text))


@lru_cache(maxsize=16_384)
def _tag_tokens(tag: str) -> str:
    return " ".join([tag_mark(tag), *tokens(tag)])


@lru_cache(maxsize=4_096)
def _fact_marks(shape: str, sizes: tuple[int, int, int], domain: str) -> str:
    found = [orientation_mark(shape), *(f"_{side}_{bits}" for side, bits in zip("whb", sizes, strict=True))]
    return " ".join([*found, domain_mark(domain)] if domain else found)


def _safe(text: str) -> str:
    """A text as part of one token."""
    return _UNSAFE.sub(lambda found: f"_{ord(found[0]):02x}", text)


def _folded(text: str) -> str:
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFC", _STROKE.sub("", apart))
