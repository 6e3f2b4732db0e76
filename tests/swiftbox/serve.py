"""The supervisor of a box: imports Swift once, forks every server from itself, answers at a socket, and ends with all of them.

The parent never runs an event loop of its own. So this file is imported before eventlet patches the modules, and uses `_socket`.
"""

from __future__ import annotations

import _socket
import ctypes
import gc
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from select import select
from typing import Any, NoReturn

from tests.swiftbox import HOST, Shape
from tests.swiftbox.build import KINDS, PIPELINE, port_is_free, ports

SERVERS = {"object": "swift.obj.server", "container": "swift.container.server", "account": "swift.account.server"}
DAEMONS = {
    "object-replicator": "swift.obj.replicator",
    "object-auditor": "swift.obj.auditor",
    "object-updater": "swift.obj.updater",
    "container-replicator": "swift.container.replicator",
    "container-updater": "swift.container.updater",
    "account-replicator": "swift.account.replicator",
    "object-expirer": "swift.obj.expirer",
}
_BREATH = 0.02


class Stop(BaseException):
    """It is time to end."""


class Supervisor:
    """Starts, watches and ends the servers of one box."""

    def __init__(self, top: Path, shape: Shape, guarded: bool) -> None:
        self._top = top
        self._shape = shape
        self._guarded = guarded
        self._pids: dict[str, int] = {}
        self._ear: Any = None
        self._alone = False
        self._names = [f"{kind}{node}" for node in range(1, shape.nodes + 1) for kind in KINDS] + ["proxy"]
        (top / "log").mkdir(exist_ok=True)

    def run(self) -> None:
        """Serve until told to stop: by a signal, by `stop`, or by the end of the pipe on standard input."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _stop)
        try:
            self._load()
            self._listen()
            for name in self._names:
                self._start(name)
            self._wait_healthy(self._names)
            if self._shape.sweep:
                self._pids["sweeper"] = self._fork("sweeper", self._sweep)
            print(json.dumps(self._info()) if self._guarded else self._said(), flush=True)
            self._serve()
        except Stop:
            pass
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            self._end()
            if self._alone:
                # Whoever wanted this box has left it, perhaps by being killed: nobody else will clear it away.
                shutil.rmtree(self._top, ignore_errors=True)

    # ---- what can be asked

    def _ps(self) -> dict[str, Any]:
        return {name: {"pid": self._pids.get(name), "port": self._port(name)} for name in self._names}

    def _do_start(self, *names: str) -> dict[str, Any]:
        for name in names:
            self._start(name)
        self._wait_healthy(names)
        return self._ps()

    def _kill(self, name: str, word: str = "KILL") -> None:
        pid = self._pids.get(name)
        if pid is not None:
            os.kill(pid, signal.Signals[f"SIG{word}"])
            if word in ("KILL", "TERM"):
                os.waitpid(pid, 0)
                del self._pids[name]

    def _once(self, daemon: str) -> dict[str, int]:
        """Run a daemon for one round on every node."""
        kind = daemon.partition("-")[0]
        if daemon == "object-expirer":
            confs = [self._top / "etc" / "object-expirer.conf"]
        else:
            confs = [self._top / "etc" / f"{kind}{node}.conf" for node in range(1, self._shape.nodes + 1)]
        ended = {}
        for conf in confs:
            pid = self._fork(daemon, partial(_main, DAEMONS[daemon], daemon, [str(conf), "once", "-v"]))
            ended[conf.stem] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return ended

    # ---- the servers

    def _load(self) -> None:
        for module in (*SERVERS.values(), "swift.proxy.server"):
            import_module(module)
        for part in PIPELINE.split()[:-1]:
            module = {"cache": "recon", "s3api": "s3api.s3api", "container-quotas": "container_quotas"}.get(part, part.replace("-", "_"))
            import_module("swift.common.middleware." + module)
        replication: Any = import_module("swift.common.db_replicator")
        # Pushing a whole database is the one thing that wants rsync; all devices are on one file system, so copying does.
        source = self._top / "srv"
        replication.Replicator._rsync_file = lambda me, broker, remote, **rest: bool(shutil.copyfile(broker.db_file, remote))
        replication.rsync_module_interpolation = lambda template, device: f"{source}/{device['device']}"
        gc.collect()
        gc.freeze()

    def _start(self, name: str) -> None:
        if name in self._pids:
            return
        if not port_is_free(self._port(name)):
            raise SystemExit(f"port {self._port(name)} of {name} is in use")
        module = SERVERS.get(name.rstrip("0123456789"), "swift.proxy.server")
        self._pids[name] = self._fork(name, partial(_main, module, name, [str(self._top / "etc" / f"{name}.conf"), "-v"]))

    def _fork(self, name: str, run: Callable[[], None]) -> int:
        sys.stdout.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            self._become(name, parent)
            run()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _become(self, name: str, parent: int) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # The servers call setsid, so to end the group would not reach them.
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(1, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        hubs = import_module("eventlet.hubs")
        if hasattr(hubs._threadlocal, "hub"):
            del hubs._threadlocal.hub
        if self._ear is not None:
            self._ear.close()
        log = os.open(self._top / "log" / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)

    def _port(self, name: str) -> int:
        kind = name.rstrip("0123456789")
        return self._shape.port if kind == "proxy" else ports(self._shape.base_port, int(name[len(kind) :]))[kind]

    def _wait_healthy(self, names: Sequence[str]) -> None:
        deadline = time.monotonic() + 30
        for name in names:
            while not _healthy(self._port(name)):
                self._reap()
                if name not in self._pids or time.monotonic() > deadline:
                    said = (self._top / "log" / f"{name}.log").read_text()[-1500:]
                    raise SystemExit(f"{name} did not become healthy: {said}")
                time.sleep(_BREATH)

    def _reap(self) -> None:
        for name, pid in list(self._pids.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._pids[name]

    def _sweep(self) -> None:
        """The daemons in turn, for ever: what a Swift that is used for longer wants."""
        while True:
            time.sleep(self._shape.sweep)
            for daemon in DAEMONS:
                self._once(daemon)

    # ---- the socket

    def _listen(self) -> None:
        (self._top / "ctl.sock").unlink(missing_ok=True)
        os.chdir(self._top)
        self._ear = _socket.socket(_socket.AF_UNIX)
        self._ear.bind("ctl.sock")
        Path("ctl.sock").chmod(0o600)
        self._ear.listen(4)

    def _serve(self) -> None:
        watched = [self._ear] + ([0] if self._guarded else [])
        while True:
            ready = select(watched, [], [], 1)[0]
            self._reap()
            if 0 in ready and not os.read(0, 4096):
                self._alone = True
                raise Stop
            if self._ear in ready:
                self._answer()

    def _answer(self) -> None:
        line = self._ear._accept()[0]
        try:
            with os.fdopen(line, "r+b", buffering=0) as wire:
                words = json.loads(wire.readline() or b'["ps"]')
                wire.write(json.dumps(self._told(words)).encode() + b"\n")
        except OSError:
            return
        if words == ["stop"]:
            raise Stop

    def _told(self, words: list[str]) -> dict[str, Any]:
        verbs: dict[str, Callable[..., Any]] = {
            "ps": self._ps,
            "kill": self._kill,
            "start": self._do_start,
            "once": self._once,
            "stop": str,
        }
        try:
            return {"ok": verbs[words[0]](*words[1:])}
        except (Exception, SystemExit) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _info(self) -> dict[str, Any]:
        here = f"http://{HOST}:{self._shape.port}"
        return {
            "auth_url": here + "/auth/v1.0",
            "user": "test:tester",
            "key": self._shape.key,
            "storage_url": here + "/v1/AUTH_test",
            "s3_endpoint": here,
            "s3_access_key": "test:tester",
            "s3_secret_key": self._shape.key,
            "s3_region": "us-east-1",
            "port": self._shape.port,
            "dir": str(self._top),
        }

    def _said(self) -> str:
        """The same for people."""
        info = self._info()
        return (
            "Swift is here until Ctrl-C. In another terminal:\n\n"
            f"    export IMG_STORE=swift://photos ST_AUTH={info['auth_url']} ST_USER={info['user']} ST_KEY={info['key']}\n"
            "    make serve\n"
        )

    def _end(self) -> None:
        """The proxy first, so that nothing is on its way to the others."""
        for name in sorted(self._pids, key=lambda name: name != "proxy"):
            with suppress(OSError):
                os.kill(self._pids[name], signal.SIGCONT)
                os.kill(self._pids[name], signal.SIGTERM)
        deadline = time.monotonic() + 5
        while self._pids and time.monotonic() < deadline:
            self._reap()
            time.sleep(_BREATH)
        for pid in self._pids.values():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        (self._top / "ctl.sock").unlink(missing_ok=True)


def _stop(*_: object) -> NoReturn:
    raise Stop


def _main(module: str, name: str, words: list[str]) -> None:
    sys.argv = [f"swift-{name}", *words]
    import_module(module).main()


def _healthy(port: int) -> bool:
    line = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        line.settimeout(2)
        line.connect((HOST, port))
        line.sendall(b"GET /healthcheck HTTP/1.0\r\nConnection: close\r\n\r\n")
        return line.recv(100).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False
    finally:
        line.close()
