"""The tokens of one node, in a file: their names, their scopes, and the SHA-256 of each.

The file is written beside and renamed, so that a reader sees all of it or none; it is read again when it changed, so that what is
revoked opens nothing any more, in any process, from that moment on. Who cannot read it lets nobody in.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from imgproxy.errors import BadRecord, Missing, StoreDown, StoreFull
from imgproxy.security import SCOPES, Grant, Tokens, digest_of, new_token

_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_FIRST = "admin"


class TokenFile:
    """The tokens below a data directory, and the one that the environment names."""

    def __init__(self, data: Path, given: str = "") -> None:
        self._path = data / "tokens.json"
        self.first = data / "admin.token"
        self._given = (Grant("environment", digest_of(given), frozenset(("admin",))),) if given else ()
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._tokens = Tokens(self._given)

    def opened(self, token: str) -> Grant:
        """What the bearer of a token may do just now, or `Stranger`."""
        return self._current().opened(token, time.time())

    def all(self) -> list[Grant]:
        """Every token of the file, in the order they were made."""
        return _read(self._path)

    def add(self, name: str, scopes: Sequence[str], expires: float | None = None) -> str:
        """Make a token; it is told this once, and kept nowhere."""
        if not _NAME.fullmatch(name):
            raise BadRecord("name", "is not 1 to 64 letters, digits and . _ @ -")
        if not scopes or not set(scopes) <= set(SCOPES):
            raise BadRecord("scope", f"is none of {', '.join(SCOPES)}")
        token = new_token()
        with self._changing() as grants:
            if any(grant.name == name for grant in grants):
                raise BadRecord("name", "is taken")
            grants.append(Grant(name, digest_of(token), frozenset(scopes), expires))
        return token

    def revoke(self, name: str) -> None:
        """Let a token open nothing any more, or raise `Missing`."""
        with self._changing() as grants:
            left = [grant for grant in grants if grant.name != name]
            if len(left) == len(grants):
                raise Missing("no token of that name")
            grants[:] = left
        if name == _FIRST:
            self.first.unlink(missing_ok=True)

    def begin(self) -> bool:
        """Where there is no token at all, make one for everything, and write it into a file that only its owner may read."""
        if self._given or self._path.exists():
            return False
        with self._changing() as grants:
            if grants:
                return False
            token = new_token()
            _write(self.first, f"{token}\n")
            grants.append(Grant(_FIRST, digest_of(token), frozenset(("admin",))))
        return True

    def _current(self) -> Tokens:
        seen = _identity(self._path)
        with self._lock:
            if seen != self._seen:
                self._tokens = Tokens([*self._given, *_read(self._path)])
                self._seen = seen
            return self._tokens

    @contextmanager
    def _changing(self) -> Iterator[list[Grant]]:
        """What is there, to be changed by one at a time; it is written when the block is left without an error."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            grants = _read(self._path)
            yield grants
            said = [{"name": one.name, "sha256": one.digest, "scopes": sorted(one.scopes), "expires": one.expires} for one in grants]
            _write(self._path, json.dumps({"tokens": said}, indent=1) + "\n")


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes when the file does; None if there is none."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreDown("the tokens cannot be read") from error
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _read(path: Path) -> list[Grant]:
    try:
        said = json.loads(path.read_bytes())
        return [Grant(str(one["name"]), str(one["sha256"]), frozenset(one["scopes"]), one["expires"]) for one in said["tokens"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreDown("the tokens cannot be read") from error


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StoreFull("no room to write the tokens down") from error
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
