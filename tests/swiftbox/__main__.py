"""The commands of a box: `serve` in the foreground, `ctl` to tell a running one something."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from importlib import import_module
from pathlib import Path

from tests.swiftbox import Shape, control
from tests.swiftbox.build import build, port_is_free, ports, swift_conf, write
from tests.swiftbox.serve import Supervisor

FIRST, PROXIES, ROOM, STRIDE = 12_000, 20_000, 8_000, 20
"""Ports are chosen below the range from which the kernel takes those of clients."""


def main() -> None:
    """Do what the words of the command say."""
    parser = argparse.ArgumentParser(prog="swiftbox", description="A real Swift on loopback.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve")
    serve.add_argument("directory", type=Path)
    serve.add_argument("--stdin-guard", action="store_true", help="end with standard input")
    for field in dataclasses.fields(Shape):
        serve.add_argument("--" + field.name.replace("_", "-"), type=type(field.default), default=field.default)
    ctl = commands.add_parser("ctl")
    ctl.add_argument("directory", type=Path)
    ctl.add_argument("words", nargs="+")
    said = vars(parser.parse_args())
    if said.pop("command") == "ctl":
        print(json.dumps(control(said["directory"], tuple(said["words"])), indent=1))
    else:
        _serve(said.pop("directory").resolve(), said.pop("stdin_guard"), Shape(**said))


def _serve(top: Path, guarded: bool, asked: Shape) -> None:
    """Swift reads `swift.conf` as its modules are imported, and must be patched before that: hence the order of this."""
    top.mkdir(parents=True, exist_ok=True)
    shape = _shape(top, asked)
    write(top / "etc" / "swift.conf", swift_conf(shape))
    tools = import_module("swift.common.utils")
    tools.monkey_patch()
    tools.set_swift_dir(str(top / "etc"))
    import_module("swift.common.constraints").reload_constraints()
    import_module("swift.common.storage_policy").reload_storage_policies()
    build(top, shape)
    Supervisor(top, shape, guarded).run()


def _shape(top: Path, asked: Shape) -> Shape:
    """What was asked, with ports; a box that exists keeps its form and its ports, or its rings would lie."""
    saved = top / "box.json"
    if saved.exists():
        return dataclasses.replace(Shape(**json.loads(saved.read_text())), sweep=asked.sweep, listen=asked.listen, key=asked.key)
    start = os.getpid() * 7 % 400 * STRIDE
    offers = [(start + step) % ROOM for step in range(0, ROOM, STRIDE)]
    base, port = asked.base_port, asked.port
    if not base:
        wanted = (
            (FIRST + offer, [p for node in range(1, asked.nodes + 1) for p in ports(FIRST + offer, node).values()]) for offer in offers
        )
        base = next(first for first, all_of in wanted if all(map(port_is_free, all_of)))
    if not port:
        port = next(PROXIES + offer for offer in offers if port_is_free(PROXIES + offer))
    shape = dataclasses.replace(asked, base_port=base, port=port)
    saved.write_text(json.dumps(dataclasses.asdict(shape)))
    return shape


if __name__ == "__main__":
    main()
