"""A repository on this machine, as commands speak to it: over the desk, with the settings and stores of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from imgproxy.client import Commit, Difference, Found, Kept, Record, Session, Synced, Task, Verified
from imgproxy.client.answers import value_of
from imgproxy.errors import BadRecord, Missing, NoTask

if TYPE_CHECKING:
    from imgproxy.jobs import Task as Ordered
    from imgproxy.jobs import Tasks
    from imgproxy.jobs.orders import Order
    from imgproxy.meta.bulk import Imported
    from imgproxy.meta.commits import Commit as Made
    from imgproxy.meta.sessions import Session as Opened
    from imgproxy.wiring import Desk

_PAGE = 200


class Here:
    """What `Client` does elsewhere, done here."""

    def __init__(self, desk: Desk, passing: Callable[[str], object] = lambda _: None) -> None:
        self._desk = desk
        self._passing = passing
        self._words = desk.words
        self._writes = False

    def close(self) -> None:
        """After a commit, let another node write."""
        if self._writes:
            self._desk.step_down()

    # ---- images

    def upload(
        self,
        file: str | PathLike[str] | BinaryIO,
        *,
        session: str = "",
        progress: Callable[[int, int], object] = lambda *_: None,
        **said: Any,
    ) -> Kept:
        """Keep an original, with a record in a session."""
        found = self._words.sessions.find(session)
        with ExitStack() as opened:
            source = file if not isinstance(file, str | PathLike) else opened.enter_context(Path(file).open("rb"))
            done = self._desk.uploads.keep(source, found, said)
        progress(done.added.size, done.added.size)
        name = done.added.name
        return Kept(name.hash, str(name), f"/{name}", done.added.new)

    def take_in(self, records: Iterable[Record], session: str = "") -> Imported:
        """Take records into a session, of originals that are in the store; those of which there is one already are left alone."""
        from imgproxy.meta.bulk import bulk

        return bulk(self._words.database, self._words.sessions.find(session), records)

    def edit(self, hash: str, changes: Mapping[str, Any], *, session: str = "") -> Record:
        """Change what is said of an image; `user` is merged name by name."""
        from imgproxy.meta.record import edited

        sessions = self._words.sessions

        def change(found: Opened) -> Record:
            return sessions.rework(found, hash, lambda record: edited(record, _merged(record, changes)))

        return sessions.say(sessions.find(session), change)

    def remove(self, hash: str, *, session: str = "") -> None:
        """Delete an image in a session."""
        sessions = self._words.sessions
        sessions.say(sessions.find(session), lambda found: sessions.delete(found, hash))

    def search(self, *, session: str = "", most: int | None = None, like: str = "", **wanted: Any) -> Iterator[Record]:
        """The records that are wanted."""
        return self._like(like, most or _PAGE) if like else self._found(session, most, wanted)

    def _found(self, session: str, most: int | None, wanted: Mapping[str, Any]) -> Iterator[Record]:
        from imgproxy.meta import query

        asked = query.read({name: value for name, value in wanted.items() if value})
        inside = self._words.sessions.find(session) if session else None
        cursor, left = "", most
        while left is None or left > 0:
            page = self._words.search.page(asked, most=_PAGE if left is None else min(left, _PAGE), cursor=cursor, session=inside)
            yield from page.records
            cursor, left = page.cursor, None if left is None else left - len(page.records)
            if not cursor:
                return

    def _like(self, hash: str, most: int) -> Iterator[Record]:
        from imgproxy.meta.near import near

        record = self._words.sessions.read(hash)
        if record is None:
            raise Missing("no record of that hash")
        if not record.phash:
            raise BadRecord("like", "names an image of which no perceptual hash is known")
        for found in near(self._words.database, record.phash, most=most):
            if found.record.hash != hash:
                yield found.record

    # ---- sessions and commits

    def open_session(self, name: str = "", author: str = "") -> tuple[Session, bool]:
        """Open a session, or the one of that name; and whether it is new."""
        before = {one.id for one in self._words.sessions.all()}
        opened = self._words.sessions.open(name, author)
        return self._session(opened), opened.id not in before

    def sessions(self) -> list[Session]:
        """Every open session."""
        return [self._session(one) for one in self._words.sessions.all()]

    def _session(self, one: Opened) -> Session:
        return Session(one.id, one.name, one.author, one.opened, self._words.sessions.size(one))

    def diff(self, session: str = "") -> Iterator[Difference]:
        """What a session changes."""
        for one in self._words.sessions.diff(self._words.sessions.find(session)):
            yield Difference(one.hash, one.before, one.after, one.stale)

    def take_back(self, hash: str, *, session: str = "") -> None:
        """Take back what a session makes of one record."""
        if not self._words.sessions.forget(self._words.sessions.find(session), hash):
            raise Missing("the session does not change that record")

    def discard(self, session: str = "") -> None:
        """Forget what a session changes."""
        self._words.sessions.discard(self._words.sessions.find(session))

    def commit(self, session: str = "", *, message: str = "", author: str = "") -> Commit | None:
        """Make all of a session live."""
        self._writes = True
        made = self._words.commits.commit(self._words.sessions.find(session).id, author, message)
        return self._made(made)

    def _made(self, made: Made | None) -> Commit | None:
        """What follows from a commit, and what is told of it."""
        if made is not None:
            self._let_go()
            if self._words.snapshots.due():
                self._words.snapshots.take()
        return _commit(made)

    def _let_go(self) -> None:
        hindered = self._words.farewell.begin()
        if hindered:
            click.echo(f"warning: {hindered}", err=True)

    def commits(self, most: int | None = None, of: str = "") -> Iterator[Commit]:
        """The newest commits, or those that made a record what it is."""
        commits, many = self._words.commits, 2**62 if most is None else most
        entries = (entry for entry, _ in commits.history(of, many)) if of else commits.log(most=many)
        for entry in entries:
            made = _commit(entry)
            assert made is not None
            yield made

    def revert(self, n: int, *, author: str = "") -> Commit | None:
        """Go back on a commit by a new one."""
        self._writes = True
        return self._made(self._words.commits.undo(n, self._words.sessions, author))

    # ---- upkeep

    def sync(
        self,
        *,
        repair: bool = False,
        delete_strays: bool = False,
        grace: float = 86_400.0,
        told: Callable[[Found], object] = lambda _: None,
    ) -> Synced:
        """Compare the records with the originals, and mend them."""
        from imgproxy.meta.sync import Repairs, Sync

        self._writes = True
        facts = self._desk.uploads.described
        repairs = Repairs(lost=True, stray="delete" if delete_strays else "adopt", facts=facts) if repair else Repairs()
        words = self._words
        sync = Sync(words.chain, words.commits, self._desk.house.base, alone=words.originals.alone, grace=grace)
        tally = sync.run(repairs, lambda one: told(Found(one.kind, one.key)), self._passing)
        alone = self._orphans(told, repair=repair)
        self._let_go()
        return Synced({**tally.numbers, "orphan": alone}, not any(tally[kind] for kind in ("lost", "stray", "odd")))

    def _orphans(self, told: Callable[[Found], object], *, repair: bool) -> int:
        from imgproxy import wiring
        from imgproxy.meta.sync import orphans

        derived, count = wiring.derived_of(self._desk.house), 0
        for key in orphans(self._desk.house.base, derived) if derived is not None else ():
            told(Found("orphan", key))
            count += 1
            if repair and derived is not None:
                derived.delete(key)
        return count

    def verify(self, *, pace: float = 20.0, most: int = 0) -> Verified:
        """Hash the originals again, so many megabytes a second."""
        from imgproxy.meta.verify import Verify

        self._writes = True
        words = self._words
        verify = Verify(words.chain, self._desk.house.base, words.commits.catch_up, words.originals.alone, pace=pace * 1e6)
        done = verify.run(most=most or None, passing=self._passing)
        return Verified(done.originals, done.bytes, done.quarantined, done.whole)

    def snapshot(self) -> int:
        """Write the whole database into the store; the commit that it stands at."""
        return self._words.snapshots.take()

    # ---- tasks

    def fetch(self, url: str, *, callback: str = "", **said: Any) -> Task:
        """Order a picture to be fetched."""
        from imgproxy.jobs.orders import Fetch

        return self._ordered(Fetch(url=url, **said), callback)

    def derive(self, *, callback: str = "", **wanted: Any) -> Task:
        """Order renditions to be made."""
        from imgproxy.jobs.orders import Derive

        return self._ordered(Derive(**wanted), callback)

    def _ordered(self, order: Order, callback: str) -> Task:
        return _task(self._desk.jobs.submit(order, callback=callback, author=os.environ.get("USER", "")))

    def missing(
        self, *, suffixes: Sequence[str] = (), presets: Sequence[str] = (), query: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        """The names of renditions of committed images that are not made."""
        return self._desk.jobs.missing(tuple(suffixes), tuple(presets), query or {})

    def task(self, id: str) -> Task:
        """A task as it stands."""
        found = self._desk.jobs.find(id)
        if found is None:
            raise NoTask("no such task is known")
        return _task(found)

    def tasks(self, *, state: str = "", kind: str = "", most: int | None = None) -> Iterator[Task]:
        """The tasks, the newest first."""
        return _paged(lambda many, cursor: self._desk.jobs.all(state=state, kind=kind, most=many, cursor=cursor), most)

    def retry(self, id: str) -> Task:
        """Do a task again that failed, or was done with a warning."""
        return _task(self._desk.jobs.retry(id))

    def wait(self, id: str, seconds: float | None = None) -> Task:
        """A task when it is finished, or as it stands after so many seconds."""
        return _task(self._desk.jobs.wait(id, float("inf") if seconds is None else seconds))

    def letters(self, most: int | None = None) -> Iterator[Task]:
        """The tasks whose callback could not be delivered, the newest first."""
        return _paged(lambda many, cursor: self._desk.jobs.dead_letters(most=many, cursor=cursor), most)

    def redeliver(self, id: str) -> Task:
        """Send a callback again that could not be delivered."""
        return _task(self._desk.jobs.redeliver(id))


def _task(task: Ordered) -> Task:
    from imgproxy.jobs import shown

    return value_of(Task, shown(task))


def _paged(page: Callable[[int, str], Tasks], most: int | None) -> Iterator[Task]:
    cursor, left = "", most
    while left is None or left > 0:
        found = page(_PAGE if left is None else min(left, _PAGE), cursor)
        yield from map(_task, found.tasks)
        cursor, left = found.cursor, None if left is None else left - len(found.tasks)
        if not cursor:
            return


def _commit(made: Made | None) -> Commit | None:
    if made is None:
        return None
    return Commit(made.n, made.hash, made.session, made.author, made.message, made.time, made.changes)


def _merged(record: Record, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    user = changes.get("user")
    return {**changes, "user": {**record.user, **user}} if isinstance(user, Mapping) else changes
