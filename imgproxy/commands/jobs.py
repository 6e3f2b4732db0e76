"""The commands for jobs: run a worker, fetch, make renditions, and look after tasks."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from imgproxy.commands.where import Repository, anywhere, repository
from imgproxy.commands.words import asked, asking

if TYPE_CHECKING:
    from imgproxy.client import Task

_WAIT = click.option("--wait", default=0.0, help="Wait for the end at most so many seconds; leaves with 1 if it is not a good one.")
_CALLBACK = click.option("--callback", default="", help="A URL that hears of the end, by a signed POST.")
_SUFFIX = click.option("--suffix", "suffixes", multiple=True, help="Such as -256x256-fill.webp; may be repeated.")
_PRESET = click.option("--preset", "presets", multiple=True, help="The name of a preset; may be repeated.")
_MOST = click.option("--most", default=50, show_default=True, help="How many.")


@click.command()
@click.option("--workers", type=click.IntRange(1, 1024), help="So many tasks at a time; the setting job_workers if not said.")
def work(workers: int | None) -> None:
    """Do the work that was ordered, until told to stop; what is under way is finished then, or put back."""
    from imgproxy import wiring

    settings = wiring.settings_of(os.environ)
    opened = wiring.furnish(settings, os.environ)
    worker = wiring.worker_of(settings, opened, workers or max(1, settings.job_workers))
    clerk = wiring.clerk_of(settings)
    clerk.start(opened.words)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    finished = worker.run(settings.grace)
    clerk.stop()
    if not finished:
        sys.stderr.flush()
        os._exit(1)  # what is still under way goes with this process, and is done again by the next
    opened.close()


@click.command()
@click.argument("url")
@click.option("--domain", default="", help="With --dkey, an alias for the picture.")
@click.option("--dkey", default="", help="With --domain, an alias for the picture.")
@click.option("--title", default="", help="Its title.")
@click.option("--page-url", default="", help="The page where it was seen.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be repeated.")
@click.option("--session", default="", help="The id or name of a session; the default session if none is named.")
@_SUFFIX
@_PRESET
@_CALLBACK
@_WAIT
@anywhere
def fetch(url: str, callback: str, wait: float, **words: Any) -> None:
    """Have the picture at URL fetched into a session, and renditions made of it; prints the id of the task."""
    with repository() as there:
        _follow(there, there.fetch(url, callback=callback, **words), wait)


@click.command()
@click.argument("hashes", nargs=-1)
@asking
@_SUFFIX
@_PRESET
@click.option("--words", default="", help="Of the images that these words find.")
@click.option("--all", "everything", is_flag=True, help="Of all committed images.")
@click.option("--missing", is_flag=True, help="Only those that are not there; with --dry-run, print their names instead.")
@click.option("--dry-run", is_flag=True, help="With --missing: make nothing.")
@_CALLBACK
@_WAIT
@anywhere
def derive(hashes: tuple[str, ...], suffixes: tuple[str, ...], presets: tuple[str, ...], callback: str, wait: float, **wanted: Any) -> None:
    """Have renditions made of the images HASHES, of those that the options find, or of all; prints the id of the task."""
    everything, missing, dry_run = (wanted.pop(name) for name in ("everything", "missing", "dry_run"))
    query = asked_for(wanted.pop("words"), wanted)
    if not (hashes or query or everything or missing):
        raise click.UsageError("of which images? name HASHES, say what to search for, or --all")
    if not (suffixes or presets):
        raise click.UsageError("which renditions? say --suffix or --preset")
    some = {"hashes": hashes} if hashes else {}
    with repository() as there:
        if dry_run:
            for name in there.missing(suffixes=suffixes, presets=presets, query=query):
                click.echo(name)
            return
        order = there.derive(callback=callback, suffixes=suffixes, presets=presets, query=query, missing=missing, **some)
        _follow(there, order, wait)


@click.command()
@click.argument("id", default="")
@click.option("--state", default="", help="created, succeeded, failed or warning.")
@click.option("--kind", default="", help="fetch, derive, sync, verify, snapshot, commit or cull.")
@_MOST
@click.option("--json", "as_json", is_flag=True, help="Print whole tasks, a JSON object a line.")
@click.option("--retry", is_flag=True, help="Do the task of that ID again, which failed or was done with a warning.")
@anywhere
def tasks(id: str, state: str, kind: str, most: int, as_json: bool, retry: bool) -> None:
    """Print the newest tasks, or the task of that ID: id, kind, state, attempts, when it was ordered, what went wrong."""
    if retry and not id:
        raise click.UsageError("--retry needs an ID")
    with repository() as there:
        if retry:
            there.retry(id)
        found = [there.task(id)] if id else there.tasks(state=state, kind=kind, most=most)
        _print(found, as_json or bool(id))


@click.command()
@click.argument("id", default="")
@_MOST
@click.option("--retry", is_flag=True, help="Send the callback of the task of that ID again.")
@anywhere
def letters(id: str, most: int, retry: bool) -> None:
    """Print the tasks whose callback could not be delivered, the newest first: id, URL, tries, what went wrong last."""
    if retry != bool(id):
        raise click.UsageError("--retry and an ID go together")
    with repository() as there:
        if retry:
            there.redeliver(id)
            return
        for one in there.letters(most):
            click.echo(f"{one.id}\t{one.callback}\t{one.delivery['attempts']}\t{one.delivery['error']}")


def asked_for(words: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """The search that options spell, as an order has it."""
    from dataclasses import asdict

    from imgproxy.meta.query import Query

    said, nothing = asdict(asked((words,) if words else (), wanted)), asdict(Query())
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items() if value != nothing[name]}


def _follow(there: Repository, task: Task, wait: float) -> None:
    click.echo(task.id)
    if not wait:
        return
    task = there.wait(task.id, wait)
    if task.error or not task.finished:
        click.echo(task.error or "not done yet", err=True)
    if task.state not in ("succeeded", "warning"):
        sys.exit(1)


def _print(found: Iterable[Task], as_json: bool) -> None:
    for one in found:
        why = one.error.replace("\n", " ").replace("\t", " ")
        line = f"{one.id}\t{one.kind}\t{'running' if one.running else one.state}\t{one.attempts}\t{one.created_at}\t{why}"
        click.echo(json.dumps(asdict(one), ensure_ascii=False) if as_json else line)


COMMANDS = (work, fetch, derive, tasks, letters)
