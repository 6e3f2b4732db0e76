"""The client: everything that the doors for writing offer, as methods."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from imgproxy.client.answers import Commit, Difference, Found, Kept, Record, Session, Status, Synced, Task, Verified, record_of, value_of
from imgproxy.client.asking import Asking, Patience, Question
from imgproxy.client.saying import shared_out
from imgproxy.client.sending import Parcel, Progress, metadata, send_in_parts, send_whole, unheard
from imgproxy.client.session import OpenSession
from imgproxy.errors import CallFailed, Missing, NoSession, SessionClosed

PART = 8 * 2**20
"""A file that is larger is sent in parts of so many bytes, which survive an interruption."""

_PAGE = 200
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0

File = str | PathLike[str] | BinaryIO


class Client:
    """One repository, by the bearer of a token. May be used by many threads, and must be closed, or used in a `with`."""

    def __init__(self, url: str, token: str = "", *, patience: Patience = Patience(), part: int = PART) -> None:  # noqa: B008 - frozen
        self._asking = Asking(url, token, patience)
        self._part = part

    def __repr__(self) -> str:
        return f"Client({self._asking.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._asking.close()

    # ---- images

    def upload(self, file: File, *, session: str = "", progress: Progress = unheard, **said: Any) -> Kept:
        """Keep an original: a path, or an open file from its beginning; `said` are fields of its record, such as `title` or `tags`.

        What does not fit into the upload, some 4,000 bytes together, or a tag with a comma, is said right after it, by `edit`: for that
        the token has to be for `write`, too.
        """
        with ExitStack() as opened:
            source = file if not isinstance(file, str | PathLike) else opened.enter_context(Path(file).open("rb"))
            parcel = Parcel.of(source)
            if parcel.size > self._part:
                now, later = shared_out(said, lambda one: len(metadata(parcel, _texts(session, one))))
                kept = send_in_parts(self._asking, parcel, _texts(session, now), self._part, progress)
            else:
                now, later = shared_out(said, lambda one: len(urlencode(_query(session=session, **one), doseq=True)))
                kept = send_whole(self._asking, parcel, _query(session=session, **now), progress)
        if later:
            self.edit(kept.hash, later, session=session)
        return kept

    @contextmanager
    def picture(self, name: str) -> Iterator[Iterator[bytes]]:
        """The picture of that name, piece by piece, while the block runs."""
        with self._asking.open(Question("GET", f"/{name}")) as answer:
            yield answer.chunks()

    def record(self, hash: str, session: str = "") -> Record:
        """What is said of an image, live or as a session shows it; raise `Missing` if nothing is."""
        return record_of(self._get(f"/admin/images/{_part(hash)}", session=session))

    def tagged(self, hash: str, session: str = "") -> tuple[Record, str]:
        """The same, and what stands for this very state of it: `edit` and `remove` take it as `match`."""
        heard = self._asking.ask(Question("GET", f"/admin/images/{_part(hash)}", _query(session=session)))
        return record_of(heard.json()), heard.headers.get("etag", "")

    def edit(self, hash: str, changes: Mapping[str, Any], *, session: str = "", match: str | int | None = None) -> Record:
        """Change what is said of an image: None takes away what was said, `user` is merged name by name.

        With `match`, a version or what `tagged` has told, only if it still stands at that; else raise `Changed`.
        """
        headers = {"content-type": "application/merge-patch+json", **_if_match(match)}
        question = Question("PATCH", f"/admin/images/{_part(hash)}", _query(session=session), headers, _json(changes), again=match is None)
        return record_of(self._asking.ask(question).json())

    def remove(self, hash: str, *, session: str = "", match: str | int | None = None) -> None:
        """Delete an image: its record with the commit of the session, its original after it."""
        self._asking.ask(Question("DELETE", f"/admin/images/{_part(hash)}", _query(session=session), _if_match(match)))

    def search(self, *, session: str = "", most: int | None = None, **wanted: Any) -> Iterator[Record]:
        """The records that are wanted, page by page: `words`, `tags`, `taken_from`, `taken_to`, `type`, `like` and the rest."""
        pages = self._pages("/admin/images", "images", most, _query(session=session, **wanted))
        return (record_of(one) for one in pages)

    # ---- sessions and commits

    def session(self, name: str = "", *, message: str = "", author: str = "") -> OpenSession:
        """Open a session, or the one of that name, for a `with`: committed when the block ends well."""
        return OpenSession(self, name, message, author)

    def open_session(self, name: str = "", author: str = "") -> tuple[Session, bool]:
        """Open a session, or the one of that name; and whether it is new."""
        heard = self._asking.ask(_post("/admin/sessions", {"name": name, "author": author}, again=bool(name)))
        return value_of(Session, heard.json()), heard.status == 201

    def sessions(self) -> list[Session]:
        """Every open session."""
        return [value_of(Session, one) for one in _listed(self._get("/admin/sessions"), "sessions")]

    def find_session(self, which: str = "") -> Session:
        """The open session of that id or name; or the default session."""
        if not which or _plain(which):
            return value_of(Session, self._get(f"/admin/sessions/{which or 'default'}"))
        found = next((one for one in self.sessions() if which in (one.id, one.name)), None)
        if found is None:
            raise NoSession(f"no session {which!r} is open")
        return found

    def _session(self, which: str) -> str:
        """What stands for a session in a path: its name if that may stand there as it is, else its id."""
        return (which if _plain(which) else self.find_session(which).id) if which else "default"

    def diff(self, session: str = "") -> Iterator[Difference]:
        """What a session changes, record by record."""
        for one in self._pages(f"/admin/sessions/{self._session(session)}/diff", "differences", None, {}, "after"):
            before, after = (record_of(one[side]) if one[side] is not None else None for side in ("before", "after"))
            yield Difference(one["hash"], before, after, bool(one["stale"]))

    def take_back(self, hash: str, *, session: str = "") -> None:
        """Take back what a session makes of one record, so that it shows what is live: the way out of a conflict."""
        self._asking.ask(Question("DELETE", f"/admin/sessions/{self._session(session)}/changes/{_part(hash)}"))

    def discard(self, session: str = "") -> None:
        """Forget what a session changes."""
        self._asking.ask(Question("DELETE", f"/admin/sessions/{self._session(session)}"))

    def commit(self, session: str = "", *, message: str = "", author: str = "") -> Commit | None:
        """Make all of a session live, at one moment and for good; None if it changes nothing."""
        try:
            id = self.find_session(session).id  # asked again by its id, a session answers with the commit that it became
        except SessionClosed:
            id = session
        return self._committed("/admin/commit", _query(session=id, message=message, author=author), again=True)

    def commits(self, most: int | None = None, of: str = "") -> Iterator[Commit]:
        """The commits, the newest first; or those that made the record `of` an image what it is."""
        for one in self._pages("/admin/commits", "commits", most, _query(of=of), "before"):
            yield value_of(Commit, one)

    def revert(self, n: int, *, author: str = "") -> Commit | None:
        """Go back on a commit by a new one; None if there is nothing left of it."""
        return self._committed(f"/admin/commits/{n}/revert", _query(author=author))

    def _committed(self, path: str, query: Mapping[str, Any], *, again: bool = False) -> Commit | None:
        told = self._asking.ask(_post(path, None, query, again=again, slow=True)).json()
        return value_of(Commit, told) if isinstance(told, dict) and told.get("n") is not None else None

    # ---- upkeep and tasks

    def status(self) -> Status:
        """How the repository is."""
        return value_of(Status, self._get("/admin/status"))

    def sync(
        self,
        *,
        repair: bool = False,
        delete_strays: bool = False,
        grace: float = 86_400.0,
        told: Callable[[Found], object] = lambda _: None,
    ) -> Synced:
        """Compare the records with the originals, and mend them; `told` hears what differs (of very much, the first)."""
        done = self._done("/admin/sync", _query(repair=repair, delete_strays=delete_strays, grace=grace))
        for one in _listed(done, "found"):
            told(value_of(Found, one))
        return value_of(Synced, done)

    def sync_later(self, *, repair: bool = False, delete_strays: bool = False, grace: float = 86_400.0) -> Task:
        """The same as a task, for what may take hours."""
        return self._later("/admin/sync", repair=repair, delete_strays=delete_strays, grace=grace)

    def verify(self, *, pace: float = 20.0, most: int = 0) -> Verified:
        """Hash the originals again, so many megabytes a second, going on where the last run stopped."""
        return value_of(Verified, self._done("/admin/verify", {"pace": pace, "most": most}))

    def verify_later(self, *, pace: float = 20.0, most: int = 0) -> Task:
        """The same as a task."""
        return self._later("/admin/verify", pace=pace, most=most)

    def snapshot(self) -> int:
        """Write the whole database into the store; the commit that it stands at."""
        return int(self._done("/admin/snapshot", {}).get("n") or 0)

    def snapshot_later(self) -> Task:
        """The same as a task."""
        return self._later("/admin/snapshot")

    def _done(self, path: str, query: Mapping[str, Any]) -> Mapping[str, Any]:
        told = self._asking.ask(_post(path, None, query, slow=True)).json()
        return told if isinstance(told, Mapping) else {}

    def _later(self, path: str, **said: Any) -> Task:
        return value_of(Task, self._asking.ask(_post(path, None, {**_query(**said), "wait": "false"})).json())

    def fetch(self, url: str, *, callback: str = "", **said: Any) -> Task:
        """Have the server fetch a picture: `session`, `title`, `tags`, `domain`, `dkey`, `suffixes`, `presets`, `page_url`, `user`."""
        return self._task("/admin/fetch", {"url": url, "callback": callback, **said})

    def derive(self, *, callback: str = "", **wanted: Any) -> Task:
        """Have renditions made: `suffixes` and `presets` of `hashes`, of what a `query` finds or of all; `names`; or what is `missing`.

        An empty list of `hashes` is refused: it does not mean all.
        """
        path = "/admin/derive/missing" if wanted.pop("missing", False) else "/admin/derive"
        return self._task(path, {"callback": callback, **wanted})

    def missing(
        self, *, suffixes: Sequence[str] = (), presets: Sequence[str] = (), query: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        """The names of renditions of committed images that are not made."""
        after = ""
        while True:
            said = _query(**(query or {}), suffix=list(suffixes), preset=list(presets), most=_PAGE, after=after)
            page = self._get("/admin/derive/missing", **said)
            names = _listed(page, "names")
            yield from names
            if not page.get("more") or not names:
                return
            after = names[-1]

    def task(self, id: str) -> Task:
        """A task as it stands."""
        return value_of(Task, self._get(f"/admin/tasks/{_part(id)}"))

    def tasks(self, *, state: str = "", kind: str = "", most: int | None = None) -> Iterator[Task]:
        """The tasks, the newest first."""
        return (value_of(Task, one) for one in self._pages("/admin/tasks", "tasks", most, _query(state=state, kind=kind)))

    def retry(self, id: str) -> Task:
        """Do a task again that failed, or was done with a warning."""
        return value_of(Task, self._asking.ask(_post(f"/admin/tasks/{_part(id)}/retry", None)).json())

    def wait(self, id: str, seconds: float | None = None) -> Task:
        """A task when it is finished, or as it stands after so many seconds."""
        until, pause = time.monotonic() + (float("inf") if seconds is None else seconds), _FIRST_PAUSE
        while True:
            found, left = self.task(id), until - time.monotonic()
            if found.finished or left <= 0:
                return found
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def letters(self, most: int | None = None) -> Iterator[Task]:
        """The tasks whose callback could not be delivered, the newest first."""
        return (value_of(Task, one) for one in self._pages("/admin/letters", "tasks", most, {}))

    def redeliver(self, id: str) -> Task:
        """Send a callback again that could not be delivered."""
        return value_of(Task, self._asking.ask(_post(f"/admin/letters/{_part(id)}/retry", None)).json())

    def _task(self, path: str, order: Mapping[str, Any]) -> Task:
        said = {name: value for name, value in order.items() if name == "hashes" or value not in ("", (), [], {}, False)}
        return value_of(Task, self._asking.ask(_post(path, said)).json())

    # ---- asking

    def _get(self, path: str, **query: Any) -> Any:
        return self._asking.ask(Question("GET", path, _query(**query))).json()

    def _pages(self, path: str, word: str, most: int | None, query: Mapping[str, Any], on: str = "cursor") -> Iterator[Any]:
        """The entries of a long answer, page by page; `on` is the name of what tells where to go on."""
        cursor, left = "", most
        while left is None or left > 0:
            page = self._get(path, **query, most=_PAGE if left is None else min(_PAGE, left), **{on: cursor})
            entries = _listed(page, word)
            yield from entries
            cursor = page.get(on) or ""
            left = None if left is None else left - len(entries)
            if not cursor:
                return


def _plain(text: str) -> bool:
    """Whether a text may stand in a path as it is."""
    return quote(text, safe="", errors="replace") == text and text not in (".", "..")


def _part(text: str) -> str:
    """A text as a part of a path; there is nothing whose hash or id would be several, or lead elsewhere."""
    if text in (".", "..") or "/" in text:
        raise Missing("nothing of that name is here")
    return quote(text, safe="", errors="replace")


def _listed(page: object, word: str) -> list[Any]:
    """The list of that name in an answer."""
    entries = page.get(word) if isinstance(page, dict) else None
    if not isinstance(entries, list):
        raise CallFailed(f"the server answered without {word}", again=False)
    return entries


def _query(**said: Any) -> dict[str, Any]:
    """What is said, as a query: nothing of what says nothing, JSON for what is no text."""
    spelled = {name: json.dumps(value) if isinstance(value, Mapping | bool) else value for name, value in said.items()}
    return {name: value for name, value in spelled.items() if value not in ("", None, [], (), "false")}


def _texts(session: str, said: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: ",".join(value) if isinstance(value, list | tuple) else str(value) for name, value in _query(session=session, **said).items()
    }


def _if_match(match: str | int | None) -> dict[str, str]:
    return {} if match is None else {"if-match": f'"{match}"' if isinstance(match, int) else match}


def _json(value: object) -> Callable[[], bytes]:
    data = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")  # half a character, as JSON escapes it
    return lambda: data


def _post(path: str, value: object, query: Mapping[str, Any] | None = None, *, again: bool = False, slow: bool = False) -> Question:
    if value is None:
        return Question("POST", path, query or {}, {"content-length": "0"}, again=again, slow=slow)
    return Question("POST", path, query or {}, {"content-type": "application/json"}, _json(value), again)
