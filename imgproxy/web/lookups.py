"""Look-ups: an original's hash, its checksum or an alias becomes a canonical name, by way of a redirect.

    GET /image/read?id=<hash>                       -> /<hash>.<type>
    GET /image/read?sum=<MD5 or SHA-256>            -> /<hash>.<type>
    ...&width=320&height=200&watermark=logo         -> /<hash>-320x200-mark_logo.<format>
    GET /<domain>/<dkey>                            -> /<hash>.<type>

- What is committed can be found, and nothing else. This is the one part of the public door that asks a database; where that is not
  there the answer is 503, and pictures by their names go on.
- 302 with a short life, never 301: an alias may be given to another picture, a record may be deleted, and a browser that keeps a
  permanent redirect does not ask again.
- The way leads only where the asker may go. What needs a signature is refused: a door that signed for everybody would open it to all.
- What has no spelling of its own is not understood: no other fields, none of them twice, no query after an alias.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote_to_bytes

import falcon

from imgproxy.errors import BadName, BadRecord, Missing
from imgproxy.grammar import Base, Derived, Name
from imgproxy.meta.finding import Finder
from imgproxy.meta.record import Record
from imgproxy.web.health import Response
from imgproxy.web.problems import cache_control
from imgproxy.web.read import Guards, Manner, greet

ROUTES = (
    (
        "/image/read",
        "redirects to the name of the picture with this `id` (hash) or `sum` (MD5 or SHA-256), in this `width`, `height`, `watermark`",
    ),
    ("/<domain>/<dkey>", "redirects to the original that has this alias"),
)

LIFE = 60
"""For so many seconds a redirect may be kept."""

RESERVED = frozenset(("admin", "auto", "s", "v1"))
"""Domains that are the beginnings of other doors: no alias of theirs is found here."""

BEST = {"heic": "webp", "jp2": "webp", "jxl": "webp", "pdf": "webp", "svg": "webp", "tif": "webp"}
"""The format of a rendition for the types that not every browser shows; any other type is its own."""

_FIELDS = ("height", "id", "sum", "watermark", "width")
_HASH = re.compile("[0-9a-f]{64}")
_MD5 = re.compile("[0-9a-f]{32}")
_SIDE = re.compile("[1-9][0-9]{0,4}")
_MARK = re.compile("[a-z0-9]{1,16}")
_DOMAIN = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}")
_LARGEST = 16_383


class LookUps:
    """The sink for what may be a look-up; anything else that comes here is no name."""

    def __init__(self, finder: Finder, guards: Guards, manner: Manner, marks: frozenset[str]) -> None:
        self._finder = finder
        self._policy = guards.policy
        self._manner = manner
        self._marks = marks

    @property
    def prefix(self) -> re.Pattern[str]:
        """What the path of a look-up begins with: two segments, and not a signature."""
        return re.compile(re.escape(self._manner.mount) + r"/(?!s/)[^/]+/.")

    def __call__(self, req: falcon.Request, resp: Response, **_params: str) -> None:
        """Answer one look-up."""
        if req.method == "OPTIONS":
            greet(resp, self._manner)
            return
        if req.method not in ("GET", "HEAD"):
            raise falcon.HTTPMethodNotAllowed(["GET", "HEAD", "OPTIONS"])
        path, asked, query = resp.context.target[len(self._manner.mount) :].partition("?")
        name = self._read(query) if path == "/image/read" else self._aliased(path + asked)
        resp.status = falcon.HTTP_302
        resp.set_header("Location", f"{self._manner.mount}/{name}")
        resp.set_header("Cache-Control", cache_control(302, LIFE))
        resp.set_headers([(tag, name.hash) for tag in self._manner.tags])
        resp.content_length = 0
        if self._manner.cors:
            resp.set_header("Access-Control-Allow-Origin", self._manner.cors)

    def _aliased(self, target: str) -> Name:
        """The original that has an alias."""
        domain, dkey = alias(target)
        self._policy.allows(_ANY_ORIGINAL, signed=False)
        record = self._finder.by_alias(domain, dkey)
        if record is None:
            raise Missing("no picture has this alias")
        return Base(record.hash, record.type)

    def _read(self, query: str) -> Name:
        """The picture that the fields of a query ask for."""
        said = _fields(query)
        if "id" in said and "sum" in said:
            raise BadRecord("sum", "is one too many beside id")
        record = self._by_sum(said["sum"]) if "sum" in said else self._by_id(said.get("id", ""))
        name = _name(record, said)
        if isinstance(name, Derived) and name.mark is not None and name.mark not in self._marks:
            raise Missing(f"no watermark profile {name.mark}")
        self._policy.allows(name, signed=False)
        return name

    def _by_id(self, hash: str) -> Record:
        if not _HASH.fullmatch(hash):
            raise BadRecord("id", "is not 64 lowercase hex digits" if hash else "is missing: say id, or sum")
        return _found(self._finder.by_hash(hash))

    def _by_sum(self, digits: str) -> Record:
        if _MD5.fullmatch(digits):
            return _found(self._finder.by_md5(digits))
        if _HASH.fullmatch(digits):
            return _found(self._finder.by_hash(digits))
        raise BadRecord("sum", "is neither an MD5 of 32 nor a SHA-256 of 64 lowercase hex digits")


_ANY_ORIGINAL = Base("0" * 64, "jpg")


def alias(target: str) -> tuple[str, str]:
    """Domain and dkey of a path such as `/shop/42%2Fa`; raise `BadName` if it is none.

    >>> alias("/shop.example/42/a%20b")
    ('shop.example', '42/a b')
    """
    domain, _, spelled = target[1:].partition("/")
    if not _DOMAIN.fullmatch(domain) or domain in RESERVED:
        raise BadName(target, 1, "expected a name, or the domain of an alias")
    at = len(domain) + 2
    if "?" in spelled:
        raise BadName(target, at + spelled.index("?"), "an alias has no query")
    try:
        dkey = unquote_to_bytes(spelled).decode()
    except UnicodeDecodeError:
        raise BadName(target, at, "expected the dkey of an alias, in UTF-8") from None
    if not dkey or len(dkey) > 250:
        raise BadName(target, at, "expected the dkey of an alias, of 1 to 250 characters")
    return domain, dkey


def _fields(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=len(_FIELDS)) if query else []
    except ValueError:
        raise BadRecord("", f"the query is not made of some of the fields {', '.join(_FIELDS)}, each once") from None
    for name, _ in pairs:
        if name not in _FIELDS:
            raise BadRecord("", f"no such field; there are {', '.join(_FIELDS)}")
    said = dict(pairs)
    if len(said) != len(pairs):
        raise BadRecord("", "a field stands twice")
    return said


def _found(record: Record | None) -> Record:
    if record is None:
        raise Missing("no picture of that hash or checksum")
    return record


def _name(record: Record, said: dict[str, str]) -> Name:
    width, height, mark = _side("width", said), _side("height", said), said.get("watermark")
    if mark is not None and not _MARK.fullmatch(mark):
        raise BadRecord("watermark", "is not the id of a watermark profile: 1 to 16 of a-z 0-9")
    if width is None and height is None and mark is None:
        return Base(record.hash, record.type)
    return Derived(record.hash, BEST.get(record.type, record.type), width=width, height=height, mark=mark)


def _side(field: str, said: dict[str, str]) -> int | None:
    text = said.get(field)
    if text is None:
        return None
    if not _SIDE.fullmatch(text) or int(text) > _LARGEST:
        raise BadRecord(field, f"is not a whole number from 1 to {_LARGEST}")
    return int(text)
