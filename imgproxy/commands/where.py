"""Where the repository is that a command works with: on this machine, or behind a server that is asked over HTTP."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import click

from imgproxy.errors import BadSettings

if TYPE_CHECKING:
    from imgproxy.client import Commit, Difference, Found, Kept, Record, Session, Synced, Task, Verified
    from imgproxy.meta.following import Progress
    from imgproxy.wiring import Desk

_KEY = "imgproxy.server"
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Repository(Protocol):
    """What commands ask of a repository, wherever it is."""

    def upload(
        self, file: str | PathLike[str] | BinaryIO, *, session: str = "", progress: Callable[[int, int], object] = ..., **said: Any
    ) -> Kept:
        """Keep an original, with a record in a session."""

    def edit(self, hash: str, changes: Mapping[str, Any], *, session: str = "") -> Record:
        """Change what is said of an image."""

    def remove(self, hash: str, *, session: str = "") -> None:
        """Delete an image in a session."""

    def search(self, *, session: str = "", most: int | None = None, like: str = "", **wanted: Any) -> Iterator[Record]:
        """The records that are wanted."""

    def open_session(self, name: str = "", author: str = "") -> tuple[Session, bool]:
        """Open a session, or the one of that name; and whether it is new."""

    def sessions(self) -> list[Session]:
        """Every open session."""

    def diff(self, session: str = "") -> Iterator[Difference]:
        """What a session changes."""

    def take_back(self, hash: str, *, session: str = "") -> None:
        """Take back what a session makes of one record."""

    def discard(self, session: str = "") -> None:
        """Forget what a session changes."""

    def commit(self, session: str = "", *, message: str = "", author: str = "") -> Commit | None:
        """Make all of a session live."""

    def commits(self, most: int | None = None, of: str = "") -> Iterator[Commit]:
        """The newest commits, or those that made a record what it is."""

    def revert(self, n: int, *, author: str = "") -> Commit | None:
        """Go back on a commit by a new one."""

    def sync(
        self, *, repair: bool = False, delete_strays: bool = False, grace: float = ..., told: Callable[[Found], object] = ...
    ) -> Synced:
        """Compare the records with the originals, and mend them."""

    def verify(self, *, pace: float = ..., most: int = 0) -> Verified:
        """Hash the originals again."""

    def snapshot(self) -> int:
        """Write the whole database into the store."""

    def fetch(self, url: str, *, callback: str = "", **said: Any) -> Task:
        """Order a picture to be fetched."""

    def derive(self, *, callback: str = "", **wanted: Any) -> Task:
        """Order renditions to be made."""

    def missing(
        self, *, suffixes: Sequence[str] = (), presets: Sequence[str] = (), query: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        """The names of renditions of committed images that are not made."""

    def task(self, id: str) -> Task:
        """A task as it stands."""

    def tasks(self, *, state: str = "", kind: str = "", most: int | None = None) -> Iterator[Task]:
        """The tasks, the newest first."""

    def retry(self, id: str) -> Task:
        """Do a task again."""

    def wait(self, id: str, seconds: float | None = None) -> Task:
        """A task when it is finished, or as it stands after so many seconds."""

    def letters(self, most: int | None = None) -> Iterator[Task]:
        """The tasks whose callback could not be delivered."""

    def redeliver(self, id: str) -> Task:
        """Send a callback again."""

    def close(self) -> None:
        """Let go of it."""


def anywhere(command: _Command) -> _Command:
    """Give a command the option that says where its repository is."""
    return click.option(
        "--server",
        metavar="URL",
        expose_value=False,
        callback=lambda context, _, url: context.meta.__setitem__(_KEY, url or ""),
        help="Ask the server at this address, with the token of IMG_TOKEN; IMG_SERVER, or else the repository of this machine.",
    )(command)


def server() -> str:
    """The address of the server that this command is to ask; empty for the repository of this machine."""
    return str(click.get_current_context().meta.get(_KEY) or os.environ.get("IMG_SERVER", ""))


@contextmanager
def desk() -> Iterator[Desk]:
    """The house with its words, for as long as a command takes."""
    from imgproxy import wiring

    opened = wiring.furnish(wiring.settings_of(os.environ), os.environ, restoring)
    try:
        booted = opened.words.booted
        if booted.moved is not None:
            click.echo(f"warning: the local database was damaged and lies at {booted.moved} now; this one is from the store", err=True)
        warned(opened.words.follower.poll())  # what other nodes have committed meanwhile
        yield opened
    finally:
        opened.close()


def warned(progress: Progress) -> Progress:
    """What a poll did, and a warning if something is not forgotten yet."""
    if progress.hindered:
        click.echo(f"warning: deleted pictures are not forgotten yet: {progress.hindered}", err=True)
    return progress


def restoring(what: str, number: int) -> None:
    """Tell how a restore goes on."""
    if sys.stderr.isatty() or number % 100 == 0:
        click.echo(f"restoring: {what} {number}", err=True)


@contextmanager
def repository(passing: Callable[[str], object] = lambda _: None) -> Iterator[Repository]:
    """The repository of this command, for as long as it takes.

    One of this machine tells `passing` which hash a walk over all of them has come to.
    """
    if server():
        from imgproxy.client import Client

        with Client(server(), token()) as client:
            yield client
        return
    from imgproxy.commands.here import Here

    with desk() as opened:
        here = Here(opened, passing)
        try:
            yield here
        finally:
            here.close()


def token() -> str:
    """The token by which a server is asked: from the environment, or from a file that nobody else may read."""
    given = os.environ.get("IMG_TOKEN", "")
    if given:
        return given
    named = os.environ.get("IMG_TOKEN_FILE", "")
    path = Path(named) if named else Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "imgproxy" / "token"
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise BadSettings([f"token: others may read {path}: chmod 600 it"])
            return file.read(1024).decode("utf-8", "replace").strip()
    except OSError as error:
        if named:
            raise BadSettings([f"token: {path}: {error.strerror}"]) from error
        raise BadSettings([f"token: a server wants one: IMG_TOKEN, or a file that IMG_TOKEN_FILE names, or {path}"]) from error
