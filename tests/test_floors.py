"""Who may import whom, and where each foreign package lives."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = {
    "errors": 0,
    "observe": 0,
    "addresses": 1,
    "grammar": 1,
    "picture": 1,
    "geometry": 2,
    "limits": 2,
    "mapped": 2,
    "security": 2,
    "spelling": 2,
    "calls": 3,
    "config": 3,
    "departures": 3,
    "exporting": 6,
    "fetch": 3,
    "flights": 3,
    "keeper": 3,
    "knocking": 2,
    "pool": 3,
    "quarantine": 3,
    "render": 3,
    "stores": 3,
    "tokens": 3,
    "urls": 3,
    "vips": 3,
    "cache": 4,
    "meta": 4,
    "originals": 4,
    "purges": 4,
    "resumable": 4,
    "images": 5,
    "clerk": 6,
    "client": 6,
    "contrib": 6,
    "jobs": 6,
    "uploads": 6,
    "web": 7,
    "wiring": 7,
    "workshop": 7,
    "cli": 8,
    "commands": 8,
    "edge": 8,
    "wsgi": 8,
}
"""Every file of the house, or the package it is in. A file imports from lower floors, and from its own package."""

SAME_FLOOR = {
    ("cli", "commands"),
    ("cli", "edge"),
    ("commands", "edge"),
    ("fetch", "calls"),
    ("jobs", "uploads"),
    ("pool", "render"),
    ("pool", "vips"),
    ("render", "vips"),
    ("wiring", "web"),
    ("wiring", "workshop"),
}
"""The window to the internet calls like everybody; the child processes of the pool run the renderer; its parts are a package of their own;
the wiring knows every class, the doors' too, and has its bench in a file of its own."""

ONLY_FOR = {
    "config": {"wiring", "workshop", "cli", "commands", "edge", "wsgi"},
    "observe": {"edge", "web", "wiring", "workshop", "cli", "wsgi"},
}
"""What most of the house never asks, however high it lives."""

HOMES = {
    "backports": {"meta.packed"},
    "click": {"cli", "commands"},
    "compression": {"meta.packed"},
    "diskcache": {"stores.disk"},
    "falcon": {"web"},
    "gunicorn": {"cli", "wsgi"},
    "httpx": {"calls"},
    "huey": {"jobs.queue"},
    "keystoneauth1": {"stores.swift"},
    "msgspec": {"config", "jobs", "meta.jsontext", "web"},
    "obstore": {"stores.cloud"},
    "prometheus_client": {"observe"},
    "pyvips": {"vips"},
    "redis": {"stores.redis"},
    "requests": {"stores.swift"},
    "rich": {"commands.progress"},
    "stamina": {"stores"},
    "structlog": {"observe"},
    "swiftclient": {"stores.swift"},
    "urllib3": {"stores.swift"},
}
"""One foreign package, one home: a file, or a package with all its files."""

PURE = {"addresses", "errors", "geometry", "grammar", "limits", "picture", "security", "urls"}
"""Files that touch nothing: no disk, no network, no process."""

DOORS_OUT = set(
    "asyncio fcntl glob http importlib io mmap os pathlib select shutil socket sqlite3 ssl subprocess tempfile urllib.request".split()
)


def imported(source: str) -> Iterator[str]:
    """Every module that `source` imports, wherever in it; `from a import b` is both `a` and `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            whence = "." * node.level + (node.module or "")
            yield whence
            yield from (f"{whence}.{alias.name}" for alias in node.names)


def lives_in(room: str, homes: set[str]) -> bool:
    return any(room == home or room.startswith(home + ".") for home in homes)


def faults(room: str, source: str) -> list[str]:
    """What is wrong with the imports of `room`: a module's dotted path under `imgproxy`."""
    package = room.split(".")[0]
    if package not in FLOORS:
        return [f"{room}: not in the table, give it a floor"]
    found = []
    for module in imported(source):
        whole, _, rest = module.partition(".")
        if module.startswith("."):
            found.append(f"{room}: write imports in full, not {module}")
        elif whole == "imgproxy":
            found += own_fault(room, rest.split(".")[0])
        elif module in DOORS_OUT or whole in DOORS_OUT:
            found += [f"{room}: is pure, and imports {module}"] * (room in PURE)
        elif whole not in sys.stdlib_module_names and not lives_in(room, HOMES.get(whole, set())):
            found.append(f"{room}: {whole} does not live here")
    return sorted(set(found))


def own_fault(room: str, other: str) -> list[str]:
    package = room.split(".")[0]
    if other in ("", package):
        return []
    if other not in FLOORS:
        return [f"{room}: imports {other}, which has no floor"]
    if FLOORS[other] >= FLOORS[package] and (package, other) not in SAME_FLOOR:
        return [f"{room}: is on floor {FLOORS[package]}, and imports {other} from floor {FLOORS[other]}"]
    return [f"{room}: {other} is not for it"] * (package not in ONLY_FOR.get(other, {package}))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "imgproxy").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


ROOMS = {room_of(path): path for path in sorted((ROOT / "imgproxy").rglob("*.py")) if path != ROOT / "imgproxy" / "__init__.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_below_and_keeps_foreigners_at_their_homes(room: str) -> None:
    assert faults(room, ROOMS[room].read_text()) == []


def test_the_front_hall_is_empty() -> None:
    assert list(imported((ROOT / "imgproxy" / "__init__.py").read_text())) in ([], ["__future__", "__future__.annotations"])


@pytest.mark.parametrize(
    ("room", "source", "fault"),
    [
        ("render", "import imgproxy.pool", "render: is on floor 3, and imports pool from floor 3"),
        ("render", "from imgproxy import stores", "render: is on floor 3, and imports stores from floor 3"),
        ("cache", "def late():\n    from imgproxy.images import Images", "cache: is on floor 4, and imports images from floor 5"),
        ("web.read", "from imgproxy.wiring import Services", "web.read: is on floor 7, and imports wiring from floor 7"),
        ("web.read", "if TYPE_CHECKING:\n    import pyvips", "web.read: pyvips does not live here"),
        ("stores.fs", "import diskcache.core", "stores.fs: diskcache does not live here"),
        ("stores.fs", "import left_pad", "stores.fs: left_pad does not live here"),
        ("grammar", "import falcon", "grammar: falcon does not live here"),
        ("urls", "from pathlib import Path", "urls: is pure, and imports pathlib"),
        ("security", "from urllib.request import urlopen", "security: is pure, and imports urllib.request"),
        ("images", "from imgproxy.config import Settings", "images: config is not for it"),
        ("stores.fs", "from . import disk", "stores.fs: write imports in full, not ."),
        ("attic", "import os", "attic: not in the table, give it a floor"),
        ("images", "from imgproxy.attic import box", "images: imports attic, which has no floor"),
    ],
)
def test_a_planted_fault_is_found(room: str, source: str, fault: str) -> None:
    assert fault in faults(room, source)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("pool", "def child():\n    from imgproxy import render"),
        ("stores.disk", "import diskcache\nfrom imgproxy.stores import Item\nfrom imgproxy.errors import StoreFull"),
        ("web.read", "import falcon\nimport os\nfrom imgproxy import grammar, observe"),
        ("grammar", "from __future__ import annotations\nimport re\nfrom urllib.parse import quote"),
        ("wsgi", "from imgproxy import config, wiring"),
    ],
)
def test_what_is_allowed_is_no_fault(room: str, source: str) -> None:
    assert faults(room, source) == []


@pytest.mark.parametrize("room", sorted(PURE & set(ROOMS)))
def test_the_rules_need_no_installed_package(room: str) -> None:
    """`-S` hides everything that was ever installed."""
    subprocess.run([sys.executable, "-S", "-c", f"import imgproxy.{room}"], cwd=ROOT, check=True, timeout=60)


def test_the_web_process_never_loads_libvips() -> None:
    """All rooms but those that only ever run in processes of the pool."""
    apart = {"render", "vips", "pool.keeper", "pool.renderer"}
    rooms = ", ".join(f"imgproxy.{room}" for room in ROOMS if not lives_in(room, apart))
    ask = f"import sys, {rooms}; sys.exit(any('vips' in module for module in sys.modules))"
    subprocess.run([sys.executable, "-c", ask], cwd=ROOT, check=True, timeout=60)
