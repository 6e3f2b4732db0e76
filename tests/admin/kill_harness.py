"""Kill web workers over and over while they take uploads, edits and commits, throw the disk away at the end, and look for what was lost.

    python -m tests.admin.kill_harness --kills 200 [--seed N] [--liar]

A walker uploads, describes, deletes and commits over HTTP, and believes what is answered. What is answered must be there, whatever is
killed; what is not answered may be there, as a whole; a commit that was not answered is asked for again, and happens once. Deaths come at
random moments: of one worker, or of all. With `--liar` the walker believes commits that nobody answered: then something must be lost, or
this proves nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.plain import png
from tests.serving import Response, Server, serving

NUMBERS = 16
PICTURES = [png(24, 16, seed) for seed in range(NUMBERS)]
HASHES = [hashlib.sha256(picture).hexdigest() for picture in PICTURES]

Changes = dict[str, str | None]
"""What becomes of records: a title for each hash, None for deleted."""


@dataclass
class Result:
    """What was seen; `wrong` must be empty."""

    kills: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    again: int = 0
    cut: int = 0
    wrong: list[str] = field(default_factory=list)


class Cut(Exception):
    """The answer did not come."""


class Walker:
    """Somebody who writes, and remembers what was answered."""

    def __init__(self, server: Server, luck: random.Random, result: Result, *, liar: bool = False) -> None:
        self.server = server
        self.live: Changes = {}
        self.asked: set[str] = set()
        self._luck = luck
        self._result = result
        self._liar = liar

    def life(self) -> None:
        """Open a session, change some records in it, commit it; whatever is cut off on the way is looked at afterwards."""
        session = self._opened()
        changes: Changes = {}
        for _ in range(self._luck.randint(1, 4)):
            self._change(session, changes)
        if not changes:
            self._until(lambda: self.ask("DELETE", f"/admin/sessions/{session}"))
            return
        before = dict(self.live)
        if self._liar:
            self._answered(changes)
        try:
            answer = self.ask("POST", f"/admin/commit?session={session}")
        except Cut:
            if self._liar:
                return
            self._result.again += 1
            answer = self._until(lambda: self.ask("POST", f"/admin/commit?session={session}"))
        if answer.status == 201:
            self._answered(changes)
            self._result.commits += 1
        else:
            self.live = before
            self._result.wrong.append(f"a commit was answered with {answer.status}: {answer.body[:200]!r}")

    def look(self) -> None:
        """Compare what is there with what was answered."""
        found: Changes = {}
        cursor = ""
        while True:
            page = self._until(lambda: self.ask("GET", f"/admin/images?most=1000&cursor={cursor}")).json  # noqa: B023
            found |= {image["hash"]: image["title"] for image in page["images"]}
            cursor = page["cursor"]
            if not cursor:
                break
        if found != self.live:
            wrong = sorted(hash for hash in {*found, *self.live} if found.get(hash) != self.live.get(hash))
            self._result.wrong.append(f"records differ: {[(hash[:8], self.live.get(hash), found.get(hash)) for hash in wrong]}")
            self.live = found
        for hash in found:
            answer = self._until(lambda: self.ask("GET", f"/{hash}.png"))  # noqa: B023
            if hashlib.sha256(answer.body).hexdigest() != hash:
                self._result.wrong.append(f"original {hash[:8]} is answered with {answer.status}")

    def ask(self, method: str, path: str, body: Any = None) -> Response:
        """Ask once; `Cut` if there is no answer, or none that says what happened."""
        try:
            answer = self.server.ask(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            self._result.cut += 1
            raise Cut from error
        if answer.status == 503:
            raise Cut
        return answer

    def _opened(self) -> str:
        return str(self._until(lambda: self.ask("POST", "/admin/sessions", {})).json["id"])

    def _change(self, session: str, changes: Changes) -> None:
        number = self._luck.randrange(NUMBERS)
        hash, title = HASHES[number], f"{self._luck.random()}"
        before = changes.get(hash, self.live.get(hash))
        after: str | None = title
        try:
            if before is None:
                self.asked.add(hash)
                answer = self.ask("POST", f"/admin/images?session={session}&title={title}", PICTURES[number])
            elif self._luck.random() < 0.6:
                answer = self.ask("PATCH", f"/admin/images/{hash}?session={session}", {"title": title})
            else:
                after = None
                answer = self.ask("DELETE", f"/admin/images/{hash}?session={session}")
        except Cut:
            after = self._seen(session, hash, before, after)
        else:
            if answer.status not in (200, 201, 204):
                self._result.wrong.append(f"a change was answered with {answer.status}: {answer.body[:200]!r}")
        if after != before or hash in changes:
            changes[hash] = after
        if changes.get(hash, "") is None and hash not in self.live:
            del changes[hash]

    def _seen(self, session: str, hash: str, before: str | None, after: str | None) -> str | None:
        """What an unanswered change has come to: all or nothing."""
        answer = self._until(lambda: self.ask("GET", f"/admin/images/{hash}?session={session}"))
        found = answer.json["title"] if answer.status == 200 else None
        if found not in (before, after):
            self._result.wrong.append(f"a change came by half: {before} to {after} is {found}")
        return found

    def _answered(self, changes: Changes) -> None:
        self.live = {hash: title for hash, title in {**self.live, **changes}.items() if title is not None}

    def _until(self, ask: Any) -> Response:
        deadline = time.monotonic() + 100
        while True:
            try:
                answer: Response = ask()
                return answer
            except Cut:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def workers(master: int) -> list[int]:
    """The processes that a master has started."""
    try:
        return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
    except OSError:
        return []


@contextmanager
def killing(server: Server, luck: random.Random, result: Result) -> Iterator[None]:
    """Kill one worker, or all, at some moment of the block."""
    over = threading.Event()
    wait, all = luck.random() * 0.4, luck.random() < 0.3

    def kill() -> None:
        if over.wait(wait):
            return
        found = workers(server.process.pid)
        for pid in found if all else found[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        result.kills["all workers" if all else "a worker"] += bool(found)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run(home: Path, kills: int, seed: int, *, liar: bool = False) -> Result:
    """So many kills; then the disk is lost, all but the store, and everything that was answered must come back."""
    luck, result = random.Random(seed), Result()
    store = {"IMG_STORE": f"fs://{home}/store", "IMG_WORKERS": "2"}
    with serving(home / "var", **store) as server:
        walker = Walker(server, luck, result, liar=liar)
        while sum(result.kills.values()) < kills:
            with killing(server, luck, result):
                for _ in range(3):
                    walker.life()
            if not liar:
                walker.look()
    shutil.rmtree(home / "var")
    with serving(home / "var", **store) as server:
        walker.server = server
        walker.look()
        told = server.ask("POST", "/admin/sync?grace=0").json
        strays = {one["key"] for one in told["found"] if one["kind"] == "stray"}
        if len(strays) != len(told["found"]) or not strays <= walker.asked:
            result.wrong.append(f"sync found {told['found']}")
        server.ask("POST", "/admin/sync?grace=0&repair=true&delete_strays=true")
        if not server.ask("POST", "/admin/sync?grace=0").json["agree"]:
            result.wrong.append("sync did not make records and originals agree")
        left = list((home / "var" / "spool").iterdir())
        if left:
            result.wrong.append(f"the spool has {left}")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--liar", action="store_true")
    said = parser.parse_args()
    began = time.monotonic()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="http-kills-")))
        result = run(home, said.kills, said.seed, liar=said.liar)
    print(json.dumps({"seed": said.seed, "seconds": round(time.monotonic() - began, 1), **vars(result)}))
    return 0 if bool(result.wrong) == said.liar else 1


if __name__ == "__main__":
    sys.exit(main())
