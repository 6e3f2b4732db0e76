"""The command that lays originals out for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgproxy.commands.where import desk
from imgproxy.commands.words import asked, asking
from imgproxy.errors import Missing, Outdated, Rotten

if TYPE_CHECKING:
    from imgproxy.meta.query import Query
    from imgproxy.meta.record import Record
    from imgproxy.meta.search import Search

_PAGE = 500


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.argument("words", nargs=-1)
@asking
@click.option("--copy", is_flag=True, help="Always copy, also where a hard link to the store's own file would do.")
def export(directory: Path, words: tuple[str, ...], copy: bool, **wanted: Any) -> None:
    """Lay out in DIRECTORY the originals that WORDS and the options find (of none: all), by the day they were taken; prints what is new.

    May be stopped and run again: what is there whole is left alone. Hard links are for reading alone: who edits one edits the original.
    """
    from imgproxy.exporting import Export

    with desk() as opened:
        tree = Export(opened.house.base, directory, link=not copy)
        query, new, failed = asked(words, wanted), 0, 0
        with tree.open():
            for record in _all(opened.words.search, query):
                try:
                    path = tree.keep(record)
                except (Missing, Rotten) as error:
                    failed += 1
                    click.echo(f"{record.hash}: {error}", err=True)
                    continue
                if path is not None:
                    new += 1
                    click.echo(path)
    click.echo(f"{new} new, {failed} failed", err=True)
    if failed:
        sys.exit(1)


def _all(search: Search, query: Query) -> Iterator[Record]:
    """Every record found; from the beginning again if that takes so long that its moment is no longer kept."""
    cursor = ""
    while True:
        try:
            page = search.page(query, most=_PAGE, cursor=cursor)
        except Outdated:
            cursor = ""
            continue
        yield from page.records
        cursor = page.cursor
        if not cursor:
            return


COMMANDS = (export,)
