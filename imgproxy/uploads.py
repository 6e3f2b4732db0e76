"""An upload: an original into the store, and what is known of it into a session. Where the two wings of the house meet.

The original is there before anything is said of it, and nobody sees what is said before it is committed. Without a commit the original
stays, and sync finds it. From the one to the other nobody of this host takes the original away. To upload a picture again says something
of it again, for those who may say something of pictures at all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

from imgproxy.images import Added, Images, Sums
from imgproxy.meta import exif
from imgproxy.meta.record import Record, edited
from imgproxy.meta.repository import Words
from imgproxy.meta.sessions import Session
from imgproxy.picture import Study

_LEAVING = 5.0
_LOOK = 0.05
_ANY = Record("0" * 64, "png", 1, 1, 1)
"""Nobody in particular."""


class Uploaded(NamedTuple):
    """What became of an upload, and its record as its session shows it.

    `said` unless that says something else than it was to say; `first` if this upload gave the picture its record.
    """

    added: Added
    record: Record
    said: bool
    first: bool


class Uploads:
    """Puts originals into a repository, with words."""

    def __init__(self, images: Images, words: Words) -> None:
        self._images = images
        self._words = words

    def keep(
        self, file: BinaryIO, session: Session, said: Mapping[str, object], sums: Sums | None = None, *, edits: bool = True
    ) -> Uploaded:
        """Keep an original, and give it a record in a session, with what people say of it; one that has a record keeps it.

        What is wrong with the picture, or with what is said of it, is found before anything is kept. `sums` are those of the file, where
        they are known already. Unless somebody `edits`, what is said of a picture that has a record stays.
        """
        edited(_ANY, said)
        sums = sums or self._images.sums(file)
        with self._images.alone(sums.sha256):
            self._let_leave(sums.sha256)
            return self._kept(file, session, said, sums, edits=edits)

    def _let_leave(self, hash: str) -> None:
        """Let another node remove an original whose deletion it has just committed, or it would take away the one that comes now.

        If that takes long, so be it: should the new one be lost, its commit says so.
        """
        until = time.monotonic() + _LEAVING
        while self._words.follower.leaving(hash) and time.monotonic() < until:
            time.sleep(_LOOK)

    def _kept(self, file: BinaryIO, session: Session, said: Mapping[str, object], sums: Sums, *, edits: bool) -> Uploaded:
        sessions = self._words.sessions
        known = sessions.read(sums.sha256, session)
        deleted = None if known is not None or edits else sessions.read(sums.sha256)
        if deleted is not None:
            return Uploaded(self._images.add(file, sums), deleted, said=False, first=False)
        if known is not None:
            added = self._images.add(file, sums)
            if not said or not edits:
                return Uploaded(added, known, edited(known, said) == known, first=False)
            return Uploaded(added, sessions.say(session, lambda found: sessions.edit(found, known.hash, said)), said=True, first=False)
        study = self._images.look(file)
        added = self._images.add(file, sums, study.facts)
        record = edited(described(added, study), said)
        shown = sessions.say(session, lambda found: sessions.introduce(found, record, said, edits=edits))
        return Uploaded(added, shown, edited(shown, said) == shown, shown == record)

    def check(self, session: str, said: Mapping[str, object]) -> None:
        """Return if something of that kind could be said of an original in that session, before there is one."""
        self._words.sessions.find(session)
        edited(_ANY, said)

    def described(self, hash: str) -> Record:
        """The record of an original that is in the store and has none."""
        return described(*self._images.known(hash))


def described(added: Added, study: Study) -> Record:
    """All that the program finds out by itself."""
    shot = exif.read(study.exif)
    return Record(
        hash=added.name.hash,
        type=added.name.type,
        width=added.facts.width,
        height=added.facts.height,
        bytes=added.size,
        md5=added.md5,
        phash=study.phash,
        added_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        taken_at=shot.taken_at,
        image=shot.image,
    )
