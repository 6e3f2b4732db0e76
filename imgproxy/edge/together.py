"""nginx and gunicorn as one command: started, watched, reloaded and stopped together.

    SIGTERM, SIGINT   nginx takes nothing new and finishes what is in flight, then gunicorn does; a second one ends both at once;
                      the worker beside them ends meanwhile
    SIGHUP            the settings are read again: nginx gets a new configuration, gunicorn new workers, and another worker begins
                      beside them; what is in flight goes on
    one of them dies  the other is stopped, and so are we, with 1: whoever started us starts both again; the workers of an nginx that was
                      killed are ended with it, for they would keep the port
    we are killed     the system tells both to stop

gunicorn is there first, so that nobody is ever refused for having come early. What nginx complains of comes through a pipe of ours and
becomes lines like all others. Its lines of answers go straight to where ours go; if that cannot be opened twice, they come through the
pipe as well.
"""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from imgproxy import keeper, observe, wiring
from imgproxy.config import Settings
from imgproxy.edge.nginx import configuration, folder
from imgproxy.errors import BadSettings
from imgproxy.knocking import is_well

_PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/bin"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_WHOLE = 4096
"""So many bytes a pipe takes in one piece, whoever else writes into it."""


def nginx() -> str:
    """Where nginx is; raise `BadSettings` if it is not installed."""
    found = shutil.which("nginx", path=_PLACES)
    if found is None:
        raise BadSettings(["edge: nginx is not installed here (apt-get install nginx); without edge everything works, and hits are slower"])
    return found


def serve(settings: Settings, gunicorn: list[str], environ: MutableMapping[str, str]) -> int:
    """Run both until they are told to stop, or one of them dies; what to leave with."""
    program = nginx()
    folder(settings).mkdir(parents=True, exist_ok=True, mode=0o700)
    _warn_of_blindness(settings)
    with only_one(folder(settings) / "lock"):
        write_configuration(settings, program)
        return Both(settings, program, gunicorn, environ).run()


def _warn_of_blindness(settings: Settings) -> None:
    """Say so if the tier cannot see what nginx reads: then it gives up what was stored longest ago, however often that is read."""
    tier = wiring.published(settings)
    place = next((place for place in (tier, *tier.parents) if place.exists()), None) if tier is not None else None
    if place is not None and os.statvfs(place).f_flag & os.ST_NOATIME:
        observe.event(
            "the local tier is mounted noatime, and does not see what nginx reads", {"mend": "mount it relatime"}, level="warning"
        )


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Raise `BadSettings` if another one serves out of the same directory: it would lose its socket to us."""
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadSettings([f"data: another nginx and gunicorn serve out of {lock.parents[2]}"]) from None
        yield


def write_configuration(settings: Settings, program: str) -> None:
    """Write the configuration, if nginx takes it.

    Even to judge it nginx listens for a moment, and hangs up on who came. So it judges one that listens where nobody comes.
    """
    text = configuration(settings, "64k" if stat.S_ISREG(os.fstat(sys.stderr.fileno()).st_mode) else "4k")
    place, number = folder(settings), count()
    new = place / "nginx.conf.new"
    new.write_text(re.sub(r"(?m)^( *listen) .*;$", lambda line: f"{line[1]} unix:judged-{next(number)};", text))
    done = subprocess.run([*command(settings, program, new), "-t"], cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadSettings([f"edge: {line}" for line in done.stderr.splitlines() if "[emerg]" in line] or [f"edge: {done.stderr}"])
    new.write_text(text)
    new.rename(_conf(settings))


def _conf(settings: Settings) -> Path:
    return folder(settings) / "nginx.conf"


def command(settings: Settings, program: str, conf: Path | None = None) -> list[str]:
    """nginx in the foreground, as the user that we are."""
    words = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    return [program, "-e", "stderr", "-p", str(folder(settings)), "-c", str(conf or _conf(settings)), "-g", words]


class Both:
    """The two of them, and the one loop that watches over both."""

    def __init__(self, settings: Settings, program: str, gunicorn: list[str], environ: MutableMapping[str, str]) -> None:
        self._settings = settings
        self._program = program
        self._gunicorn_command = gunicorn
        self._environ = environ
        self._gunicorn: subprocess.Popen[bytes] | None = None
        self._nginx: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._deadline = float("inf")
        self._code = 0
        self._said = Lines()

    def run(self) -> int:
        """Start, watch, stop."""
        woken, wake = os.pipe()
        said, say = os.pipe()
        for end in (woken, wake, said):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        self._gunicorn = started(self._gunicorn_command, signal.SIGTERM, env=keeper.unkept(self._environ))
        with selectors.DefaultSelector() as ready:
            ready.register(woken, selectors.EVENT_READ, lambda: self._heed(os.read(woken, 1024)))
            ready.register(said, selectors.EVENT_READ, lambda: self._said.add(os.read(said, 65536)))
            while self._gunicorn is not None or self._nginx is not None:
                if self._nginx is None and not self._stopping and is_well(f"unix:{self._settings.edge_socket}"):
                    self._nginx = started_apart(command(self._settings, self._program), stdout=_log(say), stderr=say)
                for key, _ in ready.select(self._patience()):
                    key.data()
                if time.monotonic() > self._deadline:
                    self._end_now()
        return self._code

    def _patience(self) -> float | None:
        """How long nothing may happen before we look around by ourselves."""
        if self._nginx is None and not self._stopping:
            return 0.02
        return None if self._deadline == float("inf") else max(0.0, self._deadline - time.monotonic()) + 0.01

    def _heed(self, numbers: bytes) -> None:
        for number in dict.fromkeys(numbers):
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self._reload()
            elif self._stopping:
                self._end_now()
            else:
                self._stop()

    def _reap(self) -> None:
        """See who has died; as the first process of a container, also of those that nobody else waits for."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if not self._stopping and keeper.buried(self._environ, pid, status):
                observe.event("the keeper of the worker was killed, and is replaced", {}, level="error")
            for name in ("_gunicorn", "_nginx"):
                child = getattr(self, name)
                if child is not None and child.pid == pid:
                    child.returncode = os.waitstatus_to_exitcode(status)
                    setattr(self, name, None)
                    if name == "_nginx":
                        end_workers(child)
                    self._mourn(name[1:], child.returncode)

    def _mourn(self, name: str, code: int) -> None:
        if not self._stopping:
            observe.event(f"{name} is gone, and so is the other", {"code": code}, level="error")
            self._code = 1
            self._stop()
        elif self._nginx is None and self._gunicorn is not None:
            _signal(self._gunicorn, signal.SIGTERM)
            self._deadline = time.monotonic() + self._settings.grace + 2

    def _stop(self) -> None:
        """Let nginx finish, and gunicorn after it."""
        self._stopping = True
        keeper.stop(self._environ)
        self._deadline = time.monotonic() + self._settings.grace + 2
        if self._nginx is not None:
            _signal(self._nginx, signal.SIGQUIT)
        elif self._gunicorn is not None:
            _signal(self._gunicorn, signal.SIGTERM)

    def _end_now(self) -> None:
        self._deadline = time.monotonic() + 5
        for child, number in ((self._nginx, signal.SIGTERM), (self._gunicorn, signal.SIGQUIT)):
            if child is not None:
                _signal(child, number)

    def _reload(self) -> None:
        """Take up new settings; those that are wrong change nothing."""
        if self._nginx is None or self._gunicorn is None or self._stopping:
            return
        try:
            settings = read_again(self._settings, self._environ)
            write_configuration(settings, self._program)
        except BadSettings as error:
            observe.event("the new settings are wrong, and the old ones stay", {"why": str(error)}, level="error")
            return
        self._settings = settings
        _signal(self._gunicorn, signal.SIGHUP)
        _signal(self._nginx, signal.SIGHUP)
        keeper.renew(self._environ)


def read_again(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """The settings as they are by now; raise `BadSettings` if they are wrong, or cannot follow those."""
    new = wiring.settings_of(environ)
    if new.edge_socket != settings.edge_socket or new.data != settings.data:
        raise BadSettings(["data, edge_socket: cannot change while we serve"])
    return new


class Lines:
    """What nginx says, a piece at a time: passed on by whole lines; what is none of our own lines becomes one."""

    def __init__(self, write: Callable[[bytes], object] = lambda data: os.write(sys.stderr.fileno(), data)) -> None:
        self._write = write
        self._rest = b""

    def add(self, data: bytes) -> None:
        """Pass on what is whole by now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        piece = b""
        for line in lines:
            if not line.startswith(b"{"):
                _complained(line.decode("utf-8", "replace"))
                continue
            if len(piece) + len(line) >= _WHOLE:
                self._out(piece)
                piece = b""
            piece += line + b"\n"
        self._out(piece)

    def _out(self, piece: bytes) -> None:
        with suppress(OSError):
            if piece:
                self._write(piece)


def _complained(line: str) -> None:
    match = re.match(r"(?:[0-9/]+ [0-9:]+ |nginx: )\[([a-z]+)\] (.*)", line)
    level = "warning" if match is None or match[1] in ("warn", "notice", "info") else "error"
    observe.event("nginx says", {"words": match[2] if match else line}, level=level)


def _log(pipe: int) -> int:
    """Where nginx may write its log: our standard error, if it can be opened a second time, at its end; else a pipe."""
    try:
        flags = fcntl.fcntl(sys.stderr, fcntl.F_GETFL)
        fcntl.fcntl(sys.stderr, fcntl.F_SETFL, flags | os.O_APPEND)
        with Path("/dev/stderr").open("ab"):
            return sys.stderr.fileno()
    except (OSError, ValueError):
        return pipe


def started_apart(command: list[str], **streams: int) -> subprocess.Popen[bytes]:
    """An nginx whose workers are found by its number whatever becomes of itself; it ends properly should we be gone."""
    return started(command, signal.SIGQUIT, env=None, process_group=0, **streams)


def end_workers(nginx: subprocess.Popen[bytes]) -> None:
    """End those whom an nginx that was killed has left behind: they would keep the port, and answer on."""
    if nginx.returncode < 0:
        with suppress(ProcessLookupError):
            os.killpg(nginx.pid, signal.SIGKILL)


def started(command: list[str], last_word: int, *, env: Mapping[str, str] | None = None, **streams: int) -> subprocess.Popen[bytes]:
    """A child that gets that signal should we be gone."""
    said = dict(env) if env else None
    return subprocess.Popen(command, env=said, stdin=subprocess.DEVNULL, preexec_fn=keeper.tied(last_word), **streams)  # type: ignore[call-overload, no-any-return]


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child.pid, number)
