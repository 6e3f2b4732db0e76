"""How settings are spelled: sizes, durations, addresses, shelves, keys and marks as text, and the values that they stand for.

Every function here takes what a file or a variable says and returns the value, or raises `ValueError` with what was expected.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, get_args
from urllib.parse import parse_qsl, urlsplit

from imgproxy.errors import BadName
from imgproxy.grammar import parse
from imgproxy.picture import Corner, Mark

_SWIFT = {"make": "yes", "expire": "", "base_policy": "", "derived_policy": "", "meta_policy": ""}
STORES: Mapping[str, Mapping[str, str]] = {"fs": {}, "swift": _SWIFT, "s3": {}, "gs": {}, "az": {}}
"""The kinds of store: the scheme of the URL, and the options it takes with their defaults."""
_REDIS = {"size": "256K", "expire": "7d"}
TIERS: Mapping[str, Mapping[str, str]] = {"disk": {"size": "10G"}, "memory": {"size": "256M"}, "redis": _REDIS, "rediss": _REDIS}
"""The kinds of tier, likewise."""
QUEUES: Mapping[str, Mapping[str, str]] = {"sqlite": {}, "redis": {}, "rediss": {}}
"""And of places for jobs."""

_BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}(?:/[A-Za-z0-9._/-]*)?"
_SERVER = r"(?:[^@/]*@)?(?:[A-Za-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?(?:/[0-9]{1,3})?"
_PLACES = {
    "swift": ("[A-Za-z0-9._-]{1,200}", "swift:// and the beginning of the containers' names, such as swift://photos"),
    **dict.fromkeys(("s3", "gs", "az"), (_BUCKET, "a bucket, and perhaps a prefix, such as s3://photos/here")),
    "sqlite": ("", "sqlite:// alone: its place is under the data directory"),
    **dict.fromkeys(("redis", "rediss"), (_SERVER, "a server, such as redis://127.0.0.1:6379/0")),
}
"""What a URL says between the scheme and its options, as a pattern and in words."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MARK_RANGES = {"size": (1, 1000), "margin": (0, 500), "opacity": (1, 100)}


@dataclass(frozen=True, slots=True)
class Shelf:
    """A store or a tier as its URL says it: `scheme://netloc/path?size=...`; an empty path is a place under the data directory."""

    scheme: str
    netloc: str = ""
    path: str = ""
    size: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The URL without its password."""
        user, at, host = self.netloc.rpartition("@")
        shown = f"{user.partition(':')[0]}:***@{host}" if ":" in user else user + at + host
        query = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.scheme}://{shown}{self.path}" + (f"?{query}" if query else "")


@dataclass(frozen=True, slots=True)
class MarkFile:
    """A watermark profile, and the file of its picture."""

    mark: Mark
    path: Path

    def __str__(self) -> str:
        """As `mark` would read it."""
        return f"{self.path}?place={self.mark.place}&size={self.mark.size}&margin={self.mark.margin}&opacity={self.mark.opacity}"


def size(raw: object) -> int:
    """Bytes: a whole number, or one with K, M, G or T (powers of 1024)."""
    match = re.fullmatch("([0-9]{1,15})([KMGT]?)", str(raw)) if type(raw) in (int, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError("expected a size such as 400M or 10G")
    return int(match[1]) * _UNITS[match[2]]


def spelled_size(count: int) -> str:
    """A number of bytes as `size` would read it, in the largest unit of which it is a whole number (but not in K)."""
    unit = next(unit for unit in ("T", "G", "M", "") if count % _UNITS[unit] == 0)
    return f"{count // _UNITS[unit]}{unit}"


def seconds(raw: object) -> float:
    """A positive number of seconds, or one with s, m, h or d."""
    match = re.fullmatch("([0-9]{1,9}(?:[.][0-9]{1,6})?)([smhd]?)", str(raw)) if type(raw) in (int, float, str) else None
    if match is None or float(match[1]) == 0:
        raise ValueError("expected a duration such as 20 or 20s or 5m")
    return float(match[1]) * _SECONDS[match[2]]


def pause(raw: object) -> float:
    """A number of seconds as `seconds` reads it, or 0 for never."""
    return 0.0 if str(raw) in ("0", "0.0") else seconds(raw)


def admin_door(raw: object) -> str:
    """Where the doors for writing are: `beside` the others, at an address of their own, or `off`."""
    return _text(raw) if raw in ("beside", "off") else address(raw)


def address(raw: object) -> str:
    """Where to listen: `host:port`, `[v6]:port` or `unix:PATH`."""
    match = re.fullmatch(r"unix:.+|(?:[A-Za-z0-9.-]*|\[[0-9a-f:]+\]):([0-9]{1,5})", _text(raw))
    if match is None or int(match[1] or 0) > 65535:
        raise ValueError("expected host:port or unix:PATH")
    return match[0]


def network(raw: object) -> str:
    """Addresses that are alike in their first bits: `10.0.0.0/8`, `::1`."""
    try:
        return str(ipaddress.ip_network(_text(raw))).removesuffix("/32").removesuffix("/128")
    except ValueError:
        raise ValueError("expected an address or a network, such as 10.0.0.0/8") from None


def header_name(raw: object) -> str:
    """The name of a header."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]{0,63}", _text(raw)):
        raise ValueError("expected the name of a header")
    return _text(raw)


def header_value(raw: object) -> str:
    """The value of a header; what was written may be a secret, and is never repeated in the complaint."""
    if not isinstance(raw, str) or not re.fullmatch("[!-~](?:[ -~]*[!-~])?", raw):
        raise ValueError("expected the value of a header, in printable ASCII")
    return raw


def call(raw: object) -> str:
    """A request, without headers and body: a method, a space and a URL."""
    if not re.fullmatch(r"[A-Z]{3,20} https?://(?:[^/?#]*@)?(?![.]|[^/?#]*(?:[.]{2}|[^./?#]{64}))[!-~]+", _text(raw)):
        raise ValueError("expected a method and a URL, such as PURGE http://127.0.0.1:6081/{hash}")
    return _text(raw)


def socket_path(raw: object) -> Path:
    """Where a socket lies: a path, perhaps below the data directory."""
    if not _text(raw):
        raise ValueError("expected the path of a socket")
    return Path(_text(raw))


def directory(raw: object) -> Path:
    """A directory, made absolute."""
    if not _text(raw):
        raise ValueError("expected the path of a directory")
    return Path(_text(raw)).absolute()


def key(raw: object) -> bytes:
    """A secret of at least 16 bytes, in hex; what was written is never repeated in the complaint."""
    if not isinstance(raw, str) or not re.fullmatch("(?:[0-9a-fA-F]{2})*", raw):
        raise ValueError("expected hex digits in pairs")
    if len(raw) < 32:
        raise ValueError(f"expected at least 32 hex digits (16 bytes), found {len(raw)}")
    return bytes.fromhex(raw)


def suffix(raw: object) -> str:
    """What follows the hash in the name of a rendition, such as `-256x256-fill.webp`."""
    text = _text(raw)
    if not text.startswith("-"):
        raise ValueError('expected "-" and a size')
    try:
        parse("0" * 64 + text)
    except BadName as error:
        rest = text[error.at - 64 :]
        raise ValueError(f"{error.why}, at " + (f'"{rest}"' if rest else "the end") + f' of "{text}"') from None
    return text


def preset_name(raw: object) -> str:
    """The name of a preset."""
    if not re.fullmatch("[a-z0-9-]{1,64}", _text(raw)):
        raise ValueError("expected a name of a-z 0-9 -")
    return _text(raw)


def mark_id(raw: object) -> str:
    """The id of a watermark profile, as the grammar has it."""
    if not re.fullmatch("[a-z0-9]{1,16}", _text(raw)):
        raise ValueError("expected an id of 1 to 16 of a-z 0-9")
    return _text(raw)


def mark(raw: object) -> MarkFile:
    """A watermark profile: `path/to/picture.png?place=se&size=200&margin=20&opacity=60`."""
    file, _, query = _text(raw).partition("?")
    said = _query(query, ("place", *_MARK_RANGES))
    place = said.pop("place", "se")
    if place not in get_args(Corner):
        raise ValueError(f"expected a place: {', '.join(get_args(Corner))}")
    for word, number in said.items():
        least, most = _MARK_RANGES[word]
        if not re.fullmatch("[0-9]{1,4}", number) or not least <= int(number) <= most:
            raise ValueError(f"expected a {word} from {least} to {most}")
    if not Path(file).is_file():
        raise ValueError(f"there is no file {file}")
    return MarkFile(Mark(place, **{word: int(number) for word, number in said.items()}), Path(file).absolute())  # type: ignore[arg-type]


def origin(raw: object) -> str:
    """Whose pages may read pictures by script: `*`, one origin such as `https://example.org`, or nobody (empty)."""
    if not re.fullmatch(r"[*]|(?:https?://[a-z0-9.:\[\]-]+)?", _text(raw)):
        raise ValueError("expected *, one origin such as https://example.org, or nothing")
    return _text(raw)


def store(raw: object) -> Shelf:
    """The URL of a store."""
    return _shelf(_text(raw), STORES)


def tier(raw: object) -> Shelf:
    """The URL of a tier."""
    return _shelf(_text(raw), TIERS)


def queue(raw: object) -> Shelf:
    """The URL of the place where jobs are kept."""
    return _shelf(_text(raw), QUEUES)


def host(raw: object) -> str:
    """The name or the number of a host, or `*.` and a name for all below it."""
    if not re.fullmatch(r"(?:[*][.])?[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?|[0-9a-f:.]{2,45}", _text(raw)):
        raise ValueError("expected a host in lower case, such as example.org or *.example.org")
    return _text(raw)


def port(raw: object) -> int:
    """The number of a port."""
    if not re.fullmatch("[0-9]{1,5}", str(raw)) or not 1 <= int(str(raw)) <= 65535:
        raise ValueError("expected a port from 1 to 65535")
    return int(str(raw))


def _shelf(text: str, kinds: Mapping[str, Mapping[str, str]]) -> Shelf:
    scheme, colon, _ = text.partition("://")
    if scheme not in kinds or not colon:
        raise ValueError(f"expected a URL that begins with {' or '.join(f'{kind}://' for kind in kinds)}")
    url = urlsplit(text)
    if url.fragment:
        raise ValueError("expected no # in a URL")
    options = {**kinds[scheme], **_query(url.query, kinds[scheme])}
    netloc, path = url.netloc, url.path
    if scheme in ("fs", "disk"):
        netloc, path = "", str(Path(netloc + path).absolute()) if netloc + path else ""
    elif scheme in _PLACES and not re.fullmatch(_PLACES[scheme][0], netloc + path):
        raise ValueError(f"expected {_PLACES[scheme][1]}")
    if options.get("expire"):
        seconds(options["expire"])
    if options.get("make", "yes") not in ("yes", "no"):
        raise ValueError("expected make=yes or make=no")
    return Shelf(scheme, netloc, path, size(options["size"]) if "size" in options else 0, options)


def _query(text: str, known: Mapping[str, str] | tuple[str, ...]) -> dict[str, str]:
    pairs = parse_qsl(text, keep_blank_values=True)
    for word, _ in pairs:
        if word not in known:
            raise ValueError(f"does not know {word}" + (f", only {', '.join(known)}" if known else ""))
    if len(dict(pairs)) < len(pairs):
        raise ValueError("says a thing twice")
    return dict(pairs)


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("expected text")
    return raw


Size = Annotated[int, size]
Seconds = Annotated[float, seconds]
Pause = Annotated[float, pause]
Address = Annotated[str, address]
AdminDoor = Annotated[str, admin_door]
Directory = Annotated[Path, directory]
Key = Annotated[bytes, key]
Suffix = Annotated[str, suffix]
PresetName = Annotated[str, preset_name]
MarkId = Annotated[str, mark_id]
MarkPicture = Annotated[MarkFile, mark]
Origin = Annotated[str, origin]
Queue = Annotated[Shelf, queue]
Host = Annotated[str, host]
Port = Annotated[int, port]
Store = Annotated[Shelf, store]
Tier = Annotated[Shelf, tier]
Network = Annotated[str, network]
HeaderName = Annotated[str, header_name]
SocketPath = Annotated[Path, socket_path]
HeaderValue = Annotated[str, header_value]
Call = Annotated[str, call]
Text = Annotated[str, _text]
