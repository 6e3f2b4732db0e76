"""Much at once: every picture below a directory, or what is said of pictures that are in the store already."""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from imgproxy.commands.progress import Share, watched
from imgproxy.commands.where import Repository, anywhere, repository, server
from imgproxy.commands.words import AUTHOR
from imgproxy.errors import BadRecord, CannotRead, Damaged, Mismatch, NotAnImage, TooLarge, TooMuch

if TYPE_CHECKING:
    from imgproxy.meta.record import Record

_SUFFIXES = frozenset(".avif .gif .heic .jp2 .jpe .jpeg .jpg .jxl .png .svg .tif .tiff .webp".split())
_AT_ONCE = 2 * (os.cpu_count() or 1)
_AHEAD = 4 * _AT_ONCE
_REFUSALS = (BadRecord, CannotRead, Damaged, Mismatch, NotAnImage, TooLarge, TooMuch)
"""What is wrong with a picture; of anything else, such as a server that is busy, the next picture would hear the same."""

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


@click.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--session", default="import", show_default=True, help="The name of the session; a run that was stopped goes on in it.")
@click.option("-m", "--message", default="", help="What this is about.")
@AUTHOR
@anywhere
def import_all(source: Path, session: str, message: str, author: str) -> None:
    """Keep every picture below the directory SOURCE, in one session and with one commit; prints hash and file, and tells duplicates.

    If SOURCE is a file, its lines are records in JSON, as `search --json` prints them, of originals that are in the store: they are taken
    in where there is none of that hash yet.
    """
    if source.is_file() and server():
        raise click.UsageError("records are taken in where their repository is, not over HTTP")
    with watched("importing") as share, repository() as there:
        found, _ = there.open_session(session, author)
        counts = (_records if source.is_file() else _pictures)(there, source, found.id, share)
        made = there.commit(found.id, author=author, message=message or f"Import {source.name}")
    told = ", ".join(f"{counts[word]} {word}" for word in ("new", "duplicate", "refused"))
    click.echo(f"{told}; " + (f"commit {made.n}" if made is not None else "nothing to commit"), err=True)
    if counts["refused"]:
        sys.exit(1)


def _pictures(there: Repository, folder: Path, session: str, share: Share) -> Counter[str]:
    """Upload what is below a directory, some at once, and tell it in order."""
    paths = sorted(one for one in folder.rglob("*") if one.suffix.lower() in _SUFFIXES and one.is_file())
    counts: Counter[str] = Counter()
    for path, (word, told) in _side_by_side(lambda path: _uploaded(there, path, session), paths):
        counts[word] += 1
        share(counts.total() / len(paths))
        click.echo(f"{word}\t{told}\t{path}")
    return counts


def _uploaded(there: Repository, path: Path, session: str) -> tuple[str, str]:
    try:
        done = there.upload(path, session=session)
    except _REFUSALS as error:
        return "refused", str(error).splitlines()[0]
    return ("new" if done.new else "duplicate"), done.hash


def _side_by_side(work: Callable[[_Item], _Done], items: list[_Item]) -> Iterator[tuple[_Item, _Done]]:
    """Each item with what came of it, in their order; some are worked on at once, and none far ahead."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting: deque[tuple[_Item, Future[_Done]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) == _AHEAD:
                    first, done = waiting.popleft()
                    yield first, done.result()
            for first, done in waiting:
                yield first, done.result()
        finally:
            for _, done in waiting:
                done.cancel()


def _records(there: Repository, file: Path, session: str, share: Share) -> Counter[str]:
    """Stage what the lines of a file say, and tell those that say nothing sensible."""
    from imgproxy.commands.here import Here

    assert isinstance(there, Here)
    counts: Counter[str] = Counter()
    size = file.stat().st_size or 1
    done = there.take_in(_lines(file, counts, lambda read: share(read / size)), session)
    return counts + Counter(new=done.new, duplicate=done.known)


def _lines(file: Path, counts: Counter[str], told: Callable[[int], object]) -> Iterator[Record]:
    from imgproxy.meta import record

    read = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            read += len(line)
            if number % 1_000 == 0:
                told(read)
            try:
                yield record.read(_said(record.loads(line)))
            except BadRecord as error:
                counts["refused"] += 1
                click.echo(f"refused\tline {number}\t{error}")


def _said(value: object) -> object:
    """Without its version, which a record gets from the commit that takes it in."""
    return {name: one for name, one in value.items() if name != "version"} if isinstance(value, dict) else value


COMMANDS = (import_all,)
