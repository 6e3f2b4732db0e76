"""The commands for words: sessions, commits, search, restore, sync, verify."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from imgproxy.commands.progress import among_hashes, watched
from imgproxy.commands.where import anywhere, desk, repository, restoring, warned
from imgproxy.errors import Busy, StoreTrouble

if TYPE_CHECKING:
    from imgproxy.client import Commit
    from imgproxy.meta.query import Query
    from imgproxy.meta.record import Record
    from imgproxy.wiring import Desk

_SESSION = click.option("--session", default="", help="The id or name of a session; the default session if none is named.")
AUTHOR = click.option("--author", default=lambda: os.environ.get("USER", ""), help="Who does this; the user's name if nobody is named.")


_ASKING = (
    click.option("--tag", "tags", multiple=True, help="With this tag; may be repeated."),
    click.option("--from", "taken_from", default="", help="Taken at this time or day, or later."),
    click.option("--to", "taken_to", default="", help="Taken at this time or day, or earlier."),
    click.option("--type", default="", help="Of this type, such as jpg."),
    click.option("--orientation", default="", help="landscape, portrait or square."),
    click.option("--alias", default="", help="With this alias: domain/dkey."),
    click.option("--md5", default="", help="With this MD5."),
)


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which images are meant, beside words."""
    for option in reversed(_ASKING):
        command = option(command)
    return command


# ---- saying


@click.command("set")
@click.argument("hash")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...")
@_SESSION
@anywhere
def set_words(hash: str, pairs: tuple[str, ...], session: str) -> None:
    """Say something of the image HASH in a session: title, description, tags (with commas), taken_at, domain, dkey, user.NAME."""
    changes = _changes(pairs)
    with repository() as there:
        there.edit(hash, changes, session=session)


def _changes(pairs: tuple[str, ...]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"expected KEY=VALUE, got {pair}")
        if key == "tags":
            changes[key] = [tag.strip() for tag in value.split(",") if tag.strip()]
        elif key.startswith("user."):
            changes.setdefault("user", {})[key.removeprefix("user.")] = _json_or_text(value)
        else:
            changes[key] = value
    return changes


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


@click.command("remove")
@click.argument("hashes", nargs=-1, required=True)
@_SESSION
@anywhere
def remove(hashes: tuple[str, ...], session: str) -> None:
    """Delete the images HASHES in a session: their records with its commit, their originals after it."""
    with repository() as there:
        for hash in hashes:
            there.remove(hash, session=session)


# ---- sessions


@click.group("session")
def session_group() -> None:
    """Open, list, compare, commit and discard sessions, whole or in part."""


@session_group.command("open")
@click.argument("name", default="")
@AUTHOR
@anywhere
def session_open(name: str, author: str) -> None:
    """Open a session, or the one of that NAME; prints its id."""
    with repository() as there:
        click.echo(there.open_session(name, author)[0].id)


@session_group.command("list")
@anywhere
def session_list() -> None:
    """Print every open session: id, name, author, how many records it changes."""
    with repository() as there:
        for one in there.sessions():
            click.echo(f"{one.id}\t{one.name}\t{one.author}\t{one.changes}")


@session_group.command("diff")
@click.argument("session", default="")
@anywhere
def session_diff(session: str) -> None:
    """Print what a SESSION changes, a record a line: new, changed or deleted, its hash, and what was said."""
    with repository() as there:
        for one in there.diff(session):
            word = "new" if one.before is None else "deleted" if one.after is None else "changed"
            click.echo(f"{word}\t{one.hash}\t{json.dumps(_told(one.before, one.after), ensure_ascii=False)}" + ("\tstale" * one.stale))


def _told(before: Record | None, after: Record | None) -> dict[str, Any]:
    """The fields that are new or other than before."""
    from imgproxy.meta.record import shown

    was, now = (shown(record) if record is not None else {} for record in (before, after))
    return {key: value for key, value in now.items() if key != "version" and value != was.get(key)}


@session_group.command("commit")
@click.argument("session", default="")
@click.option("-m", "--message", default="", help="What this is about.")
@AUTHOR
@anywhere
def session_commit(session: str, message: str, author: str) -> None:
    """Make all of a SESSION live, at one moment and for good; prints the commit's number."""
    _commit(session, message, author)


@session_group.command("take-back")
@click.argument("hashes", metavar="HASH...", nargs=-1, required=True)
@_SESSION
@anywhere
def session_take_back(hashes: tuple[str, ...], session: str) -> None:
    """Take back what a session makes of the images HASHES, so that it shows what is live: the way out of a conflict."""
    with repository() as there:
        for hash in hashes:
            there.take_back(hash, session=session)


@session_group.command("discard")
@click.argument("session", default="")
@anywhere
def session_discard(session: str) -> None:
    """Forget what a SESSION changes."""
    with repository() as there:
        there.discard(session)


# ---- commits


@click.command()
@_SESSION
@click.option("-m", "--message", default="", help="What this is about.")
@AUTHOR
@anywhere
def commit(session: str, message: str, author: str) -> None:
    """Make all of a session live, at one moment and for good; prints the commit's number."""
    _commit(session, message, author)


def _commit(session: str, message: str, author: str) -> None:
    with repository() as there:
        made = there.commit(session, message=message, author=author)
        if made is None:
            click.echo("nothing to commit", err=True)
        else:
            click.echo(made.n)


@click.command()
@click.option("--most", default=100, show_default=True, help="How many.")
@click.option("--of", "hash", default="", help="Only the commits that made this image's record what it is.")
@anywhere
def log(most: int, hash: str) -> None:
    """Print the newest commits, one a line: number, time, author, records changed, message."""
    with repository() as there:
        for one in there.commits(most, hash):
            click.echo(_line(one))


def _line(one: Commit) -> str:
    message = one.message.replace("\n", " ").replace("\t", " ")
    return f"{one.n}\t{one.time}\t{one.author}\t{one.changes}\t{message}"


@click.command()
@click.argument("number", type=int)
@AUTHOR
@anywhere
def revert(number: int, author: str) -> None:
    """Go back on the commit of that NUMBER by a new one; prints its number."""
    with repository() as there:
        made = there.revert(number, author=author)
        click.echo(made.n if made is not None else "nothing to commit")


# ---- asking


@click.command()
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print whole records, a JSON object a line.")
@click.option("--most", default=1000, show_default=True, help="How many.")
@asking
@click.option("--like", default="", help="That look like the image of this hash.")
@_SESSION
@anywhere
def search(words: tuple[str, ...], as_json: bool, most: int, like: str, session: str, **wanted: Any) -> None:
    """Print the images that WORDS are said of (`sun*` begins a word), newest first: a hash a line."""
    from imgproxy.meta.record import shown

    with repository() as there:
        for record in there.search(session=session, most=most, like=like, **spelled(words, wanted)):
            click.echo(json.dumps(shown(record), ensure_ascii=False) if as_json else record.hash)


def spelled(words: tuple[str, ...], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What words and the options of `asking` ask for, by the names that a query has."""
    domain, _, dkey = wanted["alias"].partition("/")
    said = {**wanted, "words": " ".join(words), "tags": list(wanted["tags"]), "domain": domain, "dkey": dkey}
    return {name: value for name, value in said.items() if value and name != "alias"}


def asked(words: tuple[str, ...], wanted: Mapping[str, Any]) -> Query:
    """The query that they spell."""
    from imgproxy.meta import query

    return query.read(spelled(words, wanted))


# ---- keeping


@click.command()
@click.option("--every", default=5.0, show_default=True, help="Ask the store for new commits again after so many seconds.")
def follow(every: float) -> None:
    """Keep this node's copy of the words level with what other nodes commit, until stopped; prints the newest commit as it comes."""
    with desk() as opened:
        seen = 0
        while True:
            seen = _followed(opened, seen)
            time.sleep(every)


def _followed(opened: Desk, seen: int) -> int:
    """Apply what is new; a store that is away for a while is told of, and asked again."""
    try:
        while not warned(opened.words.follower.poll()).level:
            pass
    except (Busy, StoreTrouble) as trouble:
        click.echo(f"warning: {trouble}", err=True)
    newest = opened.words.commits.log(most=1)
    if newest and newest[0].n != seen:
        click.echo(newest[0].n)
        sys.stdout.flush()
        return newest[0].n
    return seen


@click.command()
@anywhere
def snapshot() -> None:
    """Write the whole database into the store, so that a restore is quicker; prints the commit it stands at."""
    with repository() as there:
        click.echo(there.snapshot())


@click.command()
@click.option("--check", "prove", is_flag=True, help="Restore beside it, and prove that the result equals the live database.")
def restore(prove: bool) -> None:
    """Have the database from the store if there is none here, or a damaged one; says what was done."""
    with desk() as opened:
        booted = opened.words.booted
        if not prove:
            click.echo(f"restored to commit {booted.restored.n}" if booted.restored else "the database is here, and sound")
            return
        _prove(opened)


def _prove(opened: Desk) -> None:
    from imgproxy.meta.restoring import check

    database = opened.words.database
    proof = check(database, opened.meta, database.path.with_name("proof.db"), progress=restoring)
    for n in proof.restored.broken:
        click.echo(f"broken\tsnapshot {n}")
    for difference in proof.differences:
        click.echo(f"differs\t{difference}")
    if proof.differences:
        sys.exit(1)
    click.echo(f"equal\t{proof.records} records at commit {proof.restored.n}")


@click.command()
@click.option("--repair", is_flag=True, help="Delete records whose original is gone, and give a record to originals that have none.")
@click.option("--delete-strays", is_flag=True, help="With --repair: delete originals that have no record, instead.")
@click.option("--grace", default=86_400.0, show_default=True, help="Spare what is younger than so many seconds.")
@anywhere
def sync(repair: bool, delete_strays: bool, grace: float) -> None:
    """Compare the records with the originals, and print each difference: lost, stray, odd or orphan, and its key."""
    with watched("comparing") as share, repository(among_hashes(share)) as there:
        done = there.sync(repair=repair, delete_strays=delete_strays, grace=grace, told=lambda one: click.echo(f"{one.kind}\t{one.key}"))
    told = ", ".join(f"{number} {word}" for word, number in sorted(done.numbers.items()) if number)
    click.echo(told or "nothing there", err=True)
    if not repair and not done.agree:
        sys.exit(1)


@click.command()
@click.option("--pace", default=20.0, show_default=True, help="At most so many megabytes a second; 0 does not hold back.")
@click.option("--most", type=int, help="Look at so many originals, and go on another time.")
@anywhere
def verify(pace: float, most: int | None) -> None:
    """Hash the originals again, going on where the last run stopped; prints and puts away those that do not match their name."""
    with watched("hashing") as share, repository(among_hashes(share)) as there:
        done = there.verify(pace=pace, most=most or 0)
    for hash in done.quarantined:
        click.echo(f"quarantined\t{hash}")
    click.echo(f"{done.originals} originals, {done.bytes} bytes" + ("" if done.whole else "; to be continued"), err=True)
    if done.quarantined:
        sys.exit(1)


COMMANDS = (set_words, remove, session_group, commit, log, revert, search, follow, snapshot, restore, sync, verify)
