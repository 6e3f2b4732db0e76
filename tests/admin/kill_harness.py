"""Kill web workers and job workers over and over at their work, throw the disk away at the end, and look for what was lost.

    python -m tests.admin.kill_harness --kills 200 [--seed N] [--liar]

A walker (`walker.py`, `asker.py`) uploads, describes, deletes, has pictures fetched and commits, all over HTTP, and believes what is
answered. Deaths (`deaths.py`) come at random moments: of one web worker, of all, of the job worker, of all of these at once. Nothing that
was answered may be lost, and sync may find only what was not. With `--liar` the walker believes orders and commits that nobody answered:
then something must be lost, or this proves nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.admin.asker import Asker, Result
from tests.admin.deaths import Deaths
from tests.admin.walker import HABITS, Walker
from tests.serving import serving
from tests.strange import stranger

EPISODE = 8
"""After so many kills the server is stopped in good order and begins anew: a keeper waits longer after every death of its worker."""


def run(home: Path, kills: int, seed: int, *, liar: bool = False) -> Result:
    """So many kills; then the disk is lost, all but the store, and everything that was answered must come back."""
    luck, result = random.Random(seed), Result()
    deaths = Deaths(luck, result.kills)
    with stranger(HABITS) as strange:
        settings = {
            "IMG_STORE": f"fs://{home}/store",
            "IMG_WORKERS": "2",
            "IMG_JOB_WORKERS": "2",
            "IMG_TASK_TRIES": "100",
            "IMG_FETCH_NETWORKS": "127.0.0.1/32",
            "IMG_FETCH_PORTS": str(strange.port),
        }
        ask = Asker(result, deaths.asked, liar=liar)
        walker = Walker(ask, strange, luck, result, liar=liar)
        while (done := result.kills.total()) < kills:
            with asked(ask, home / "var", settings):
                while result.kills.total() < min(kills, done + EPISODE):
                    with deaths.one(ask.server):
                        for _ in range(3):
                            walker.life()
                    if not liar:
                        walker.look()
                if not liar:
                    walker.recall()
        left = list((home / "var" / "spool").iterdir())
        if left and not liar:
            result.wrong.append(f"the spool has {left}")
        shutil.rmtree(home / "var")
        with asked(ask, home / "var", settings):
            walker.look()
            _sync(ask, walker.begun, result)
    return result


@contextmanager
def asked(ask: Asker, data: Path, settings: dict[str, str]) -> Iterator[None]:
    """A server that is asked while the block runs."""
    with serving(data, **settings) as server:
        ask.server = server
        yield


def _sync(ask: Asker, begun: set[str], result: Result) -> None:
    """Only what was begun and never committed may be a stray, and nothing else may differ."""
    told = ask.once("POST", "/admin/sync?grace=0").json
    strays = {one["key"] for one in told["found"] if one["kind"] == "stray"}
    if len(strays) != len(told["found"]) or not strays <= begun:
        result.wrong.append(f"sync found {told['found']}")
    ask.once("POST", "/admin/sync?grace=0&repair=true&delete_strays=true")
    if not ask.once("POST", "/admin/sync?grace=0").json["agree"]:
        result.wrong.append("sync did not make records and originals agree")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--liar", action="store_true")
    said = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="http-kills-") as home:
        result = run(Path(home), said.kills, said.seed, liar=said.liar)
    print(json.dumps({"seed": said.seed, "seconds": round(time.monotonic() - began, 1), **vars(result)}))
    return 0 if bool(result.wrong) == said.liar else 1


if __name__ == "__main__":
    sys.exit(main())
