"""A session for a `with`: committed when its block ends well, and forgotten when it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from imgproxy.client.answers import Commit, Difference, Kept, Record
from imgproxy.client.sending import Progress, unheard
from imgproxy.errors import Error

if TYPE_CHECKING:
    from imgproxy.client.client import Client, File


class OpenSession:
    """Changes that nobody else sees until they are committed, all at once.

    A block that fails forgets the session, unless others had opened it before under the same name: theirs is not ours to forget. A commit
    that is refused (`Conflict`) leaves it open. `committed` is the commit that it became.
    """

    def __init__(self, client: Client, name: str, message: str, author: str) -> None:
        self._client = client
        self._message = message
        self._author = author
        session, self._ours = client.open_session(name, author)
        self.id = session.id
        self.committed: Commit | None = None

    def __enter__(self) -> OpenSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.commit()
        elif self._ours:
            with suppress(Error):  # what went wrong first is what matters
                self.discard()

    def upload(self, file: File, *, progress: Progress = unheard, **said: Any) -> Kept:
        """Keep an original, with what is said of it; much of that, and tags with commas, only for who may `write`."""
        return self._client.upload(file, session=self.id, progress=progress, **said)

    def record(self, hash: str) -> Record:
        """What is said of an image, as this session shows it."""
        return self._client.record(hash, self.id)

    def edit(self, hash: str, changes: Mapping[str, Any], *, match: str | int | None = None) -> Record:
        """Change what is said of an image."""
        return self._client.edit(hash, changes, session=self.id, match=match)

    def remove(self, hash: str, *, match: str | int | None = None) -> None:
        """Delete an image."""
        self._client.remove(hash, session=self.id, match=match)

    def take_back(self, hash: str) -> None:
        """Take back what it makes of one record."""
        self._client.take_back(hash, session=self.id)

    def search(self, **wanted: Any) -> Iterator[Record]:
        """Search as this session shows the records."""
        return self._client.search(session=self.id, **wanted)

    def diff(self) -> Iterator[Difference]:
        """What it changes."""
        return self._client.diff(self.id)

    def commit(self) -> Commit | None:
        """Make all of it live; None if it changes nothing."""
        self.committed = self._client.commit(self.id, message=self._message, author=self._author)
        return self.committed

    def discard(self) -> None:
        """Forget it."""
        self._client.discard(self.id)
