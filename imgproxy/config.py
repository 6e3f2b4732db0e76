"""Settings: one frozen object, from a file and the environment, with every mistake reported at once.

A setting is named once, as a field of `Settings` (or of `Limits`, under `[limits]`). The file spells it `name`, the environment
`IMG_NAME` (`IMG_LIMITS_PIXELS`), and the environment wins. There a list is comma-separated, and a table is `name=value,...`; an empty
variable counts as not set, but for lists, tables and `cors`, which it empties. `conf/imgproxy.toml` has them all, with a sentence each.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from imgproxy import security, spelling
from imgproxy.errors import BadSettings
from imgproxy.limits import Limits
from imgproxy.spelling import (
    Address,
    AdminDoor,
    Call,
    Directory,
    HeaderName,
    HeaderValue,
    Host,
    Key,
    MarkId,
    MarkPicture,
    Network,
    Origin,
    Pause,
    Port,
    PresetName,
    Queue,
    Seconds,
    Shelf,
    Size,
    SocketPath,
    Store,
    Suffix,
    Text,
    Tier,
)

DEFAULT_FILE = Path("conf/imgproxy.toml")
ADMIN_TOKEN = "IMG_ADMIN_TOKEN"  # noqa: S105 - the name of the variable
SECRETS = (
    *(ADMIN_TOKEN, "IMG_KEYS", "IMG_CALLBACK_KEYS", "IMG_PURGE_HEADERS", "ST_KEY", "OS_PASSWORD", "OS_APPLICATION_CREDENTIAL_SECRET"),
    *("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
)
"""Variables that may be in a file instead, which the variable of that name and `_FILE` names."""
_FILES = tuple(f"{name}_FILE" for name in SECRETS)
NOT_OURS_TO_READ = frozenset(("IMG_CONFIG", ADMIN_TOKEN, "IMG_SERVER", "IMG_TOKEN", "IMG_TOKEN_FILE", *_FILES))
"""Variables that are known, but are no settings of this object."""

_LONGEST_SOCKET = 107

PRESETS = {"thumbnail": "-256x256.webp", "full-size": "-full.jpg"}
"""What these mean where the settings do not say it; the policy `listed` allows none of them then."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1024)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1, le=2**40)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that can be set; the defaults are those of `make serve`."""

    bind: tuple[Address, ...] = ("127.0.0.1:8080",)
    edge: Literal["off", "nginx", "socket"] = "off"
    edge_socket: SocketPath = Path("run/gunicorn.sock")
    edge_nodes: tuple[Address, ...] = ()
    edge_admin: tuple[Network, ...] = ("127.0.0.0/8", "::1")
    edge_proxies: tuple[Network, ...] = ()
    data: Directory = Path("var")
    store: Store = spelling.store("fs://")
    cache: tuple[Tier, ...] = (spelling.tier("disk://?size=10G"),)
    derived: Literal["auto", "behind", "before", "off"] = "auto"
    derived_waiting: Size = 64 * 2**20
    copies: Size = 10 * 2**30
    uploads: AtLeastOne = 1_000
    uploads_waiting: Size = 10 * 2**30
    uploads_kept: Seconds = 86_400.0
    snapshot_every: AtLeastOne = 200
    autocommit: Pause = 0.0
    sessions_kept: Pause = 30 * 86_400.0

    policy: Literal["any", "listed", "signed"] = "any"
    originals: Literal["public", "signed", "private"] = "public"
    keys: tuple[Key, ...] = ()
    listed: tuple[Suffix, ...] = ()
    presets: Mapping[PresetName, Suffix] = MappingProxyType({})
    marks: Mapping[MarkId, MarkPicture] = MappingProxyType({})
    cors: Origin = "*"
    admin: AdminDoor = "beside"
    tags: tuple[HeaderName, ...] = ("Cache-Tag", "Surrogate-Key")
    purge: tuple[Call, ...] = ()
    purge_headers: Mapping[HeaderName, HeaderValue] = MappingProxyType({})
    purge_body: Text = ""

    jobs: Queue = spelling.queue("sqlite://")
    job_workers: Count = 4
    task_tries: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    tasks_kept: Seconds = 7 * 86_400.0
    callback_keys: tuple[Key, ...] = ()
    callback_tries: Annotated[int, msgspec.Meta(ge=1, le=100)] = 8
    fetch_hosts: tuple[Host, ...] = ()
    fetch_networks: tuple[Network, ...] = ()
    fetch_ports: tuple[Port, ...] = (80, 443)
    fetch_seconds: Seconds = 60.0

    workers: Count = 0
    threads: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256
    renderers: Count = 0
    renderer_memory: Size = 1200 * 2**20
    renderer_resident: Size = 400 * 2**20
    renderer_renders: AtLeastOne = 1000
    queue: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 64
    patience: Seconds = 20.0
    grace: Seconds = 30.0
    body_seconds: Seconds = 20.0
    limits: Limits = Limits()

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"
    metrics: bool = True

    origins: Mapping[str, str] = MappingProxyType({})
    """Where a setting came from that is not its default: `file`, or the name of the variable."""
    warnings: tuple[str, ...] = ()
    """What looks like a mistake and may be none."""

    def __post_init__(self) -> None:
        """Find every place that was left to the data directory."""
        data = self.data.absolute()
        msgspec.structs.force_setattr(self, "data", data)
        msgspec.structs.force_setattr(self, "edge_socket", data / self.edge_socket)
        msgspec.structs.force_setattr(self, "store", _placed(self.store, data / "store"))
        msgspec.structs.force_setattr(self, "cache", tuple(_placed(shelf, data / "cache") for shelf in self.cache))

    @property
    def doors(self) -> tuple[str, ...]:
        """Where gunicorn listens: where everybody asks, or the socket behind nginx."""
        return self.bind if self.edge == "off" else (f"unix:{self.edge_socket}",)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={shown}' for name, shown, _ in describe(self))})"


def _placed(shelf: Shelf, place: Path) -> Shelf:
    if shelf.scheme not in ("fs", "disk") or shelf.path:
        return shelf
    return Shelf(shelf.scheme, "", str(place), shelf.size, shelf.options)


def _limit(name: str, kind: object) -> object:
    if name.endswith("_bytes"):
        return Size
    return {int: AtLeastOne, float: Seconds, bool: bool}[kind]  # type: ignore[index]


_OF_SETTINGS = get_type_hints(Settings, include_extras=True)
KINDS: Mapping[str, Any] = {name: kind for name, kind in _OF_SETTINGS.items() if name not in ("limits", "origins", "warnings")} | {
    f"limits.{name}": _limit(name, kind) for name, kind in get_type_hints(Limits).items()
}
"""Every setting by its name in the file, and how it is spelled."""


def variable(name: str) -> str:
    """The environment's name of a setting."""
    return "IMG_" + name.upper().replace(".", "_")


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings from the file (`path`, or `IMG_CONFIG`, or `conf/imgproxy.toml` where that is) and the environment."""
    mistakes: list[str] = []
    weak = security.too_weak(environ[ADMIN_TOKEN]) if environ.get(ADMIN_TOKEN) else None
    if weak is not None:
        mistakes.append(f"{ADMIN_TOKEN}: {weak}")
    said = _from_file(path, environ, mistakes)
    origins = dict.fromkeys(said, "file")
    for name, kind in KINDS.items():
        text = environ.get(variable(name))
        if text or (text is not None and _may_be_empty(kind)):
            said[name], origins[name] = _parted(kind, text), variable(name)
    values = {name: _value(name, raw, origins[name], mistakes) for name, raw in said.items()}
    if mistakes:
        raise BadSettings(mistakes)
    limits = Limits(**{name.removeprefix("limits."): values.pop(name) for name in said if name.startswith("limits.")})
    settings = Settings(**values, limits=limits, origins=MappingProxyType(origins))
    _agree(settings)
    return msgspec.structs.replace(settings, warnings=(*_strange(environ), *_idle(settings)))


def presets_of(settings: Settings) -> dict[str, str]:
    """The presets by their names, with those that the versioned interface cannot do without."""
    return {**PRESETS, **settings.presets}


def unsealed(environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets that are in files; one that is in the environment too is the environment's."""
    found, mistakes = {}, []
    for name, file in zip(SECRETS, _FILES, strict=True):
        if not environ.get(file) or environ.get(name):
            continue
        try:
            found[name] = Path(environ[file]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            mistakes.append(f"{file}: {environ[file]}: {error.strerror if isinstance(error, OSError) else 'is no text'}")
    if mistakes:
        raise BadSettings(mistakes)
    return found


def with_nodes(settings: Settings, nodes: tuple[str, ...]) -> Settings:
    """The same settings, with these nodes to spread names over."""
    return msgspec.structs.replace(settings, edge_nodes=nodes)


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """Every setting: its name, its value without secrets, and where that came from."""
    return [(name, _shown(name, settings), settings.origins.get(name, "default")) for name in KINDS]


# ---- the file


def _from_file(path: Path | None, environ: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    """What the file says, by dotted names that are known; the others are mistakes."""
    named = path or (Path(environ["IMG_CONFIG"]) if environ.get("IMG_CONFIG") else None)
    file = named or DEFAULT_FILE
    if named is None and not file.exists():
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        mistakes.append(f"config: {file}: {error.strerror if isinstance(error, OSError) else error}")
        return {}
    said = dict(_dotted(tables))
    if "limits" in said:
        mistakes.append("limits: expected a table")
        del said["limits"]
    mistakes += [f"{name}: no such setting" + _meant(name, KINDS) for name in said if name not in KINDS]
    return {name: raw for name, raw in said.items() if name in KINDS}


def _dotted(tables: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, raw in tables.items():
        if name == "limits" and isinstance(raw, dict):
            yield from ((f"limits.{inner}", value) for inner, value in raw.items())
        else:
            yield name, raw


def _meant(name: str, known: Mapping[str, object] | list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


# ---- the environment


def _may_be_empty(kind: object) -> bool:
    return get_origin(kind) in (tuple, Mapping) or kind == Origin


def _parted(kind: object, text: str) -> object:
    """A variable's text as the file would have it: a list, a table, or the text."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if get_origin(kind) is tuple:
        return [] if words == ["none"] else words
    if get_origin(kind) is Mapping:
        return {name.strip(): value.strip() for name, _, value in (word.partition("=") for word in words)}
    return text


def _strange(environ: Mapping[str, str]) -> Iterator[str]:
    known = [variable(name) for name in KINDS]
    for name in sorted(environ):
        if name.startswith("IMG_") and name not in known and name not in NOT_OURS_TO_READ:
            yield f"{name}: no such setting" + _meant(name, known)


# ---- values


def _value(name: str, raw: object, origin: str, mistakes: list[str]) -> Any:
    """The value of one setting, whatever of it can be had; what is wrong is added to `mistakes`."""
    kind = KINDS[name]
    try:
        if get_origin(kind) is tuple:
            return _list(name, raw, origin, mistakes)
        if get_origin(kind) is Mapping:
            return _table(name, raw, origin, mistakes)
        return _one(kind, raw, lax=origin != "file")
    except ValueError as error:
        mistakes.append(_mistake(name, origin, error))
        return None


def _list(name: str, raw: object, origin: str, mistakes: list[str]) -> tuple[Any, ...]:
    (kind, _), found = get_args(KINDS[name]), []
    items = _parted(KINDS[name], raw) if isinstance(raw, str) else raw
    if not isinstance(items, list):
        raise ValueError("expected a list")
    for place, item in enumerate(items, 1):
        try:
            found.append(_one(kind, item, lax=False))
        except ValueError as error:
            mistakes.append(_mistake(name if len(items) == 1 else f"{name}: number {place}", origin, error))
    return tuple(found)


def _table(name: str, raw: object, origin: str, mistakes: list[str]) -> Mapping[str, Any]:
    (key_kind, kind), found = get_args(KINDS[name]), {}
    if not isinstance(raw, dict):
        raise ValueError("expected a table of names and values")
    for key, item in raw.items():
        try:
            known = _one(key_kind, key, lax=False)
            found[known] = _one(kind, item, lax=False)
        except ValueError as error:
            mistakes.append(_mistake(f"{name}.{key}", origin, error))
    return MappingProxyType(found)


def _one(kind: Any, raw: object, *, lax: bool) -> Any:
    how = kind.__metadata__[0] if get_origin(kind) is Annotated else None
    if callable(how):
        return how(raw)
    try:
        return msgspec.convert(raw, kind, strict=not lax)
    except msgspec.ValidationError:
        raise ValueError(f"expected {_wanted(kind)}, got {raw!r}") from None


def _wanted(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if kind is bool:
        return "true or false"
    bounds = kind.__metadata__[0]
    return f"a whole number from {bounds.ge} to {bounds.le}"


def _mistake(name: str, origin: str, error: ValueError) -> str:
    return f"{name}: {error}" + (f" ({origin})" if origin != "file" else "")


def _agree(settings: Settings) -> None:
    """Refuse settings that are right by themselves, and wrong together."""
    signed = [name for name in ("policy", "originals") if getattr(settings, name) == "signed"]
    mistakes = [f"{name}: signed needs keys" for name in signed if not settings.keys]
    if settings.admin.rpartition(":")[2] in {bound.rpartition(":")[2] for bound in settings.bind}:
        mistakes.append("admin: has the port of bind, and needs one of its own; or say beside")
    if settings.edge != "off" and len(str(settings.edge_socket)) > _LONGEST_SOCKET:
        mistakes.append(f"edge_socket: {settings.edge_socket} is longer than a socket's path may be")
    if settings.renderer_resident > settings.renderer_memory:
        mistakes.append("renderer_resident: is more than renderer_memory")
    if mistakes:
        raise BadSettings(mistakes)


def _idle(settings: Settings) -> Iterator[str]:
    if settings.policy == "listed" and not settings.listed and not settings.presets:
        yield "policy: listed, but nothing is: no rendition may be had"


def _shown(name: str, settings: Settings) -> str:
    owner, _, inner = name.rpartition(".")
    value = getattr(settings.limits if owner else settings, inner)
    if name in ("keys", "callback_keys"):
        return f"{len(value)} of them" if value else ""
    if KINDS[name] == Size:
        return spelling.spelled_size(value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={'***' if name == 'purge_headers' else item}" for key, item in value.items())
    return str(value).lower() if isinstance(value, bool) else format(value, ".12g") if isinstance(value, float) else str(value)
