"""The commands of a box: `serve` in the foreground, `ctl` to tell a running one something."""

from __future__ import annotations

import _socket
import argparse
import dataclasses
import json
import os
from contextlib import closing
from importlib import import_module
from pathlib import Path

from tests.swiftbox import Shape, control
from tests.swiftbox.build import build, claimed, port_is_free, ports, swift_conf, write
from tests.swiftbox.serve import Supervisor

FIRST, PROXIES, ROOM = 12_000, 20_000, 8_000
"""Ports are chosen below the range from which the kernel takes those of clients."""
STRIDE, MOST = 40, 4
"""So far apart are the ports of two boxes, for so many nodes."""


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
    shape, claim = _shape(top, asked)
    with closing(claim):
        write(top / "etc" / "swift.conf", swift_conf(shape))
        tools = import_module("swift.common.utils")
        tools.monkey_patch()
        tools.set_swift_dir(str(top / "etc"))
        import_module("swift.common.constraints").reload_constraints()
        import_module("swift.common.storage_policy").reload_storage_policies()
        build(top, shape)
        Supervisor(top, shape, guarded).run()


def _shape(top: Path, asked: Shape) -> tuple[Shape, _socket.socket]:
    """What was asked, with ports, and the claim to them; a box that exists keeps its form and its ports, or its rings would lie."""
    saved = top / "box.json"
    if saved.exists():
        shape = dataclasses.replace(Shape(**json.loads(saved.read_text())), sweep=asked.sweep, listen=asked.listen, key=asked.key)
        return shape, _claim(shape.base_port)
    if asked.nodes > MOST or bool(asked.base_port) > bool(asked.port):
        raise SystemExit(f"a box has at most {MOST} nodes, and a port where it has a base port")
    offer, claim = (0, _claim(asked.base_port)) if asked.base_port else _offer(asked)
    shape = dataclasses.replace(asked, base_port=asked.base_port or FIRST + offer, port=asked.port or PROXIES + offer)
    saved.write_text(json.dumps(dataclasses.asdict(shape)))
    return shape, claim


def _claim(base: int) -> _socket.socket:
    claim = claimed(base)
    if claim is None:
        raise SystemExit(f"the ports from {base} on are in use by another box")
    return claim


def _offer(asked: Shape) -> tuple[int, _socket.socket]:
    """Ports that no other box has, and at which nobody else listens now."""
    start = os.getpid() * 7 * STRIDE
    for offer in ((start + step) % ROOM for step in range(0, ROOM, STRIDE)):
        claim = claimed(FIRST + offer)
        if claim is None:
            continue
        wanted = [port for node in range(1, asked.nodes + 1) for port in ports(FIRST + offer, node).values()]
        if all(map(port_is_free, wanted)) and (asked.port or port_is_free(PROXIES + offer)):
            return offer, claim
        claim.close()
    raise SystemExit("no ports are left for a box")


if __name__ == "__main__":
    main()
