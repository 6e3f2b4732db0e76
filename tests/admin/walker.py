"""Somebody who writes over HTTP while processes die, and believes what is answered.

What was answered must be there: a change in its session, a commit for good, a task until it has come to its end, what a task says that it
has done. What was not answered may be there, as a whole: a change is looked at, orders and commits are asked for again, and happen once.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from typing import Any

from tests.admin.asker import Asker, Cut, Result
from tests.plain import png
from tests.serving import Response
from tests.strange import Asked, Habit, Stranger

NUMBERS = 24
PICTURES = [png(24, 16, seed) for seed in range(NUMBERS)]
HASHES = [hashlib.sha256(picture).hexdigest() for picture in PICTURES]

Changes = dict[str, str | None]
"""What becomes of records: a title for each hash, None for deleted."""


@dataclass(frozen=True)
class Life:
    """A session between its opening and its commit: what it changes, and the fetches that it waits for, each by the hash of its picture."""

    session: str
    default: bool
    changes: Changes = field(default_factory=dict)
    fetches: dict[str, tuple[str, str]] = field(default_factory=dict)
    """For each the id of its task, and the title that it brings."""


def _quick(asked: Asked) -> None:
    asked.answer(200, PICTURES[int(asked.path.rpartition("/")[2])], content_type="image/png")


def _slow(asked: Asked) -> None:
    asked.server.over.wait(0.3)
    _quick(asked)


HABITS: dict[str, Habit] = {"quick": _quick, "slow": _slow}
"""Those of the stranger that the pictures are fetched from."""


class Walker:
    """Somebody who writes, and remembers what was answered; a liar believes orders and commits that nobody answered."""

    def __init__(self, ask: Asker, strange: Stranger, luck: random.Random, result: Result, *, liar: bool = False) -> None:
        self.live: Changes = {}
        self.begun: set[str] = set()
        """Hashes that were uploaded or fetched, and are of no commit since."""
        self.tasks: dict[str, str] = {}
        """The tasks that were answered, and the state that was told of each."""
        self._commit = 0
        self._ask = ask
        self._strange = strange
        self._luck = luck
        self._result = result
        self._liar = liar

    def life(self) -> None:
        """Open a session, change some records in it, commit it; whatever is cut off on the way is looked at afterwards."""
        life = self._opened()
        for _ in range(self._luck.randint(1, 4)):
            self._change(life, self._luck.randrange(NUMBERS))
        for hash in list(life.fetches):
            self._fetched(life, hash)
        if life.changes:
            self._committed(life)
        else:
            self._ask.until(lambda: self._ask.once("DELETE", f"/admin/sessions/{life.session}"))

    def look(self) -> None:
        """Compare what is there with what was answered."""
        found: Changes = {}
        cursor = ""
        while True:
            page = self._ask.until(lambda: self._ask.once("GET", f"/admin/images?most=1000&cursor={cursor}")).json  # noqa: B023
            found |= {image["hash"]: image["title"] for image in page["images"]}
            cursor = page["cursor"]
            if not cursor:
                break
        if found != self.live:
            differ = sorted(hash for hash in {*found, *self.live} if found.get(hash) != self.live.get(hash))
            self._result.lost += len(differ)
            self._wrong(f"records differ: {[(hash[:8], self.live.get(hash), found.get(hash)) for hash in differ]}")
            self.live = found
        for hash in found:
            answer = self._ask.until(lambda: self._ask.once("GET", f"/{hash}.png"))  # noqa: B023
            if hashlib.sha256(answer.body).hexdigest() != hash:
                self._result.lost += 1
                self._wrong(f"original {hash[:8]} is answered with {answer.status}")

    def recall(self) -> None:
        """Wait until nothing is left to be done, and compare the tasks with what was told of them."""
        self._ask.until(lambda: self._ask.level("/admin/tasks?state=created", lambda told: not told["tasks"]))
        self._ask.until(lambda: self._ask.level("/admin/status", lambda told: told["farewell"] == 0))
        self._result.worked_again = 0
        for id, state in self.tasks.items():
            answer = self._ask.until(lambda: self._ask.once("GET", f"/admin/tasks/{id}"))  # noqa: B023
            if answer.status != 200 or answer.json["state"] != state:
                self._wrong(f"a task that was told as {state} is answered with {answer.status}: {answer.body[:200]!r}")
            else:
                self._result.worked_again += answer.json["attempts"] > 1
        for state in ("failed", "warning"):
            for task in self._ask.until(lambda: self._ask.once("GET", f"/admin/tasks?state={state}&most=1000")).json["tasks"]:  # noqa: B023
                self._wrong(f"a {task['kind']} ended as {state}: {task['error']}")

    def _opened(self) -> Life:
        if self._luck.random() < 0.3:
            return Life(str(self._ask.until(lambda: self._ask.once("GET", "/admin/sessions/default")).json["id"]), True)
        return Life(str(self._ask.until(lambda: self._ask.once("POST", "/admin/sessions", {})).json["id"]), False)

    # ---- changes

    def _change(self, life: Life, number: int) -> None:
        hash, title = HASHES[number], f"{self._luck.random()}"
        self._fetched(life, hash)
        before = life.changes.get(hash, self.live.get(hash))
        if self._luck.random() < 0.4:
            self._fetch(life, number, title)
        elif before is None:
            self.begun.add(hash)
            self._write(life, hash, title, "POST", f"/admin/images?title={title}&", PICTURES[number])
        elif self._luck.random() < 0.6:
            self._write(life, hash, title, "PATCH", f"/admin/images/{hash}?", {"title": title})
        else:
            self._write(life, hash, None, "DELETE", f"/admin/images/{hash}?", None)

    def _write(self, life: Life, hash: str, after: str | None, method: str, path: str, body: Any) -> None:
        """A change that is answered when it is done."""
        before = life.changes.get(hash, self.live.get(hash))
        try:
            answer = self._ask.once(method, f"{path}session={life.session}", body)
        except Cut:
            found = self._seen(life, hash)
            if found not in (before, after):
                self._wrong(f"a change came by half: {before} to {after} is {found}")
            after = found
        else:
            if answer.status not in (200, 201, 204):
                self._wrong(f"a change was answered with {answer.status}: {answer.body[:200]!r}")
        self._changed(life, hash, before, after)

    def _changed(self, life: Life, hash: str, before: str | None, after: str | None) -> None:
        if after != before or hash in life.changes:
            life.changes[hash] = after
        if life.changes.get(hash, "") is None and hash not in self.live:
            del life.changes[hash]

    def _seen(self, life: Life, hash: str) -> str | None:
        """The title of a record, as its session shows it."""
        answer = self._ask.until(lambda: self._ask.once("GET", f"/admin/images/{hash}?session={life.session}"))
        return str(answer.json["title"]) if answer.status == 200 else None

    # ---- tasks

    def _fetch(self, life: Life, number: int, title: str) -> None:
        """Order a fetch; the same order again is the same fetch, as long as it is not done, and afterwards changes nothing."""
        hash = HASHES[number]
        url = self._strange.url(f"/{self._luck.choice(list(HABITS))}/{number}")
        path = "/admin/fetch"
        order: dict[str, Any] = {"url": url, "session": life.session, "title": title}
        if life.default and self._luck.random() < 0.7:
            path, order = f"/v1/fetch?wait={self._luck.choice((0, 1))}", {"url": url, "metadata": {"word": title}}
            title = life.changes.get(hash, self.live.get(hash)) or ""
        self.begun.add(hash)
        answer = self._ask.insistent("POST", path, order)
        if answer is None:
            self._changed(life, hash, life.changes.get(hash, self.live.get(hash)), title)
        elif answer.status in (200, 202):
            life.fetches[hash] = self._told(answer), title
        else:
            self._wrong(f"an order was answered with {answer.status}: {answer.body[:200]!r}")

    def _fetched(self, life: Life, hash: str) -> None:
        """Wait for the fetch of that picture, if there is one, and look for what it says that it has done."""
        if hash not in life.fetches:
            return
        id, title = life.fetches.pop(hash)
        if self._ended(id) is None:
            return
        found = self._seen(life, hash)
        self._result.fetches += found == title
        if found != title:
            self._result.lost += 1
            self._wrong(f"a fetch has succeeded with {title!r}, and its session shows {found!r}")
        self._changed(life, hash, life.changes.get(hash, self.live.get(hash)), found)

    def _told(self, answer: Response) -> str:
        """The id of a task that was answered, which is to be there from now on."""
        id = str(answer.json["id"])
        self.tasks.setdefault(id, "")
        return id

    def _ended(self, id: str) -> dict[str, Any] | None:
        """The result of a task that has succeeded."""
        answer = self._ask.until(lambda: self._ask.level(f"/v1/tasks/{id}?wait=2", lambda told: told["state"] != "created"))
        if answer.status == 200:
            self.tasks[id] = answer.json["state"]
            if answer.json["state"] == "succeeded":
                return dict(answer.json["result"])
        self._wrong(f"a task that was answered is {answer.status}: {answer.body[:500]!r}")
        return None

    # ---- commits

    def _committed(self, life: Life) -> None:
        before = dict(self.live)
        if self._liar:
            self._answered(life.changes)
        answer = self._ask.insistent("POST", f"/admin/commit?session={life.session}{self._luck.choice(('', '', '&wait=false'))}")
        if answer is None:
            return
        n = None
        if answer.status == 201:
            n = answer.json["n"]
        elif answer.status == 202:
            n = (self._ended(self._told(answer)) or {}).get("n")
        if n is None:
            self.live = before
            self._wrong(f"a commit was answered with {answer.status}: {answer.body[:200]!r}")
            return
        if n != self._commit + 1 and not self._liar:
            self._wrong(f"commit {n} comes after commit {self._commit}")
        self._commit = n
        self._answered(life.changes)
        self._result.commits += 1

    def _answered(self, changes: Changes) -> None:
        self.begun -= set(changes)
        self.live = {hash: title for hash, title in {**self.live, **changes}.items() if title is not None}

    def _wrong(self, what: str) -> None:
        self._result.wrong.append(what)
